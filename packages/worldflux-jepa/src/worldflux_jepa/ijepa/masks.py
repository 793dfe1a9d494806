"""Which patches are kept and which are guessed: blocks, or single patches.

Sizes are shared by the whole batch, places are each image's own. Everything is drawn at once from
named numbers, and what was drawn in vain is drawn again only so often: sizes that cannot be are
an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux.core.rand import Rand, uniform
from worldflux.errors import ContractError
from worldflux_jepa.ijepa.config import MaskConfig, Range

TRIES, ROUNDS = 20, 50
_STEPS = 16
Grid = tuple[int, int]


@dataclass(frozen=True)
class Masks:
    """Indices of patches: `keep` (B, contexts, K) and `hidden` (B, targets, M), both ascending."""

    keep: Tensor
    hidden: Tensor


def block_size(draw: float, grid: Grid, scale: Range, aspect: Range) -> tuple[int, int]:
    """Height and width of a block from one number in [0, 1): it gives scale and aspect both."""
    area = int(grid[0] * grid[1] * (scale[0] + draw * (scale[1] - scale[0])))
    ratio = aspect[0] + draw * (aspect[1] - aspect[0])
    height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    return min(height, grid[0] - 1), min(width, grid[1] - 1)


def possible_size(
    draw: float, grid: Grid, scale: Range, aspect: Range, min_keep: int, what: str
) -> tuple[int, int]:
    """`block_size` of `draw`, or of the next larger number that gives more than `min_keep` patches.

    The published collator looks forever for a place of a block that is too small. `ContractError`
    where no number gives enough.
    """
    for step in range(_STEPS + 1):
        size = block_size(draw + (1 - draw) * step / _STEPS, grid, scale, aspect)
        if math.prod(size) > min_keep:
            return size
    raise ContractError(
        f"A {what} block of a {grid[0]}x{grid[1]} grid has at most {size[0]}x{size[1]} patches, "
        f"but every block needs more than mask.min_keep={min_keep}. Use larger images, smaller "
        f"patches, a larger mask.{what}_scale or a smaller min_keep."
    )


def sizes_of(config: MaskConfig, grid: Grid, draws: list[float]) -> tuple[Grid, Grid]:
    """Height and width of targets and of contexts, of one number in [0, 1) each."""
    target = possible_size(
        draws[0], grid, config.target_scale, config.aspect, config.min_keep, "target"
    )
    context = possible_size(
        draws[1], grid, config.context_scale, (1.0, 1.0), config.min_keep, "context"
    )
    return target, context


def check_possible(config: MaskConfig, grid: Grid) -> None:
    """Raise `ContractError` if no masks of this kind fit on the grid."""
    if config.kind == "blocks":
        sizes_of(config, grid, [0.0, 0.0])
        return
    count = grid[0] * grid[1]
    if not 1 <= int(count * (1 - config.hidden[1])) < count:
        raise ContractError(
            f"mask.hidden={config.hidden} of {count} patches leaves none to see, or hides none: "
            "give shares between 0 and 1."
        )


def draw_masks(config: MaskConfig, grid: Grid, rows: int, rand: Rand) -> Masks:
    """The masks of `rows` images, on the CPU.

    `rand` is asked for "size" (2,), shared, and "targets" (B, targets, 2), "contexts"
    (B, contexts, tries, 2); kind "random" asks for "size" and "order" (B, N).
    """
    check_possible(config, grid)
    sizes = rand.draw("size", (2,), uniform, shared=True).tolist()
    if config.kind == "random":
        return _random(config, grid[0] * grid[1], sizes[0], rows, rand)
    target, context = sizes_of(config, grid, sizes)
    hidden, seen = _placed(config, grid, target, context, rows, rand)
    for again in range(ROUNDS):
        bad = ((seen.sum(-1) <= config.min_keep).any(1)).nonzero()[:, 0]
        if not len(bad):
            return Masks(_shortest(seen), hidden)
        own = rand.under(f"again{again}/")
        hidden[bad], seen[bad] = _placed(config, grid, target, context, len(bad), own)
    raise ContractError(
        f"No context of more than mask.min_keep={config.min_keep} patches was found beside "
        f"{config.targets} targets of {target[0]}x{target[1]} in a {grid[0]}x{grid[1]} grid, in "
        f"{ROUNDS} rounds: hide less, or lower min_keep."
    )


def _placed(
    config: MaskConfig, grid: Grid, target: Grid, context: Grid, rows: int, rand: Rand
) -> tuple[Tensor, Tensor]:
    """Targets (B, targets, M) as indices, and contexts (B, contexts, N) as masks.

    Of the places tried for a context the first one is taken that leaves enough of it.
    """
    corners = rand.draw("targets", (rows, config.targets, 2), uniform)
    hidden = _block(corners, grid, target)  # (B, targets, N)
    tried = rand.draw("contexts", (rows, config.contexts, TRIES, 2), uniform)
    seen = _block(tried, grid, context)  # (B, contexts, tries, N)
    if not config.overlap:
        seen = seen & ~hidden.any(1)[:, None, None]
    enough = seen.sum(-1) > config.min_keep
    first = enough.int().argmax(-1)  # 0 where none is
    index = first[..., None, None].expand(-1, -1, 1, seen.shape[-1])
    return _indices(hidden, math.prod(target)), seen.gather(2, index)[:, :, 0]


def _block(corner: Tensor, grid: Grid, size: Grid) -> Tensor:
    """Masks (..., N) of blocks whose corner is drawn as (..., 2) in [0, 1).

    The last possible row and column are never a corner, as in the published code.
    """
    room = corner.new_tensor([grid[0] - size[0], grid[1] - size[1]])
    low = (corner * room).floor()
    row, column = torch.arange(grid[0]), torch.arange(grid[1])
    rows = (row >= low[..., :1]) & (row < low[..., :1] + size[0])
    columns = (column >= low[..., 1:]) & (column < low[..., 1:] + size[1])
    return (rows[..., :, None] & columns[..., None, :]).flatten(-2)


def _indices(mask: Tensor, count: int) -> Tensor:
    """The first `count` indices (..., count) where masks (..., N) hold."""
    order = torch.arange(mask.shape[-1]).expand_as(mask)
    return order.masked_fill(~mask, mask.shape[-1]).sort(-1).values[..., :count]


def _shortest(mask: Tensor) -> Tensor:
    """Indices where masks (B, M, N) hold, cut to the fewest of any."""
    return _indices(mask, int(mask.sum(-1).min()))


def _random(config: MaskConfig, count: int, draw: float, rows: int, rand: Rand) -> Masks:
    """Some patches kept (B, 1, K), all others guessed (B, 1, M)."""
    low, high = config.hidden
    kept = int(count * (1 - (low + draw * (high - low))))
    order = rand.draw("order", (rows, count), uniform).argsort(1)
    return Masks(order[:, None, :kept].sort(-1).values, order[:, None, kept:].sort(-1).values)
