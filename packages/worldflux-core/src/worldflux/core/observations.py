"""Observations in any accepted form, as a dict of tensors that was checked against the spaces."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldflux.core.misshapen import misshapen
from worldflux.core.payloads import ConditionPayload, WorldModelInput
from worldflux.core.values import fitting
from worldflux.errors import ContractError, nearest
from worldflux.nn.device import device_of
from worldflux.specs import TensorSpec

Observation = Tensor | np.ndarray | Mapping[str, Any] | WorldModelInput
"""One tensor or array (B, ...), several by key, or a whole input."""

BARE_KEY = "obs"
"""The key of a bare tensor where a model declares no spaces."""


def as_tensor(value: Any, name: str) -> Tensor:
    """A tensor as it is, an array as a tensor (float64 as float32); else a `ContractError`."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        tensor = torch.as_tensor(value)
        return tensor.float() if tensor.dtype == torch.float64 else tensor
    raise ContractError(
        f"{name} is a {type(value).__name__}, expected a tensor or a numpy array: "
        f"pass torch.as_tensor({name})."
    )


def observed(
    obs: Observation,
    spaces: Mapping[str, TensorSpec],
    owner: nn.Module,
    model: str,
    used: Collection[str] = (),
) -> dict[str, Tensor]:
    """Observations (B, ...) by key; arrays go where `owner` is.

    `used` are the further parts of a `WorldModelInput` that `model` takes care of itself.
    """
    if isinstance(obs, WorldModelInput):
        refuse_unused(obs, model, used)
        obs = obs.observations
    elif not isinstance(obs, Mapping):
        if len(spaces) > 1:
            raise ContractError(
                f"A bare observation tensor is ambiguous: pass a dict of {', '.join(spaces)}."
            )
        obs = {next(iter(spaces), BARE_KEY): obs}
    missing = [key for key in spaces if key not in obs]
    if missing:
        near = nearest(missing[0], obs)
        hint = "" if near is None or near in spaces else f" Rename {near!r} to {missing[0]!r}."
        raise ContractError(
            f"{model} observes {missing[0]!r}, but the observation has "
            f"{', '.join(map(repr, obs)) or 'no key'}.{hint} "
            f"Pass a dict of {', '.join(map(repr, spaces))}."
        )
    found = dict(obs)
    for key, value in obs.items():
        if not isinstance(value, Tensor):
            found[key] = as_tensor(value, f"obs[{key!r}]").to(device_of(owner))
    for key, spec in spaces.items():
        shape = found[key].shape
        if shape[1:] != spec.shape or len(shape) != len(spec.shape) + 1:
            raise ContractError(misshapen(f"obs[{key!r}]", tuple(shape), spec))
        found[key] = fitting(f"obs[{key!r}]", found[key], spec, 1)
    return found


def refuse_unused(whole: WorldModelInput, model: str, used: Collection[str]) -> None:
    """Raise where an input holds a part that `model` would not look at."""
    given = {
        "context": bool(whole.context),
        "action": whole.action is not None,
        "conditions": whole.conditions != ConditionPayload(),
    }
    for part, there in given.items():
        if there and part not in used:
            raise ContractError(
                f"{model} does not use WorldModelInput.{part}: leave it out. {_INSTEAD[part]}"
            )


_INSTEAD = {
    "context": "Earlier steps reach a recurrent model by update(state, action, obs), in order.",
    "action": "An action is given to update(state, action, obs) or transition(state, action).",
    "conditions": "Conditions are given to update, transition, decode or rollout.",
}


def image_or_first(spaces: Mapping[str, TensorSpec]) -> str | None:
    """The key that "obs" stands for: the image if there is one, else the first."""
    images = [key for key, spec in spaces.items() if spec.image]
    return next(iter([*images, *spaces]), None)
