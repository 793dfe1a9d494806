"""Layers of TD-MPC2: normed linear, simplicial normalisation, the ensemble of Q functions."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux_tdmpc2.activations import group_softmax, mish

EPS = 1e-5
INIT_STD = 0.02


class SimNorm(nn.Module):
    """Softmax in groups of `size` (2310.16828, section 3.1): (..., D) -> (..., D)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), groups of `size` summing to 1."""
        return group_softmax(x, self.size)


class NormedLinear(nn.Linear):
    """Linear, LayerNorm, then SimNorm of `simnorm` or Mish: (..., I) -> (..., O)."""

    def __init__(self, inputs: int, outputs: int, simnorm: int | None = None) -> None:
        super().__init__(inputs, outputs)
        self.ln = nn.LayerNorm(outputs, EPS)
        self.simnorm = SimNorm(simnorm) if simnorm else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return self.finish(super().forward(x))

    def finish(self, x: Tensor) -> Tensor:
        """What follows the product (..., O)."""
        x = self.ln(x)
        activated: Tensor = mish(x) if self.simnorm is None else self.simnorm(x)
        return activated


def mlp(inputs: int, hidden: list[int], outputs: int, simnorm: int | None = None) -> nn.Sequential:
    """Normed layers `hidden`, then a linear one, or a SimNorm latent: (..., I) -> (..., O)."""
    sizes = [inputs, *hidden]
    layers: list[nn.Module] = [NormedLinear(a, b) for a, b in pairwise(sizes)]
    last = NormedLinear(sizes[-1], outputs, simnorm) if simnorm else nn.Linear(sizes[-1], outputs)
    return initialised(nn.Sequential(*layers, last))


def initialised(network: nn.Sequential) -> nn.Sequential:
    """Linear weights from a truncated normal, biases 0 (`common/init.py:weight_init`)."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=INIT_STD)
            nn.init.zeros_(layer.bias)
    return network


def fanned(network: nn.Sequential, shared: Tensor, own: Tensor) -> Tensor:
    """`network` (B * N, O) of `shared` (B, D) beside each of its `own` (B, N, A).

    The part of the first product that all N have in common is computed once.
    """
    first, width = network[0], shared.shape[-1]
    assert isinstance(first, NormedLinear)
    common = F.linear(shared, first.weight[:, :width], first.bias)
    x = (common.unsqueeze(1) + F.linear(own, first.weight[:, width:])).flatten(0, 1)
    result: Tensor = network[1:](first.finish(x))
    return result


class StackedNorm(nn.Module):
    """Scale and shift of E layer norms, (E, O) each."""

    def __init__(self, members: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, size))
        self.bias = nn.Parameter(torch.zeros(members, size))


class StackedLinear(nn.Module):
    """The parameters of E linear layers, (E, O, I) and (E, O), and of the norms after them."""

    def __init__(self, members: int, inputs: int, outputs: int, last: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(members, outputs))
        self.ln = None if last else StackedNorm(members, outputs)
        if not last:
            nn.init.trunc_normal_(self.weight, std=INIT_STD)


class QEnsemble(nn.Module):
    """E Q functions with stacked weights; only the members that are asked for are computed.

    The last layers start at zero (`common/world_model.py:WorldModel.__init__`). Members are
    computed one by one on CPU, where that saves copies, and stacked elsewhere.
    """

    def __init__(self, members: int, inputs: int, hidden: int, bins: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                StackedLinear(members, inputs, hidden),
                StackedLinear(members, hidden, hidden),
                StackedLinear(members, hidden, bins, last=True),
            ]
        )
        self.members = members

    def forward(
        self,
        x: Tensor,
        heads: Tensor | None = None,
        *,
        frozen: bool = False,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Logits (E', ..., K) of inputs (..., I) by members `heads` (E',), or all.

        `frozen` keeps gradients from the weights; `keep` (E', M, hidden) is the dropout mask on
        the first layer, already divided by its mean, M the product of the leading axes.
        """
        flat = x.reshape(-1, x.shape[-1])  # (M, I)
        compute = self.one_by_one if x.device.type == "cpu" else self.stacked
        return compute(flat, heads, frozen, keep).unflatten(1, x.shape[:-1])

    def stacked(self, x: Tensor, heads: Tensor | None, frozen: bool, keep: Tensor | None) -> Tensor:
        """Logits (E', M, K) of inputs (M, I), all members in one product per layer."""
        x = x.expand(self.members if heads is None else len(heads), *x.shape)
        for layer in self.layers:
            weight, bias, *norm = (
                p if heads is None else p.index_select(0, heads) for p in _parameters(layer, frozen)
            )
            x = torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
            if keep is not None:
                x, keep = x * keep, None
            if norm:
                x = F.layer_norm(x.float(), x.shape[-1:], eps=EPS)
                x = mish(torch.addcmul(norm[1].unsqueeze(1), x, norm[0].unsqueeze(1)))
        return x

    def one_by_one(
        self, x: Tensor, heads: Tensor | None, frozen: bool, keep: Tensor | None
    ) -> Tensor:
        """Logits (E', M, K) of inputs (M, I), a member at a time: the same as `stacked`."""
        chosen = range(self.members) if heads is None else heads.tolist()
        layers = [[p.unbind() for p in _parameters(layer, frozen)] for layer in self.layers]
        logits = []
        for place, member in enumerate(chosen):
            y = x
            for depth, layer in enumerate(layers):
                weight, bias, *norm = (p[member] for p in layer)
                y = F.linear(y, weight, bias)
                if keep is not None and depth == 0:
                    y = y * keep[place]
                if norm:
                    y = mish(F.layer_norm(y, y.shape[-1:], norm[0], norm[1], EPS))
            logits.append(y)
        return torch.stack(logits)


def _parameters(layer: nn.Module, frozen: bool) -> list[Tensor]:
    """Weight, bias and, unless it is the last layer, the norm's; each stacked over members."""
    return [p.detach() if frozen else p for p in layer.parameters()]
