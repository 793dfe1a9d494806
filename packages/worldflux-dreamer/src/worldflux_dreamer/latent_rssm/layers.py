"""Dense layers initialised as the published TensorFlow models are (Keras' defaults)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

ACTIVATIONS = {"elu": nn.ELU, "relu": nn.ReLU, "silu": nn.SiLU}


def glorot(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Glorot-uniform weights, zero biases, in place."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def dense(size_in: int, size_out: int) -> nn.Linear:
    """A linear layer."""
    layer = nn.Linear(size_in, size_out)
    glorot(layer)
    return layer


def mlp(size_in: int, units: int, layers: int, activation: str) -> nn.Sequential:
    """Dense layers of equal width with an activation after each."""
    sizes = [size_in, *[units] * layers]
    parts = [(dense(a, b), ACTIVATIONS[activation]()) for a, b in pairwise(sizes)]
    return nn.Sequential(*(part for pair in parts for part in pair))


class Head(nn.Module):
    """An MLP and a linear output (..., size), in float32."""

    def __init__(self, size_in: int, size: int, units: int, layers: int, activation: str) -> None:
        super().__init__()
        self.mlp = mlp(size_in, units, layers, activation)
        self.out = dense(units, size)

    def forward(self, feat: Tensor) -> Tensor:
        output: Tensor = self.out(self.mlp(feat)).float()
        return output


class ScalarHead(Head):
    """A reward, value or continue (..., 1): its last layer is computed in float32.

    Targets are made of it, and bfloat16 knows only even numbers near 300.
    """

    def __init__(self, size_in: int, units: int, layers: int, activation: str) -> None:
        super().__init__(size_in, 1, units, layers, activation)

    def forward(self, feat: Tensor) -> Tensor:
        hidden = self.mlp(feat)
        with torch.autocast(hidden.device.type, enabled=False):
            output: Tensor = self.out(hidden.float())
        return output
