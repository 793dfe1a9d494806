"""Pictures for the report: reconstructions, tokens in use, what each action does, its effect."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux_genie.patches import pixels
from worldflux_genie.world_model import GenieWorldModel

Picture = NDArray[np.uint8]
ROWS, GAP, HEIGHT = 4, 2, 96
BACK, INK, AXIS = 255, (38, 110, 160), (150, 150, 150)


@torch.no_grad()
def pictures(
    model: GenieWorldModel, batch: Batch, tokens: Tensor, delta: Tensor, rand: Rand
) -> dict[str, Picture]:
    """Of a batch (B, T), the tokens seen (M,) and the effect of actions (H,): uint8 (Y, X, 3)."""
    few = batch.map(lambda x: x[:ROWS])
    video = pixels(few.obs[model.key])
    again = model.decoder_module.of_tokens(model.tokens(few))
    pairs = torch.stack([video, again], 1).flatten(0, 1)  # frames above their reconstructions
    size = model.config.model.tokenizer.quantizer.size
    counts = torch.bincount(tokens, minlength=size).sort(descending=True).values
    return {
        "reconstructions": grid(pairs),
        "token_usage": bars(counts.float().log1p()),
        "action_grid": grid(action_grid(model, few, rand)),
        "delta_psnr": bars(delta),
    }


@torch.no_grad()
def action_grid(model: GenieWorldModel, batch: Batch, rand: Rand, steps: int = 4) -> Tensor:
    """Frames (B, 1 + A, C, Y, X): where a row starts, then `steps` times each latent action."""
    start = model.observe_sequence(batch.map(lambda x: x[:, : max(1, x.shape[1] // 2)])).at(-1)
    count, rows = model.action_conditioner.quantizer.codes, start.batch_size
    choice = torch.arange(count, device=start.device).repeat(rows)  # (B * A,)
    actions = model.latent_codes(choice).expand(steps, -1, -1)
    path = model.rollout(start.repeat(count), actions, decode=True, rand=rand)
    assert path.observations is not None
    frames = path.observations[model.key]  # (steps + 1, B * A, C, Y, X)
    last = frames[-1].unflatten(0, (rows, count))
    return torch.cat([frames[0].unflatten(0, (rows, count))[:, :1], last], 1)


def grid(images: Tensor) -> Picture:
    """Images (R, N, C, Y, X) in [0, 1] as one picture of R rows, with a gap between them."""
    rows, columns, channels, height, width = images.shape
    if channels == 1:
        images = images.expand(-1, -1, 3, -1, -1)
    whole = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), BACK, np.uint8)
    drawn = (images[:, :, :3].float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    for row in range(rows):
        for column in range(columns):
            y, x = GAP + row * (height + GAP), GAP + column * (width + GAP)
            whole[y : y + height, x : x + width] = drawn[row, column].transpose(1, 2, 0)
    return whole


def bars(values: Tensor, width: int = 256) -> Picture:
    """Values (M,) as bars from left to right, around a line at 0; the largest has full height."""
    heights = values.detach().float().cpu().numpy()
    low, high = min(float(heights.min()), 0.0), max(float(heights.max()), 0.0)
    scale = (HEIGHT - 2) / max(high - low, 1e-9)
    whole = np.full((HEIGHT, width, 3), BACK, np.uint8)
    zero = HEIGHT - 2 - round(-low * scale)
    edges = np.linspace(0, width, len(heights) + 1).round().astype(int)
    for value, left, right in zip(heights, edges[:-1], edges[1:], strict=True):
        end = zero - round(float(value) * scale)
        thick = max(right - left - (1 if right - left > 3 else 0), 1)
        whole[min(zero, end) : max(zero, end) + 1, left : left + thick] = INK
    whole[zero] = AXIS
    return whole
