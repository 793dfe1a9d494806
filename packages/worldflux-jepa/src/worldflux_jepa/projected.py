"""Small encoders of images and projectors with batch norm, kept apart by SIGReg."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import ObservationEncoder
from worldflux.core.source import Source
from worldflux.core.state import State
from worldflux.specs import TensorSpec
from worldflux.training import Phase
from worldflux_jepa.pixels import normalised

_BATCHES = 8
LEAST_STD = 0.1
"""Deviation of a pixel that hardly changes."""


class Projector(nn.Module):
    """Two layers with batch norm and GELU between."""

    def __init__(self, size: int, hidden: int, out: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(size, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Rows (..., D) -> (..., out); batch norm is over all rows."""
        return self.net(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


class Projected(ObservationEncoder):
    """Any encoder's features (B, E), projected to the embedding `rep` (B, D)."""

    def __init__(self, trunk: nn.Module, size: int, hidden: int, out: int) -> None:
        super().__init__()
        self.trunk, self.projector = trunk, Projector(size, hidden, out)

    def forward(self, obs: dict[str, Tensor]) -> State:
        """Observations (B, ...) to `rep` (B, D)."""
        found = self.trunk(obs)
        return State({"rep": self.projector(found["rep"] if isinstance(found, State) else found)})


class Convolutions(nn.Module):
    """Images to vectors (B, E), by convolutions that halve them.

    The vector holds the last map, and for each channel of all maps where it is strongest: the mean
    place (x, y) under a softmax over the map (spatial softmax, 1509.06113). Each pixel is
    normalised by its own mean and deviation in the data (`fit`): what rarely changes, such as
    walls, would else hide a small thing that moves.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: Sequence[int], key: str, spec: TensorSpec) -> None:
        super().__init__()
        self.key = key
        sizes = [spec.shape[0], *channels]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(1, after), nn.GELU())
            for before, after in itertools.pairwise(sizes)
        )
        side = list(spec.shape[1:])
        for _ in channels:
            side = [(size + 1) // 2 for size in side]
        self.size = channels[-1] * side[0] * side[1] + 2 * sum(channels)
        self.register_buffer("mean", torch.zeros(spec.shape))
        self.register_buffer("std", torch.ones(spec.shape))

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Images (B, C, Y, X) by key -> (B, E)."""
        x, found = (normalised(obs[self.key]) - self.mean) / self.std, []
        for layer in self.layers:
            x = layer(x)
            found.append(strongest(x))
        return torch.cat([x.flatten(1), *found], 1)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take mean and deviation of each pixel from images (N, C, Y, X)."""
        found = normalised(images)
        self.mean.copy_(found.mean(0))
        self.std.copy_(found.std(0, correction=0).clamp(min=LEAST_STD))


def strongest(x: Tensor) -> Tensor:
    """The mean places (B, 2 C) of channels of maps (B, C, Y, X), in [-1, 1]; x first, then y."""
    weight = x.flatten(2).softmax(-1).view_as(x)
    row = torch.linspace(-1, 1, x.shape[2], device=x.device)
    column = torch.linspace(-1, 1, x.shape[3], device=x.device)
    return torch.cat([(weight.sum(2) * column).sum(2), (weight.sum(3) * row).sum(2)], 1)


def fit_to_images(module: nn.Module, source: Source, phase: Phase) -> None:
    """Let the convolutions in `module`, where there are some, take statistics of the data."""
    trunks = [part for part in module.modules() if isinstance(part, Convolutions)]
    if not trunks:
        return
    batches = [source.read(source.choose(phase, i)) for i in range(_BATCHES)]
    for trunk in trunks:
        trunk.fit(torch.cat([batch.obs[trunk.key].flatten(0, 1) for batch in batches]))


def batch_norms(module: nn.Module, prefix: str) -> tuple[str, ...]:
    """Names of the batch norms' running statistics in `module`, which move without a gradient."""
    return tuple(
        f"{prefix}{name}.{buffer}"
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
        for buffer in dict(part.named_buffers(recurse=False))
    )
