"""AdamW as the encoders here are trained with."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def adamw(
    modules: Iterable[nn.Module], lr: float, weight_decay: float, *, spare_vectors: bool = True
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; with `spare_vectors` biases and vectors do not decay."""
    decayed: dict[str, list[nn.Parameter]] = {"all": [], "vectors": []}
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                spared = spare_vectors and parameter.ndim <= 1
                decayed["vectors" if spared else "all"].append(parameter)
    groups = [
        {"params": params, "weight_decay": weight_decay if kind == "all" else 0.0}
        for kind, params in decayed.items()
        if params
    ]
    return torch.optim.AdamW(groups, lr=lr)
