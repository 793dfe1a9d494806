"""Scoring candidate plans through any model: predicted return, or nearness to a goal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worldflux.core.interfaces import Draws
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.errors import CapabilityError, ContractError, did_you_mean
from worldflux.planning.config import ScoreConfig

if TYPE_CHECKING:
    from worldflux.core.model import WorldModel


def default_score(
    model: WorldModel,
    state: State,
    actions: Tensor,
    conditions: ConditionPayload | None = None,
    draws: Draws | None = None,
    generator: torch.Generator | None = None,
    config: ScoreConfig | None = None,
) -> Tensor:
    """Scores (B, N) of plans (B, N, H, *action): towards `conditions.goal`, else the return.

    `draws` are handed to the model's steps, named tensors (H, B * N, ...).
    """
    config = config or ScoreConfig()
    batch, count = actions.shape[:2]
    steps = actions.flatten(0, 1).transpose(0, 1)  # (H, B*N, ...)
    many = repeated_conditions(conditions, batch, count)
    states = _imagine(model, repeated(state, count), steps, many, config, draws, generator)
    if conditions is not None and conditions.goal is not None:
        assert many is not None and many.goal is not None
        score = -goal_distance(states, many.goal, config)
    else:
        score = _imagined_return(model, states, many, config)
    return score.reshape(batch, count)


def repeated(state: State, count: int) -> State:
    """Each row of a State `count` times: (B, ...) -> (B * count, ...), copies adjacent."""
    return state.map(lambda value: value.repeat_interleave(count, 0))


def repeated_conditions(
    conditions: ConditionPayload | None, batch: int, count: int
) -> ConditionPayload | None:
    """Conditions of B rows for B * count rows; whatever has no batch axis stays as it is."""
    if conditions is None:
        return None

    def rows(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == batch:
            return value.repeat_interleave(count, 0)
        if isinstance(value, list) and len(value) == batch:
            return [item for item in value for _ in range(count)]
        return value

    return replace(
        conditions,
        text_condition=rows(conditions.text_condition),
        goal=rows(conditions.goal),
        spatial=rows(conditions.spatial),
        camera_pose=rows(conditions.camera_pose),
        extras={key: rows(value) for key, value in conditions.extras.items()},
    )


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
    """Distance (M,) of imagined states to goal representations (M, ...)."""
    key = _goal_key(states[0], config.goal_key)
    reached = [states[-1]] if config.over == "last" else states[1:]
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
    draws: Draws | None,
    generator: torch.Generator | None,
) -> list[State]:
    """H+1 states along actions (H, M, ...), through the model's planner step."""
    states = [state]
    for t, action in enumerate(actions.unbind(0)):
        state = model.plan_step(
            state,
            action,
            conditions,
            config.deterministic,
            draws={key: value[t] for key, value in draws.items()} if draws else None,
            generator=generator,
        )
        states.append(state)
    return states


def _imagined_return(
    model: WorldModel,
    states: list[State],
    conditions: ConditionPayload | None,
    config: ScoreConfig,
) -> Tensor:
    rows, horizon = states[0].batch_size, len(states) - 1
    reached = State(
        {
            key: torch.stack([s.tensors[key] for s in states[1:]], 1).flatten(0, 1)
            for key in states[0].tensors
        },
        states[0].meta,
    )  # (M * H, ...)
    along = repeated_conditions(conditions, rows, horizon)
    found = model.decode(reached, along, keys=("reward", "continue")).predictions
    if "reward" not in found:
        raise CapabilityError(
            f"{type(model).__name__} predicts no reward, so a planner cannot score actions by it. "
            "Pass conditions with a goal, or give the model a `score` method."
        )
    reward = found["reward"].float().reshape(rows, horizon).T
    go_on = found["continue"].float().reshape(rows, horizon).T if "continue" in found else None
    value = _terminal_value(model, states[-1], conditions) if config.terminal_value else None
    return discounted_return(reward, config.discount, go_on, value)


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
