"""A window of what was seen and done: the newest W steps, the oldest first."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.core.state import State

HISTORY, BLOCKS, COUNT = "history", "blocks", "count"
"""`history` (B, W, ...) holds representations; `blocks` (B, W, A') the conditioned actions taken
at them; the first `count` (B,) of each are there, and the last of these has no action yet."""


def empty(rows: int, window: int, sizes: Mapping[str, tuple[int, ...]], action: int,
          device: torch.device) -> State:  # fmt: skip
    """Nothing seen yet. `sizes` are those of a step by name; `<name>` holds the newest of each and
    `history` (of "rep") or `history.<name>` all."""
    found: dict[str, Tensor] = {}
    for name, size in sizes.items():
        found[name] = torch.zeros(rows, *size, device=device)
        found[_past(name)] = torch.zeros(rows, window, *size, device=device)
    found[BLOCKS] = torch.zeros(rows, window, action, device=device)
    found[COUNT] = torch.zeros(rows, dtype=torch.int64, device=device)
    return State(found)


def acted(state: State, action: Tensor) -> State:
    """The window with `action` (B, A') at its newest step, if it has one."""
    last = state[COUNT] - 1
    blocks = state[BLOCKS]
    here = torch.arange(blocks.shape[1], device=last.device) == last[:, None]  # (B, W)
    return state.with_({BLOCKS: torch.where(here[..., None], action[:, None], blocks)})


def pushed(state: State, newest: Mapping[str, Tensor]) -> State:
    """The window with `newest` (B, ...) by name as its last step; a full one drops the first."""
    window = state[BLOCKS].shape[1]
    full = state[COUNT] >= window
    count = (state[COUNT] + 1).clamp(max=window)
    here = torch.arange(window, device=count.device) == count[:, None] - 1  # (B, W)

    def moved(past: Tensor) -> Tensor:
        return torch.where(_like(full[:, None], past), past.roll(-1, 1), past)

    after: dict[str, Tensor] = {BLOCKS: moved(state[BLOCKS]).masked_fill(here[..., None], 0)}
    for name, value in newest.items():
        past = moved(state[_past(name)])
        after[_past(name)] = torch.where(_like(here, past), value[:, None], past)
        after[name] = value
    return state.with_({**after, COUNT: count})


def episode_mask(is_first: Tensor) -> tuple[Tensor, Tensor]:
    """Where steps may look (B, N, N), and their place in their episode (B, N).

    A step sees itself and the earlier ones of its episode, which begins where `is_first` (B, N).
    """
    episode = is_first.int().cumsum(1)
    step = torch.arange(is_first.shape[1], device=is_first.device)
    begin = torch.where(is_first, step, 0).cummax(1).values
    same = episode[:, :, None] == episode[:, None]
    return same & (step[:, None] >= step), step - begin


def even(state: State) -> bool:
    """Whether the windows of all rows are equally full."""
    count = state.get(COUNT)
    return count is not None and bool((count == count[0]).all())


def _past(name: str) -> str:
    return HISTORY if name == "rep" else f"{HISTORY}.{name}"


def _like(mask: Tensor, x: Tensor) -> Tensor:
    """A mask (B, W) with as many axes as x (B, W, ...)."""
    return mask.reshape(*mask.shape, *[1] * (x.ndim - 2))
