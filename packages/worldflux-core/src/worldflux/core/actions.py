"""Actions in any accepted form, as the plain tensors that models compute with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.interfaces import ActionConditioner
from worldflux.core.observations import as_tensor
from worldflux.core.payloads import ActionPayload, ActionSequence, ConditionPayload
from worldflux.errors import ContractError
from worldflux.specs import TensorSpec

Actions = ActionSequence | ActionPayload | Tensor | list[ActionPayload]
"""Every accepted form of a sequence of actions."""


def action_tensor(action: ActionPayload | Tensor | None, api_version: str = "v3") -> Tensor | None:
    """The tensor (B, ...) inside a validated payload; tensors and None pass through."""
    if not isinstance(action, ActionPayload):
        return None if action is None else as_tensor(action, "action")
    action.validate(api_version=api_version)
    if action.kind == "text":
        raise ContractError("This model takes no text actions: pass a tensor.")
    return action.primary()


def time_major_actions(
    actions: Actions | Callable[..., Any] | None,
    api_version: str = "v3",
) -> Any:
    """Actions (T, B, ...) of any accepted form of sequence; policies and None pass through."""
    if isinstance(actions, ActionSequence):
        return action_tensor(actions.payload, api_version)
    if isinstance(actions, list):
        if not actions:
            raise ContractError("An empty list of actions: a rollout needs at least one step.")
        steps = [action_tensor(action, api_version) for action in actions]
        if any(step is None for step in steps):
            raise ContractError("A list of actions has a payload without data.")
        return torch.stack([step for step in steps if step is not None])
    if isinstance(actions, ActionPayload):
        return action_tensor(actions, api_version)
    return as_tensor(actions, "actions") if isinstance(actions, np.ndarray) else actions


def no_actions(
    spec: TensorSpec | None, lead: tuple[int, ...], device: torch.device | None = None
) -> Tensor:
    """Zeros (*lead, ...) of an action space; of no size where there are no actions."""
    shape = (0,) if spec is None else spec.shape
    dtype = torch.int64 if spec is not None and spec.discrete else torch.float32
    return torch.zeros(*lead, *shape, dtype=dtype, device=device)


def action_vector(action: Tensor, spec: TensorSpec) -> Tensor:
    """Actions as float vectors (..., A): choices one-hot and concatenated, continuous raveled.

    A floating tensor whose last dimension is already A is one-hot, or continuous, as it is.
    """
    if not spec.discrete:
        if tuple(action.shape[action.ndim - len(spec.shape) :]) != spec.shape:
            raise ContractError(
                f"Action has shape {tuple(action.shape)}, expected it to end in {spec.shape}."
            )
        lead = action.shape[: action.ndim - len(spec.shape)]
        return action if len(spec.shape) == 1 else action.reshape(*lead, spec.size)
    if action.is_floating_point():
        if action.shape[-1:] != (spec.size,):
            raise ContractError(
                f"One-hot action has shape {tuple(action.shape)}, expected {spec.size} at the end."
            )
        return action
    if isinstance(spec.n, int):
        return F.one_hot(action.long(), spec.n).float()
    parts = [F.one_hot(action[..., i].long(), n).float() for i, n in enumerate(spec.counts)]
    return torch.cat(parts, -1)


class VectorActions(ActionConditioner):
    """The plain conditioner: actions as float vectors (..., A), conditions unused."""

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        if action is None:
            raise ContractError("VectorActions needs an action, got None.")
        return action_vector(action, self.spec)
