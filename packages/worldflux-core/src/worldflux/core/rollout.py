"""The default rollout: step by step through `transition`, predictions decoded in one batch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worldflux.core.conditions import tiled_conditions
from worldflux.core.interfaces import Policy, RolloutExecutor
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
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
    rand: Rand | None = None,
    step: Callable[..., State] | None = None,
) -> tuple[list[State], Tensor]:
    """H+1 states (B, ...) and H actions (H, B, ...); forced draws have a leading H axis.

    Tensors that a policy puts into its State go on until the model or the policy replaces them.
    Caches are kept in the last State only. `step` takes the place of `model.transition`: one that
    writes into caches that are nobody else's, say.
    """
    step = step or model.transition
    if isinstance(actions, Tensor):
        horizon = int(actions.shape[0])
    if horizon is None:
        raise ContractError("A rollout from a policy or without actions needs `horizon`.")
    states = [state]
    chosen: list[Tensor] = []
    own: set[str] = set()  # what the policy put into its State
    for t in range(horizon):
        action, state = _choice(actions, state, t)
        own |= {k for k, v in state.tensors.items() if states[-1].get(k) is not v}
        states[-1] = state.without_caches()
        following = step(
            state,
            action,
            conditions,
            deterministic=deterministic,
            rand=None if rand is None else rand.at(t),
        )
        kept = {key: state[key] for key in own if key not in following}
        state = following.with_(kept) if kept else following
        states.append(state)
        if action is not None:
            chosen.append(action)
    if actions is None:
        return states, torch.zeros(horizon, state.batch_size, 0, device=state.device)
    return states, actions if isinstance(actions, Tensor) else torch.stack(chosen)


def _choice(actions: Tensor | Policy | None, state: State, t: int) -> tuple[Tensor | None, State]:
    """The action (B, ...) of step t, and the State it was chosen in, with what the policy added."""
    if not callable(actions):
        return None if actions is None else actions[t], state
    choice = actions(state, t)
    return choice if isinstance(choice, tuple) else (choice, state)


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
    along = tiled_conditions(conditions, batch, len(states))
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
