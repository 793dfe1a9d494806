"""A known world: a point on a line, whose rewards, ends and actions all carry information.

The point stands at x in [-1, 1]; an action moves it by `REACH` times itself, and the walls stop it.
The reward is the distance really moved, so it belongs to one step only; beyond `GOAL` the episode
ends. Observations are x and the last move as a vector, or drawn in an image. Without an action
space the point moves by itself, from x to 0.85 - 1.5 |x|, and there is no reward.
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
LARGE_IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
CONTINUOUS = {"action": TensorSpec((1,), low=-1.0, high=1.0)}
DISCRETE = {"action": TensorSpec((), "int64", n=3)}


def line_world(
    obs_spec: Mapping[str, TensorSpec],
    action_spec: Mapping[str, TensorSpec],
    rows: int,
    length: int,
    seed: int,
    stride: int = 1,
) -> Batch:
    """A Batch (rows, length) of random actions in the line world, episodes one after another.

    Under a `stride` k the actions are blocks (B, T, k, ...): each moves the point by the sum of
    their moves over the root of k, so that it goes as far as with one.
    """
    generator = torch.Generator().manual_seed(seed)
    spec = next(iter(action_spec.values()), None)
    action, push = _pushes(spec, rows, length, stride, generator)
    starts = torch.rand(rows, length, generator=generator) * 1.6 - 1
    x, move, first, last = _walk(push, starts)
    if action is not None:
        action = action.masked_fill(last.reshape(rows, length, *[1] * (action.ndim - 2)), 0)
    return Batch(
        obs={
            key: _drawn(x, move, spec.shape) if spec.image else _vector(x, move)
            for key, spec in obs_spec.items()
        },
        action=action,
        reward=None if action is None else move.clone(),
        is_first=first,
        is_last=last,
        is_terminal=last.clone(),
    )


def _pushes(
    spec: TensorSpec | None, rows: int, length: int, stride: int, generator: torch.Generator
) -> tuple[Tensor | None, Tensor | None]:
    """Random actions (B, T, ...) and how far they move the point (B, T); None without actions."""
    if spec is None:
        return None, None
    lead = (rows, length) if stride == 1 else (rows, length, stride)
    if spec.discrete:
        choice = torch.randint(3, lead, generator=generator)
        action, push = choice, choice - 1.0
    else:
        action = torch.rand(*lead, 1, generator=generator) * 2 - 1
        push = action[..., 0]
    return action, push.reshape(rows, length, stride).sum(-1) * REACH / stride**0.5


def _walk(push: Tensor | None, starts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions, moves and the flags is_first and is_last (B, T) under `push` (B, T).

    `starts` (B, T) are where an episode that begins at that step begins.
    """
    rows, length = starts.shape
    x, move = torch.zeros(rows, length), torch.zeros(rows, length)
    first, last = (torch.zeros(rows, length, dtype=torch.bool) for _ in range(2))
    over = torch.ones(rows, dtype=torch.bool)
    for t in range(length):
        before = x[:, t - 1]
        moved = 0.85 - 1.5 * before.abs() if push is None else before + push[:, t - 1]
        x[:, t] = torch.where(over, starts[:, t], moved.clamp(-1, 1))
        move[:, t] = torch.where(over, 0.0, x[:, t] - before)
        first[:, t], over = over, ~over & (x[:, t] > GOAL)
        last[:, t] = over
    return x, move, first, last


def _vector(x: Tensor, move: Tensor) -> Tensor:
    return torch.stack([x, move], -1)


def _drawn(x: Tensor, move: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images (B, T, C, H, W): brightest at x in the upper half, at the last move below."""
    channels, height, width = shape
    place = torch.linspace(-1, 1, width)

    def bar(value: Tensor, rows: int) -> Tensor:
        line = (1 - (place - value[..., None]).abs()).clamp(0, 1) * 255
        return line[..., None, None, :].expand(*value.shape, channels, rows, width)

    upper = height // 2
    return torch.cat([bar(x, upper), bar(move, height - upper)], -2).to(torch.uint8)
