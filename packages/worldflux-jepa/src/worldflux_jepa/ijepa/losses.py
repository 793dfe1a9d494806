"""What I-JEPA minimises: the distance of guesses to the slow encoder's normalised tokens."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from worldflux_jepa.vit import gathered, mask_major


def targets(whole: Tensor, hidden: Tensor, contexts: int) -> Tensor:
    """What is wanted (H * C * B, M, D) at hidden (B, H, M), as the predictor orders its guesses.

    `whole` (B, N, D) are all tokens of the images; each is normalised over its features.
    """
    rows, blocks = hidden.shape[:2]
    whole = F.layer_norm(whole, whole.shape[-1:])
    found = gathered(whole.repeat(blocks, 1, 1), mask_major(hidden))  # (H * B, M, D)
    return found.unflatten(0, (blocks, rows)).repeat(1, contexts, 1, 1).flatten(0, 1)


def patch_error(guess: Tensor, wanted: Tensor) -> Tensor:
    """Smooth L1 (R,) of guesses (R, M, D), the mean over an image's hidden block."""
    return F.smooth_l1_loss(guess, wanted, reduction="none").mean((1, 2))
