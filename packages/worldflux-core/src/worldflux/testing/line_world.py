"""A known world: a point on a line, whose rewards, ends and actions all carry information.

The point stands at x in [-1, 1]; an action moves it by `REACH` times itself, and the walls stop it.
The reward is the distance really moved, so it belongs to one step only; beyond `GOAL` the episode
ends. Observations are x and the last move as a vector, or drawn in a 16x16 image.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.specs import TensorSpec

REACH = 0.5
GOAL = 0.7
VECTOR = {"state": TensorSpec((2,))}
IMAGE = {"image": TensorSpec((1, 16, 16), "uint8", low=0, high=255)}
CONTINUOUS = {"action": TensorSpec((1,), low=-1.0, high=1.0)}
DISCRETE = {"action": TensorSpec((), "int64", n=3)}
_SIDE = 16


def line_world(
    obs_spec: Mapping[str, TensorSpec],
    action_spec: Mapping[str, TensorSpec],
    rows: int,
    length: int,
    seed: int,
) -> Batch:
    """A Batch (rows, length) of random actions in the line world, episodes one after another."""
    generator = torch.Generator().manual_seed(seed)
    spec = next(iter(action_spec.values()))
    if spec.discrete:
        action = torch.randint(3, (rows, length), generator=generator)
        push = action - 1.0
    else:
        action = torch.rand(rows, length, 1, generator=generator) * 2 - 1
        push = action[..., 0]
    starts = torch.rand(rows, length, generator=generator) * 1.6 - 1
    x, move, first, last = _walk(push * REACH, starts)
    return Batch(
        obs={key: _drawn(x, move) if key == "image" else _vector(x, move) for key in obs_spec},
        action=action.masked_fill(last.reshape(rows, length, *[1] * (action.ndim - 2)), 0),
        reward=move.clone(),
        is_first=first,
        is_last=last,
        is_terminal=last.clone(),
    )


def _walk(push: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions, moves and the flags is_first and is_last (B, T) under `push` (B, T)."""
    rows, length = push.shape
    x, move = torch.zeros(rows, length), torch.zeros(rows, length)
    first, last = (torch.zeros(rows, length, dtype=torch.bool) for _ in range(2))
    over = torch.ones(rows, dtype=torch.bool)
    for t in range(length):
        before = x[:, t - 1]
        x[:, t] = torch.where(over, starts[:, t], (before + push[:, t - 1]).clamp(-1, 1))
        move[:, t] = torch.where(over, 0.0, x[:, t] - before)
        first[:, t], over = over, ~over & (x[:, t] > GOAL)
        last[:, t] = over
    return x, move, first, last


def _vector(x: Tensor, move: Tensor) -> Tensor:
    return torch.stack([x, move], -1)


def _drawn(x: Tensor, move: Tensor) -> Tensor:
    """Images (B, T, 1, 16, 16): brightest at x in the upper half, at the last move below."""
    place = torch.arange(_SIDE) / (_SIDE - 1) * 2 - 1

    def bar(value: Tensor) -> Tensor:
        line = (1 - (place - value[..., None]).abs()).clamp(0, 1) * 255
        return line[..., None, :].expand(*value.shape, _SIDE // 2, _SIDE)

    return torch.cat([bar(x), bar(move)], -2).unsqueeze(-3).to(torch.uint8)
