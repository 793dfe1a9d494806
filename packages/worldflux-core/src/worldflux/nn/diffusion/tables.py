"""What follows from a schedule of betas, step by step: float64 arrays, looked up in float32."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worldflux.nn.diffusion.betas import Floats


class Table:
    """Numbers (T,) by step; on each device they are put once."""

    def __init__(self, values: Floats) -> None:
        self.values = values
        self._put: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The numbers (T,) on `device`, float32."""
        if device not in self._put:
            self._put[device] = torch.from_numpy(self.values.astype(np.float32)).to(device)
        return self._put[device]


def tables(betas: Floats) -> dict[str, Table]:
    """All tables (T,) of a process with `betas` (T,), by name.

    `clean` is the share of the data's variance that is left after a step (the product of 1 - beta),
    `posterior` the variance of a step, given the data and the step after. At the first step that
    is 0: its logarithm is taken to be that of the second step's.
    """
    clean = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], clean[:-1]])
    posterior = betas * (1 - before) / (1 - clean)
    lifted = np.concatenate([posterior[1:2], posterior[1:]]) if len(betas) > 1 else posterior
    large = np.concatenate([posterior[1:2], betas[1:]]) if len(betas) > 1 else betas
    with np.errstate(divide="ignore"):  # a process of one step has no variance at all
        found = {
            "clean": clean,
            "clean_before": before,
            "clean_after": np.concatenate([clean[1:], [0.0]]),
            "sqrt_clean": np.sqrt(clean),
            "noisy": 1 - clean,
            "sqrt_noisy": np.sqrt(1 - clean),
            "log_noisy": np.log(1 - clean),
            "inverse_clean": np.sqrt(1 / clean),
            "inverse_noisy": np.sqrt(1 / clean - 1),
            "posterior": posterior,
            "log_posterior": np.log(lifted),
            "mean_data": betas * np.sqrt(before) / (1 - clean),
            "mean_noisy": (1 - before) * np.sqrt(1 - betas) / (1 - clean),
            "log_beta": np.log(betas),
            "large": large,
            "log_large": np.log(large),
        }
    return {name: Table(values) for name, values in found.items()}
