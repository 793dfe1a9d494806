"""What both transformers have: heads, first weights, who sees whom."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def head(dim: int, out: int) -> nn.Sequential:
    """Linear, ReLU, Linear (world_model.py)."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, out))


def own_episode(is_first: Tensor, size: int) -> Tensor | None:
    """Which tokens see which (B, 1, L, L), None where a row is one episode: all earlier ones."""
    if is_first.is_meta or not bool(is_first[:, 1:].any()):
        return None
    episode = is_first.cumsum(1).repeat_interleave(size, 1)
    place = torch.arange(episode.shape[1], device=episode.device)
    same = episode[:, :, None] == episode[:, None, :]
    return (same & (place[:, None] >= place))[:, None]


def initialised(module: nn.Module) -> None:
    """Give a module normal weights of deviation 0.02, no biases (world_model.py, utils.py)."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
