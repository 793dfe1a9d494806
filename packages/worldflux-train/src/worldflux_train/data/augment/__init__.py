"""What `data.augment` does to the images of a sample: named functions with settings."""

from worldflux_train.data.augment.pipeline import NAMES, Augmentations, augmentations

__all__ = ["NAMES", "Augmentations", "augmentations"]
