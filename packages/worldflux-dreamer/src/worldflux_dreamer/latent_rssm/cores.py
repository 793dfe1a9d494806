"""Recurrent cores: memory, stochastic state and action to the next memory.

A core's memory is a dict of tensors (B, ...) that become part of the State; `deter` (B, D) is what
everything else sees. What depends on the action alone is computed for all steps at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux_dreamer.block_gru import BlockGRU
from worldflux_dreamer.latent_rssm.config import SizesConfig
from worldflux_dreamer.latent_rssm.layers import ACTIVATIONS, dense
from worldflux_dreamer.unroll import Steps

Memory = dict[str, Tensor]


class LatentCore(nn.Module, ABC):
    """What carries memory; `keys` are its tensors, each (B, D) unless `initial` says otherwise."""

    keys: tuple[str, ...] = ("deter",)
    deter: int

    def initial(self, batch: int, device: torch.device) -> Memory:
        """Memory before anything happened."""
        return {key: torch.zeros(batch, self.deter, device=device) for key in self.keys}

    @abstractmethod
    def action_input(self, action: Tensor) -> Tensor:
        """What an action (..., A) contributes (..., hidden)."""

    @abstractmethod
    def forward(self, memory: Memory, stoch: Tensor, action: Tensor) -> Memory:
        """Memory (B, D), flat latents (B, S) and `action_input` (B, hidden) to new memory."""


class InputCore(LatentCore):
    """A core whose input is one dense layer over [stoch, action]; subclasses have a `cell`."""

    cell: nn.Module

    def __init__(self, config: SizesConfig, stoch: int, action: int) -> None:
        super().__init__()
        self.deter, self.stoch = config.deter, stoch
        self.input = dense(stoch + action, config.hidden)
        self.activation = ACTIVATIONS[config.activation]()

    def action_input(self, action: Tensor) -> Tensor:
        return F.linear(action, self.input.weight[:, self.stoch :], self.input.bias)

    def forward(self, memory: Memory, stoch: Tensor, action: Tensor) -> Memory:
        x = self.activation(F.linear(stoch, self.input.weight[:, : self.stoch]) + action)
        return self.advance(memory, x)

    def advance(self, memory: Memory, x: Tensor) -> Memory:
        """One step of the cell on x (B, hidden)."""
        return {"deter": self.cell(x, memory["deter"])}


class GRUCore(InputCore):
    """A gated recurrent unit (PlaNet, DreamerV1)."""

    def __init__(self, config: SizesConfig, stoch: int, action: int) -> None:
        super().__init__(config, stoch, action)
        self.cell = nn.GRUCell(config.hidden, config.deter)
        _recurrent_init(self.cell)


class LSTMCore(InputCore):
    """Long short-term memory; its cell state is memory too."""

    keys = ("deter", "cell")

    def __init__(self, config: SizesConfig, stoch: int, action: int) -> None:
        super().__init__(config, stoch, action)
        self.cell = nn.LSTMCell(config.hidden, config.deter)
        _recurrent_init(self.cell)

    def advance(self, memory: Memory, x: Tensor) -> Memory:
        deter, cell = self.cell(x, (memory["deter"], memory["cell"]))
        return {"deter": deter, "cell": cell}


class NormGRUCore(InputCore):
    """A GRU with layer norm over its three gates and update bias -1 (2010.02193)."""

    def __init__(self, config: SizesConfig, stoch: int, action: int) -> None:
        super().__init__(config, stoch, action)
        self.cell = NormGRUCell(config.hidden, config.deter)


class NormGRUCell(nn.Module):
    """h' (B, D) = u c + (1 - u) h with u = sigmoid(. - 1), c = tanh(sigmoid(r) .)."""

    def __init__(self, size: int, deter: int) -> None:
        super().__init__()
        self.gates = dense(size + deter, 3 * deter)
        self.norm = nn.LayerNorm(3 * deter, eps=1e-3)

    def forward(self, x: Tensor, deter: Tensor) -> Tensor:
        gates = self.norm(self.gates(torch.cat([x, deter], -1)).float())
        reset, cand, update = gates.chunk(3, -1)
        cand = torch.tanh(torch.sigmoid(reset) * cand)
        return torch.lerp(deter.float(), cand, torch.sigmoid(update - 1))


class BlockGRUCore(LatentCore):
    """DreamerV3's block-diagonal GRU."""

    def __init__(self, config: SizesConfig, stoch: int, action: int) -> None:
        super().__init__()
        self.deter = config.deter
        self.core = BlockGRU(config.deter, config.hidden, stoch, action, config.blocks)

    def action_input(self, action: Tensor) -> Tensor:
        return self.core.action_input(action)

    def forward(self, memory: Memory, stoch: Tensor, action: Tensor) -> Memory:
        return {"deter": self.core(memory["deter"], stoch, action, Steps())}


MakeCore = Callable[[SizesConfig, int, int], LatentCore]
CORES: dict[str, MakeCore] = {
    "gru": GRUCore,
    "lstm": LSTMCore,
    "norm_gru": NormGRUCore,
    "block_gru": BlockGRUCore,
}


def _recurrent_init(cell: nn.GRUCell | nn.LSTMCell) -> None:
    nn.init.xavier_uniform_(cell.weight_ih)
    nn.init.orthogonal_(cell.weight_hh)
    nn.init.zeros_(cell.bias_ih)
    nn.init.zeros_(cell.bias_hh)
