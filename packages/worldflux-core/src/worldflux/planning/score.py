"""Scoring candidate plans through any model: predicted return, or nearness to a goal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldflux.core.conditions import repeated_conditions
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import CapabilityError, ContractError, did_you_mean
from worldflux.planning.config import ScoreConfig

if TYPE_CHECKING:
    from worldflux.core.model import WorldModel

DECODED_ROWS = 2048
"""States decoded at once: enough for full speed, few enough for a processor's cache."""


def default_score(
    model: WorldModel,
    state: State,
    actions: Tensor,
    conditions: ConditionPayload | None = None,
    config: ScoreConfig | None = None,
    *,
    rand: Rand | None = None,
) -> Tensor:
    """Scores (B, N) of plans (B, N, H, *action): towards `conditions.goal`, else the return.

    `rand` is handed to the model's steps; tensors forced for them are (H, B * N, ...).
    """
    config, rand = config or ScoreConfig(), rand or Rand()
    batch, count = actions.shape[:2]
    steps = actions.flatten(0, 1).transpose(0, 1)  # (H, B*N, ...)
    many = repeated_conditions(conditions, batch, count)
    states = _imagine(model, state.repeat(count), steps, many, config, rand)
    if many is not None and many.goal is not None:
        score = -goal_distance(list(states), many.goal, config)
    else:
        score = _imagined_return(model, states, batch * count, many, config)
    return score.reshape(batch, count)


def discounted_return(
    reward: Tensor, discount: float, go_on: Tensor | None = None, value: Tensor | None = None
) -> Tensor:
    """Return (M,) of rewards (H, M), each weighted with the probability of getting there.

    `go_on` (H, M) are the probabilities that the episode continues after each step; `value` (M,)
    is what follows the last.
    """
    alive = torch.full_like(reward, discount) if go_on is None else discount * go_on
    weight = torch.cat([torch.ones_like(alive[:1]), alive.cumprod(0)])  # (H+1, M)
    total = (weight[:-1] * reward).sum(0)
    return total if value is None else total + weight[-1] * value


def goal_distance(states: list[State], goal: Tensor, config: ScoreConfig) -> Tensor:
    """Distance (M,) of reached states to goal representations (M, ...)."""
    key = _goal_key(states[0], config.goal_key)
    reached = states[-1:] if config.over == "last" else states
    found = torch.stack([state.tensors[key] for state in reached])  # (L, M, ...)
    if found.shape[1:] != goal.shape:
        raise ContractError(
            f"conditions.goal has shape {tuple(goal.shape[1:])} per row, but the State's {key!r} "
            f"has {tuple(found.shape[2:])}. Encode the goal with the same model, or set goal_key."
        )
    apart = (found - goal).flatten(2).float()
    distance = apart.square().sum(-1) if config.distance == "squared" else apart.abs().mean(-1)
    return distance.sum(0)


def _imagine(
    model: WorldModel,
    state: State,
    actions: Tensor,
    conditions: ConditionPayload | None,
    config: ScoreConfig,
    rand: Rand,
) -> Iterator[State]:
    """The H states reached along actions (H, M, ...), through the model's planner step."""
    for t, action in enumerate(actions.unbind(0)):
        state = model.plan_step(state, action, conditions, config.deterministic, rand=rand.at(t))
        yield state


def _imagined_return(
    model: WorldModel,
    states: Iterator[State],
    rows: int,
    conditions: ConditionPayload | None,
    config: ScoreConfig,
) -> Tensor:
    """Return (M,) of the states reached, decoded a few at a time: caches of keys are large."""
    reward, go_on = [], []
    while part := list(itertools.islice(states, max(1, DECODED_ROWS // rows))):
        along = repeated_conditions(conditions, rows, len(part))
        found = model.decode(_joined(part), along, keys=("reward", "continue")).predictions
        if "reward" not in found:
            raise CapabilityError(
                f"{type(model).__name__} predicts no reward, so a planner cannot score actions by "
                "it. Pass conditions with a goal, or give the model a `score` method."
            )
        reward.append(found["reward"].float().reshape(rows, -1).T)
        if "continue" in found:
            go_on.append(found["continue"].float().reshape(rows, -1).T)
        last = part[-1]
    value = _terminal_value(model, last, conditions) if config.terminal_value else None
    alive = torch.cat(go_on) if go_on else None
    return discounted_return(torch.cat(reward), config.discount, alive, value)


def _joined(states: list[State]) -> State:
    """States (M, ...) of consecutive steps as one (M * steps, ...), a row's steps adjacent."""
    if len(states) == 1:
        return states[0]
    return State.stack(states).flat()


def _terminal_value(model: WorldModel, state: State, conditions: ConditionPayload | None) -> Tensor:
    found = model.decode(state, conditions, keys=("value",)).predictions
    if "value" not in found:
        raise CapabilityError(
            f"terminal_value=True, but {type(model).__name__} predicts no 'value'. "
            "Set score.terminal_value=False, or give the model a value head."
        )
    return found["value"].float().reshape(state.batch_size)


def goal_tensor(state: State, key: str | None) -> Tensor:
    """The tensor of a State that goals are compared with: `key`, or the only one."""
    return state.tensors[_goal_key(state, key)]


def _goal_key(state: State, key: str | None) -> str:
    names = list(state.tensors)
    if key is None and len(names) == 1:
        return names[0]
    if key is None:
        raise ContractError(
            f"The State has several tensors ({', '.join(names)}): set score.goal_key to the one "
            "that conditions.goal is compared with."
        )
    if key not in names:
        raise ContractError(
            f"The State has no tensor {key!r} (score.goal_key).{did_you_mean(key, names)} "
            f"It has: {', '.join(names)}."
        )
    return key
