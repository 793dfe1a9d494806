"""The parts of LeWorldModel: encoders, projectors, and the encoder of blocks of actions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.interfaces import ActionConditioner, ObservationEncoder
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.specs import TensorSpec
from worldflux_jepa.pixels import normalised

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


class BlockEncoder(ActionConditioner):
    """Blocks of k actions, normalised by the data's statistics, to vectors (B, D)."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, action: TensorSpec, stride: int, width: int, scale: int, smooth: int | None = None
    ) -> None:
        """`action` is the space of one action, `width` that of an embedding."""
        super().__init__()
        self.stride, self.size = stride, action.size
        flat = stride * action.size
        self.register_buffer("mean", torch.zeros(action.size))
        self.register_buffer("std", torch.ones(action.size))
        self.smooth = nn.Conv1d(flat, smooth or flat, 1)
        self.fc1, self.fc2 = (
            nn.Linear(smooth or flat, scale * width),
            nn.Linear(scale * width, width),
        )

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        """Blocks (B, k, A), or raw actions (B, A) where k is 1, -> (B, D)."""
        assert action is not None, "LeWM needs actions"
        block = action.reshape(len(action), self.stride, self.size).float()
        block = ((block - self.mean) / self.std).flatten(1)  # (B, k * A)
        smooth = F.linear(block, self.smooth.weight[:, :, 0], self.smooth.bias)
        return self.fc2(F.silu(self.fc1(smooth)))
