"""Which spaces these families take: one image, one choice."""

from __future__ import annotations

from collections.abc import Mapping

from worldflux.errors import CapabilityError
from worldflux.specs import TensorSpec

KEY = "image"


def only_image(obs_spec: Mapping[str, TensorSpec], family: str) -> TensorSpec:
    """The one observation, an image; `CapabilityError` for anything else."""
    if set(obs_spec) != {KEY} or not obs_spec[KEY].image:
        raise CapabilityError(
            f"{family} sees one image, under {KEY!r}, got {', '.join(obs_spec) or 'nothing'}. "
            "Take an environment with images (wf/catch: env.image=true)."
        )
    return obs_spec[KEY]


def discrete_action(action: TensorSpec | None, family: str) -> TensorSpec:
    """The one action, a choice among n; `CapabilityError` for anything else."""
    if action is None or not action.discrete or action.shape:
        raise CapabilityError(f"{family} needs one discrete action, got {action}.")
    return action
