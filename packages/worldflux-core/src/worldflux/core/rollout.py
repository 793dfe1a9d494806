"""The default rollout: step by step through `transition`, predictions decoded in one batch."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worldflux.core.interfaces import Draws, Policy, RolloutExecutor
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.core.trajectory import Trajectory
from worldflux.errors import ContractError

if TYPE_CHECKING:
    from worldflux.core.model import WorldModel

_SCALARS = frozenset({"reward", "continue", "value"})


class AutoregressiveRollout(RolloutExecutor):
    """Chains `model.transition`; rewards and continues come with the state they lead to."""

    def forward(
        self,
        model: WorldModel,
        state: State,
        actions: Tensor | Policy | None,
        conditions: ConditionPayload | None = None,
        **options: Any,
    ) -> Trajectory:
        decode = bool(options.pop("decode", False))
        states, chosen = unroll(model, state, actions, conditions, **options)
        return decoded(model, states, chosen, conditions, images=decode)


def unroll(
    model: WorldModel,
    state: State,
    actions: Tensor | Policy | None,
    conditions: ConditionPayload | None = None,
    *,
    horizon: int | None = None,
    deterministic: bool = False,
    draws: Draws | None = None,
    generator: torch.Generator | None = None,
) -> tuple[list[State], Tensor]:
    """H+1 states (B, ...) and H actions (H, B, ...); `draws` have a leading H axis."""
    if isinstance(actions, Tensor):
        horizon = int(actions.shape[0])
    if horizon is None:
        raise ContractError("A rollout from a policy or without actions needs `horizon`.")
    states, chosen = [state], []
    for t in range(horizon):
        action = actions(state, t) if callable(actions) else None if actions is None else actions[t]
        state = model.transition(
            state,
            action,
            conditions,
            deterministic=deterministic,
            draws=None if draws is None else {key: value[t] for key, value in draws.items()},
            generator=generator,
        )
        states.append(state)
        chosen.append(state.batch_size if action is None else action)
    if actions is None:
        return states, torch.zeros(horizon, state.batch_size, 0, device=state.device)
    return states, actions if isinstance(actions, Tensor) else torch.stack(chosen)  # type: ignore[arg-type]


def decoded(
    model: WorldModel,
    states: list[State],
    actions: Tensor,
    conditions: ConditionPayload | None = None,
    *,
    images: bool = False,
) -> Trajectory:
    """The Trajectory of these states; one decoder call over all of them (T+1 times B rows)."""
    if model.decoder_module is None:
        return Trajectory(states=states, actions=actions)
    batch = states[0].batch_size
    keys: Collection[str] | None = None if images else _SCALARS
    flat = State.stack(states, 0).flat()
    along = None if conditions is None else _each_step(conditions, batch, len(states))
    predictions = model.decode(flat, along, keys=keys).predictions
    alias = model.obs_alias()
    if alias in predictions and predictions.get("obs") is predictions[alias]:
        del predictions["obs"]  # the same tensor under its own key
    found = {
        key: value.reshape(len(states), batch, *value.shape[1:])
        for key, value in predictions.items()
    }
    observations = {key: value for key, value in found.items() if key not in _SCALARS}
    return Trajectory(
        states=states,
        actions=actions,
        rewards=found["reward"][1:] if "reward" in found else None,
        values=found.get("value"),
        continues=found["continue"][1:] if "continue" in found else None,
        observations=observations if images else None,
    )


def _each_step(conditions: ConditionPayload, batch: int, steps: int) -> ConditionPayload:
    """Conditions of B rows for the rows of `steps` States one after another (steps * B)."""

    def rows(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == batch:
            return value.repeat(steps, *[1] * (value.ndim - 1))
        return value * steps if isinstance(value, list) and len(value) == batch else value

    return ConditionPayload(
        text_condition=rows(conditions.text_condition),
        goal=rows(conditions.goal),
        spatial=rows(conditions.spatial),
        camera_pose=rows(conditions.camera_pose),
        extras={key: rows(value) for key, value in conditions.extras.items()},
    )
