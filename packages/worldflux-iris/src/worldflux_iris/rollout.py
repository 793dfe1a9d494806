"""Dreams that write into caches of their own instead of copying them at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldflux.core.interfaces import Policy
from worldflux.core.model import WorldModel
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rollout import AutoregressiveRollout, decoded, unroll
from worldflux.core.state import CACHE, State
from worldflux.core.trajectory import Trajectory


class TokenRollout(AutoregressiveRollout):
    """Copies the caches of the State it starts from once; a foreign dynamics copies as it does."""

    def forward(
        self,
        model: WorldModel,
        state: State,
        actions: Tensor | Policy | None,
        conditions: ConditionPayload | None = None,
        **options: Any,
    ) -> Trajectory:
        advance = getattr(model.dynamics_model, "advance", None)
        if advance is None or torch.is_grad_enabled():
            return super().forward(model, state, actions, conditions, **options)
        images = bool(options.pop("decode", False))
        own = {k: x.clone() if k.startswith(CACHE) else x for k, x in state.tensors.items()}

        def step(
            state: State, action: Tensor, conditions: ConditionPayload | None, **kwargs: Any
        ) -> State:
            found: State = advance(state, model.condition(action, conditions), **kwargs)
            return found

        states, chosen = unroll(
            model, State(own, dict(state.meta)), actions, conditions, step=step, **options
        )
        return decoded(model, states, chosen, conditions, images=images)
