"""Data sets that people train on: what they are, how they are read here, how they are fetched.

Nothing is mirrored: each is downloaded by the library that its makers publish it with.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from worldflux.atomic import make_folder
from worldflux.errors import ConfigError, StorageError, did_you_mean
from worldflux_train.data.tinyworlds import FILES, fetch_tinyworlds

Way = Literal["hub", "minari", "torchvision", "tinyworlds", "by hand"]
PACKAGES = {"hub": "huggingface_hub", "minari": "minari", "torchvision": "torchvision"}
"""What brings the files, by way; `by hand` needs consent or a form on a web page."""


@dataclass(frozen=True)
class Known:
    """One set: its name here, what is in it, the format that reads it, and whence it comes."""

    name: str
    about: str
    format: str
    way: Way
    where: str


_GAMES = [
    Known(f"tinyworlds/{game}", "frames of a game, no actions", "hdf5", "tinyworlds", game)
    for game in FILES
]
_MINARI = {
    "D4RL/pointmaze/umaze-v2": "a ball in a maze, goals",
    "D4RL/door/human-v2": "a hand that opens a door, by people",
    "mujoco/halfcheetah/medium-v0": "a running robot, half trained",
    "mujoco/hopper/expert-v0": "a hopping robot, trained",
}
CATALOGUE: dict[str, Known] = {
    known.name: known
    for known in [
        *_GAMES,
        *(Known(f"minari/{key}", about, "hdf5", "minari", key) for key, about in _MINARI.items()),
        Known("lerobot/pusht", "a pusher and a block, pictures", "lerobot", "hub", "lerobot/pusht"),
        Known(
            "lerobot/aloha-insertion", "two arms that insert a peg, pictures, simulated",
            "lerobot", "hub", "lerobot/aloha_sim_insertion_human",
        ),
        Known("cifar10", "60,000 images 32x32 of 10 classes", "cifar", "torchvision", "CIFAR10"),
        Known("cifar100", "60,000 images 32x32 of 100 classes", "cifar", "torchvision", "CIFAR100"),
        Known(
            "imagenet", "1.3 million images of 1,000 classes", "images", "by hand",
            "https://image-net.org/download.php",
        ),
        Known(
            "robomimic", "robot arms moved by people", "hdf5", "by hand",
            "https://robomimic.github.io/docs/datasets/robomimic_v0.1.html",
        ),
    ]
}  # fmt: skip


def fetch(name: str, folder: str | Path, package: Any = None) -> Path:
    """Download the set `name` into a folder of its own below `folder`; where it lies.

    `package` stands in for the library that brings it. `StorageError` says what to do where it
    cannot be downloaded.
    """
    if name not in CATALOGUE:
        raise ConfigError(
            f"The catalogue has no data set {name!r}.{did_you_mean(name, CATALOGUE)} "
            "worldflux data list shows all."
        )
    known = CATALOGUE[name]
    own = Path(folder) / name.replace("/", "-")
    if known.way == "by hand":
        raise StorageError(
            f"{name} is given out at {known.where} only. Put its files into {own}, then train with "
            f"--data {own}: the format {known.format!r} reads them."
        )
    if known.way == "tinyworlds":
        return fetch_tinyworlds(known.where, own, package)
    library = package or _library(known)
    make_folder(own)
    try:
        return _WAYS[known.way](library, known.where, own)
    except (OSError, ValueError, RuntimeError) as error:
        raise StorageError(
            f"{name} could not be downloaded by {PACKAGES[known.way]}: {error} Without a "
            f"connection, bring {known.where} from another machine into {own} and train with "
            f"--data {own}."
        ) from error


def _library(known: Known) -> Any:
    package = PACKAGES[known.way]
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise StorageError(
            f"{known.name} is downloaded by {package}, which is not installed ({error}). Run: pip "
            f"install {package}"
        ) from error


def _hub(library: Any, where: str, own: Path) -> Path:
    library.snapshot_download(where, repo_type="dataset", local_dir=own)
    return own


def _minari(library: Any, where: str, own: Path) -> Path:
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(own.resolve())  # where that library puts its sets
    try:
        library.download_dataset(where)
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
    return own / where


def _torchvision(library: Any, where: str, own: Path) -> Path:
    getattr(library.datasets, where)(str(own), download=True)
    return next((inner for inner in sorted(own.iterdir()) if inner.is_dir()), own)


_WAYS: dict[str, Callable[[Any, str, Path], Path]] = {
    "hub": _hub, "minari": _minari, "torchvision": _torchvision,
}  # fmt: skip
