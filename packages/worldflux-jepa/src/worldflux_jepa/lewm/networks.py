"""The part of LeWorldModel that encodes blocks of actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.interfaces import ActionConditioner
from worldflux.core.payloads import ConditionPayload
from worldflux.specs import TensorSpec


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
