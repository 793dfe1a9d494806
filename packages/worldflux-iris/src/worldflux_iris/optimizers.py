"""Which weights decay: the matrices of linear layers, nothing else (minGPT's rule)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import nn


def decaying(
    modules: Iterable[nn.Module],
    lr: float,
    weight_decay: float,
    without: Collection[int] = (),
) -> torch.optim.AdamW:
    """AdamW over the parameters of `modules`, in two groups; not those with an id in `without`."""
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    seen = set(without)
    for part in (inner for module in modules for inner in module.modules()):
        for name, parameter in part.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            matrix = isinstance(part, nn.Linear) and name == "weight"
            (decayed if matrix else rest).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=not (decayed + rest)[0].is_meta)
