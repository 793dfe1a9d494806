"""The observation and action spaces TD-MPC2 takes, and the sizes that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from worldflux.errors import CapabilityError, ContractError
from worldflux.specs import TensorSpec
from worldflux_tdmpc2.config import ModelConfig
from worldflux_tdmpc2.images import CELLS, SIDE


@dataclass(frozen=True)
class Sizes:
    """What is encoded: the image's key, or the vectors' keys and their summed size."""

    image: str | None
    keys: tuple[str, ...]
    vector: int
    embed: int

    @classmethod
    def of(cls, config: ModelConfig, obs_spec: Mapping[str, TensorSpec]) -> Self:
        """The sizes for these observations; `ContractError` where they do not fit."""
        _check_task(config, obs_spec)
        rest = {key: spec for key, spec in obs_spec.items() if key != "task" or not config.tasks}
        images = [key for key, spec in rest.items() if len(spec.shape) == 3]
        if (images and len(rest) > 1) or not rest:
            raise ContractError(
                f"TD-MPC2 encodes one image or any number of vectors, got: "
                f"{', '.join(obs_spec) or 'nothing'}. Leave out the others."
            )
        embed = config.task_dim if config.tasks else 0
        if images:
            _check_image(config, images[0], rest[images[0]])
            return cls(images[0], (), 0, embed)
        return cls(None, tuple(rest), sum(spec.size for spec in rest.values()), embed)


def check_action(config: ModelConfig, spec: TensorSpec) -> TensorSpec:
    """The action space, which must be continuous and hold the actions of every task."""
    if spec.discrete:
        raise CapabilityError(
            f"TD-MPC2 controls continuous actions; 'action' has {spec.n} choices. "
            "Choose a family that acts in discrete spaces."
        )
    for task in config.tasks:
        if task.action_dim > spec.size:
            raise ContractError(
                f"Task {task.name!r} has action_dim={task.action_dim}, but the action space "
                f"'action' has {spec.size} dimensions. Pad it to the largest task's."
            )
    return spec


def _check_task(config: ModelConfig, obs_spec: Mapping[str, TensorSpec]) -> None:
    if not config.tasks:
        return
    spec = obs_spec.get("task")
    if spec is None or spec.n != len(config.tasks):
        raise ContractError(
            f"A model of {len(config.tasks)} tasks needs an observation 'task' with "
            f"n={len(config.tasks)}, got {spec}."
        )


def _check_image(config: ModelConfig, key: str, spec: TensorSpec) -> None:
    if spec.shape[1:] != (SIDE, SIDE):
        raise ContractError(
            f"TD-MPC2's image encoder takes {SIDE}x{SIDE} pixels, {key!r} has shape {spec.shape}. "
            "Resize the images in the environment."
        )
    if config.latent_dim % CELLS:
        raise ContractError(
            f"latent_dim={config.latent_dim} is not a multiple of {CELLS}, which images need: "
            f"the convolutions leave {CELLS} positions."
        )
