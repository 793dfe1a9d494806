"""Observations in any accepted form, as a dict of tensors that was checked against the spaces."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldflux.core.payloads import ConditionPayload, WorldModelInput
from worldflux.errors import ContractError, did_you_mean
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
    device: torch.device,
    model: str,
    used: Collection[str] = (),
) -> dict[str, Tensor]:
    """Observations (B, ...) by key; arrays go to `device`.

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
        near = did_you_mean(missing[0], obs)
        raise ContractError(
            f"{model} observes {missing[0]!r}, but the observation has "
            f"{', '.join(map(repr, obs)) or 'no key'}.{near} "
            f"Pass a dict of {', '.join(map(repr, spaces))}."
        )
    found = {
        key: value if isinstance(value, Tensor) else as_tensor(value, f"obs[{key!r}]").to(device)
        for key, value in obs.items()
    }
    for key, spec in spaces.items():
        if tuple(found[key].shape[1:]) != spec.shape or found[key].ndim != len(spec.shape) + 1:
            raise ContractError(misshapen(key, tuple(found[key].shape), spec))
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


def misshapen(key: str, actual: tuple[int, ...], spec: TensorSpec) -> str:
    """One sentence: the key, the shape it should have, the one it has, and what to do."""
    expected = ("B", *spec.shape)
    text = ", ".join(str(size) for size in expected) + ("," if len(expected) == 1 else "")
    return (
        f"obs[{key!r}] has shape {actual}, expected {_letters(spec)} = ({text}): "
        f"{_remedy(actual, spec)}."
    )


def _letters(spec: TensorSpec) -> str:
    if len(spec.shape) == 3:
        return "(B, C, Y, X)"
    return "(B,)" if not spec.shape else "(B, D)" if len(spec.shape) == 1 else "(B, ...)"


def _remedy(actual: tuple[int, ...], spec: TensorSpec) -> str:
    shape = spec.shape
    if actual == shape:
        return "add a batch axis, obs[None]"
    if len(actual) == len(shape) + 2 and actual[2:] == shape:
        return "it has a time axis (B, T, ...), encode one step, obs[:, t]"
    if len(shape) == 3:
        y_x_c = (*shape[1:], shape[0])
        if actual == y_x_c:
            return "put channels first and add a batch axis, obs.permute(2, 0, 1)[None]"
        if actual[1:] == y_x_c and len(actual) == 4:
            return "put channels first, obs.permute(0, 3, 1, 2)"
        if len(actual) == 4 and actual[1] == shape[0]:
            return f"resize it to {shape[1]}x{shape[2]}, or build the model for {actual[2:]} pixels"
    return f"pass {shape} for each row, or build the model for these observations"


def image_or_first(spaces: Mapping[str, TensorSpec]) -> str | None:
    """The key that "obs" stands for: the image if there is one, else the first."""
    images = [key for key, spec in spaces.items() if spec.image]
    return next(iter([*images, *spaces]), None)
