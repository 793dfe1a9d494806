"""The losses of the three parts, as means over what counts, and what is measured beside them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.distributed import mean
from worldflux.nn.vector_quantizer import Quantized
from worldflux_genie.quantize import Quantizer


def reconstruction(video: Tensor, target: Tensor) -> Tensor:
    """Squared error (B, T) of videos (B, T, C, Y, X), a mean over pixels."""
    return (video - target).square().mean((2, 3, 4))


def code_terms(quantizer: Quantizer, codes: Quantized, counts: Tensor | None) -> dict[str, Tensor]:
    """The quantizer's losses of codes (B, T, ..., L), means over the steps that count (B, T)."""
    return {name: mean(each, counts) for name, each in quantizer.losses(codes).items()}


def hidden_tokens(logits: Tensor, tokens: Tensor, hidden: Tensor) -> dict[str, Tensor]:
    """Cross-entropy over all `hidden` (B, T, N) tokens at once, and what it says (metrics).

    Logits (B, T, N, V), tokens (B, T, N). Tokens that are not hidden have no part in the loss.
    """
    wide = logits.float()
    entropy = F.cross_entropy(wide.flatten(0, 2), tokens.flatten(), reduction="none")
    loss = mean(entropy.view_as(tokens), hidden)
    with torch.no_grad():
        found = metrics_of(wide, tokens, hidden)
    return {"loss": loss, **found}


def metrics_of(logits: Tensor, tokens: Tensor, hidden: Tensor) -> dict[str, Tensor]:
    """Accuracy where `hidden` (B, T, N); entropy and the largest probability over all tokens.

    `logits` are (B, T, N, V), `tokens` (B, T, N).
    """
    log_p = logits.log_softmax(-1)
    best = log_p.topk(min(5, log_p.shape[-1]), -1).indices == tokens[..., None]
    return {
        "accuracy": mean(best[..., 0].float(), hidden),
        "accuracy5": mean(best.any(-1).float(), hidden),
        "entropy": mean(-(log_p.exp() * log_p).sum(-1)),
        "sure": mean(log_p.max(-1).values.exp()),
    }
