"""Metrics that stay on the device until they are logged, and the search for non-finite ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from worldflux.errors import DivergenceError
from worldflux_train.parts import read_part, write_part

FILE = "meters"


class Meters:
    """Running means of 0-d tensors; nothing is moved or synchronised before `read`."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    @torch.no_grad()
    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Count one update's metrics."""
        for name, value in metrics.items():
            value = torch.as_tensor(value).detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """The means so far, moved at once; raises `DivergenceError` for a non-finite loss."""
        if not self.sums:
            return {}
        device = next(iter(self.sums.values())).device
        values = torch.stack([value.to(device) for value in self.sums.values()]).tolist()
        means = {
            name: value / self.counts[name] for name, value in zip(self.sums, values, strict=True)
        }
        refuse_non_finite(means)
        return means

    def clear(self) -> None:
        """Begin the next interval."""
        self.sums, self.counts = {}, {}

    def save(self, folder: Path) -> None:
        """Write the sums and counts so far."""
        write_part(folder, FILE, self.sums, {"counts": self.counts})

    def load(self, folder: Path, device: torch.device) -> None:
        """Take over the saved sums, in their order, and counts."""
        sums, saved = read_part(folder, FILE)
        self.counts = dict(saved["counts"])
        self.sums = {name: sums[name].to(device) for name in self.counts}


def refuse_non_finite(means: Mapping[str, float]) -> None:
    """Raise for losses and gradient norms that are NaN or infinite, naming the components."""
    watched = {name: value for name, value in means.items() if "loss" in name or "grad" in name}
    bad = {
        name: value for name, value in watched.items() if not -float("inf") < value < float("inf")
    }
    if bad:
        parts = [name for name in bad if "/" in name] or list(bad)
        listed = ", ".join(f"{name} is {bad[name]}" for name in parts)
        raise DivergenceError(
            f"Training diverged: {listed}. Lower the learning rate (such as --set agent.lr=...), "
            "or look at the data that goes in."
        )


def refuse_non_finite_weights(module: nn.Module) -> None:
    """Raise if any parameter or buffer holds a NaN or an infinity."""
    tensors = {n: t for n, t in module.state_dict().items() if t.is_floating_point()}
    if not tensors:
        return
    finite = torch.stack([t.isfinite().all() for t in tensors.values()])
    if not bool(finite.all()):
        bad = [name for name, ok in zip(tensors, finite.tolist(), strict=True) if not ok]
        raise DivergenceError(
            f"Training diverged: {', '.join(bad[:3])} ({len(bad)} of {len(tensors)} weights) is "
            "not finite. Lower the learning rate (such as --set agent.lr=...)."
        )
