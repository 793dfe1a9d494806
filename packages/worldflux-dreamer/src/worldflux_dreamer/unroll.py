"""Linear layers used at every step of a loop: one weight gradient for all steps.

A layer that runs T times inside a recurrence would compute T small weight gradients and add them
up. Here each step only passes the gradient on to its input; when all steps are done, the inputs
and output gradients of all steps give the weight gradient in a single matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Steps:
    """Applies linear layers inside one loop; make a new one for each loop.

    Kernels are (in, out) for x (N, in), or (G, in, out) for x (G, N, in).
    """

    def __init__(self) -> None:
        self._layers: dict[Affine, _Recorded] = {}

    def __call__(self, layer: Affine, x: Tensor) -> Tensor:
        """x @ kernel + bias, as one step of the loop."""
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return linear(x, layer.kernel, layer.bias)
        recorded = self._layers.get(layer)
        if recorded is None:
            recorded = self._layers[layer] = _Recorded(layer.kernel, layer.bias, x)
        y: Tensor = _Step.apply(x, recorded.token, recorded)
        return y


class Affine(Protocol):
    """Anything with a kernel and perhaps a bias; hashed by identity."""

    @property
    def kernel(self) -> Tensor: ...
    @property
    def bias(self) -> Tensor | None: ...


@dataclass(eq=False)
class Rows:
    """Some rows of a layer's kernel: what one part of a concatenated input contributes."""

    kernel: Tensor
    bias: Tensor | None = None


def linear(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """x @ kernel + bias; with a block kernel (G, in, out), x is (G, N, in)."""
    if bias is None:
        return x @ kernel
    if kernel.ndim == 2:
        return torch.addmm(bias, x, kernel)
    return torch.baddbmm(bias.view(kernel.shape[0], 1, -1), x, kernel)


class _Recorded:
    """A layer's weights in the compute dtype, and the inputs and gradients of its steps."""

    def __init__(self, kernel: Tensor, bias: Tensor | None, x: Tensor) -> None:
        device = x.device.type
        amp = torch.is_autocast_enabled(device)
        self.dtype = torch.get_autocast_dtype(device) if amp else x.dtype
        self.kernel = kernel.detach().to(self.dtype)
        self.bias = None if bias is None else bias.detach().to(self.dtype)
        self.inputs: list[Tensor] = []
        self.grads: list[Tensor] = []
        self.token: Tensor = _Gather.apply(kernel, bias, self)

    def weight_gradients(self) -> tuple[Tensor, Tensor | None]:
        """Gradients of kernel and bias, summed over all steps."""
        x, grad = torch.cat(self.inputs, -2), torch.cat(self.grads, -2)
        self.inputs, self.grads = [], []
        bias = None if self.bias is None else grad.float().sum(-2).flatten()
        return (x.mT @ grad).float(), bias


class _Gather(torch.autograd.Function):
    """Stands for the weights in the graph: its backward runs when that of every step has."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, bias: Tensor | None, recorded: _Recorded) -> Tensor:
        ctx.recorded = recorded
        return kernel.new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        return *ctx.recorded.weight_gradients(), None


class _Step(torch.autograd.Function):
    """One use of the layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, recorded: _Recorded) -> Tensor:
        x = x.to(recorded.dtype)
        ctx.recorded, ctx.x = recorded, x
        return linear(x, recorded.kernel, recorded.bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        recorded = ctx.recorded
        grad = grad.to(recorded.dtype)
        recorded.inputs.append(ctx.x)
        recorded.grads.append(grad)
        return grad @ recorded.kernel.mT, grad.new_zeros(()).float(), None
