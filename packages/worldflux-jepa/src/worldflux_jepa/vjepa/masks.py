"""Which tubelets of a clip are seen and which are guessed: unions of blocks in space and time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux.core.rand import Rand, uniform
from worldflux.errors import ContractError
from worldflux_jepa.vjepa.config import ClipMaskConfig

ROUNDS = 20
Grid = tuple[int, int, int]
"""Tubelets of a clip in time, rows and columns."""


@dataclass(frozen=True)
class ClipMasks:
    """Indices of tubelets of one kind of masks: `keep` (B, 1, K) and `hidden` (B, 1, M)."""

    keep: Tensor
    hidden: Tensor


def block_size(draws: list[float], grid: Grid, config: ClipMaskConfig) -> Grid:
    """Length, height and width of a block from three numbers in [0, 1): time, scale, aspect."""
    time = config.time[0] + draws[0] * (config.time[1] - config.time[0])
    share = config.scale[0] + draws[1] * (config.scale[1] - config.scale[0])
    ratio = config.aspect[0] + draws[2] * (config.aspect[1] - config.aspect[0])
    area = int(grid[1] * grid[2] * share)
    height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    return max(1, int(grid[0] * time)), min(height, grid[1]), min(width, grid[2])


def check_possible(masks: tuple[ClipMaskConfig, ...], grid: Grid) -> None:
    """Raise `ContractError` if a kind of masks hides nothing, or all, whatever is drawn."""
    for number, config in enumerate(masks):
        sizes = [block_size([i / 8, j / 8, k / 8], grid, config)
                 for i in range(9) for j in range(9) for k in range(9)]  # fmt: skip
        if min(math.prod(size) for size in sizes) < 1:
            raise ContractError(
                f"model.masks[{number}] hides nothing of a {grid[0]}x{grid[1]}x{grid[2]} grid of "
                "tubelets: use larger images, smaller patches or a larger scale."
            )
        if min(math.prod(size) for size in sizes) >= math.prod(grid):
            raise ContractError(
                f"model.masks[{number}] hides all of a {grid[0]}x{grid[1]}x{grid[2]} grid of "
                "tubelets: use a smaller scale or time."
            )


def draw_clip_masks(config: ClipMaskConfig, grid: Grid, rows: int, rand: Rand) -> ClipMasks:
    """One kind of masks for `rows` clips, on the CPU; sizes are shared, places each clip's own.

    `rand` is asked for "size" (3,), shared, and "corners" (B, blocks, 3). Index lists are cut to
    the shortest of the batch.
    """
    size = block_size(rand.draw("size", (3,), uniform, shared=True).tolist(), grid, config)
    hidden = _union(rand.draw("corners", (rows, config.blocks, 3), uniform), grid, size)
    for again in range(ROUNDS):
        bad = hidden.all(1).nonzero()[:, 0]  # nothing is left to see
        if not len(bad):
            return ClipMasks(_indices(~hidden), _indices(hidden))
        own = rand.under(f"again{again}/").draw("corners", (len(bad), config.blocks, 3), uniform)
        hidden[bad] = _union(own, grid, size)
    raise ContractError(
        f"{config.blocks} blocks of {size[0]}x{size[1]}x{size[2]} hid all of a "
        f"{grid[0]}x{grid[1]}x{grid[2]} grid of tubelets in {ROUNDS} rounds: hide less."
    )


def _union(corner: Tensor, grid: Grid, size: Grid) -> Tensor:
    """Masks (B, N) of what any of the blocks at (B, blocks, 3), drawn in [0, 1), covers."""
    axes = []
    for axis in range(3):
        room = grid[axis] - size[axis] + 1  # the last place is possible here
        low = (corner[..., axis, None] * room).floor()
        place = torch.arange(grid[axis])
        axes.append((place >= low) & (place < low + size[axis]))
    time, row, column = axes
    block = time[..., :, None, None] & row[..., None, :, None] & column[..., None, None, :]
    return block.flatten(2).any(1)


def _indices(mask: Tensor) -> Tensor:
    """Indices where masks (B, N) hold, cut to the fewest of any, (B, 1, M)."""
    order = torch.arange(mask.shape[-1]).expand_as(mask)
    fewest = int(mask.sum(-1).min())
    return order.masked_fill(~mask, mask.shape[-1]).sort(-1).values[:, None, :fewest]
