"""Features to codes: the nearest row of a learned code-book, or rounding to a few levels."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux import distributed
from worldflux.core.rand import Rand, bernoulli, randint
from worldflux.nn.vector_quantizer import Quantized, VectorQuantizer, kmeans
from worldflux_genie.config import QuantizerConfig

MOST = 4096
"""Features that a code-book's first centres are of, at most."""


class CodeBook(VectorQuantizer):
    """The row of a code-book (V, L) with the largest cosine; rows are learned by gradients.

    The features are normalised, the rows are not (jasmine, `utils/nn.py:VectorQuantizer`).
    """

    idle: Tensor
    age: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config.codes, config.dim, "cosine")
        self.config = config
        self.register_buffer("age", torch.zeros((), dtype=torch.int64))
        self.register_buffer("idle", torch.zeros(config.codes, dtype=torch.int64))

    def _start(self, codebook: Tensor) -> None:
        super()._start(F.normalize(torch.randn_like(codebook), dim=-1))

    def chosen(self, x: Tensor, rand: Rand | None = None) -> Quantized:
        """Features (B, T, ..., L) quantized, in training with dropout.

        Draw "keep" (B, T, ..., V): a similarity that is not kept becomes 0, the others grow.
        """
        if self.passing:
            return self._passed(x)
        rate = self.config.dropout
        if not (self.training and rate and torch.is_grad_enabled()):
            return cast("Quantized", self(x))
        shape = (*x.shape[:-1], self.codes)
        keep = (rand or Rand()).draw("keep", shape, bernoulli(1 - rate), device=x.device)
        return cast("Quantized", self(x, self.dropped(x, keep)))

    def _passed(self, x: Tensor) -> Quantized:
        """Features (..., L) that go on as they are, before there are codes."""
        inputs, index = self.compared(x.float()), self.indices(x)
        return Quantized(inputs.to(x.dtype), index, inputs, self.rows(index))

    @property
    def passing(self) -> bool:
        """Whether features still pass as they are (`open`)."""
        return bool(self.config.open) and int(self.age) < self.config.open

    @torch.no_grad()
    def dropped(self, x: Tensor, keep: Tensor) -> Tensor:
        """Numbers (...) of the rows that fit features (..., L) best, of similarities `keep`."""
        near = self.scores(x) / (1 - self.config.dropout)
        return torch.where(keep, near, torch.zeros_like(near)).argmax(-1)

    def losses(self, found: Quantized) -> dict[str, Tensor]:
        """Per feature (...): the row's distance, which moves rows, and the commitment."""
        beta = 0.0 if self.passing else self.config.beta
        commitment = beta * found.commitment_loss()
        return {"code": found.codebook_loss(), "commitment": commitment}

    @torch.no_grad()
    def revive(self, found: Quantized, rand: Rand | None = None) -> Tensor:
        """After an update on `found` (...): a row idle for too long becomes one in use.

        Draw "fresh" (V,): which of the rows in use, all alike. Returns how many (0-d). After the
        last update without codes all rows become the features' centres; draw "centres" (V,).
        """
        index = found.index
        self.age += 1
        if int(self.age) <= self.config.open:
            if int(self.age) == self.config.open:
                self.codebook.copy_(self._centres(found.inputs, rand))
            return index.sum() * 0
        active = self.counted(index) > 0
        self.idle.copy_(torch.where(active, 0, self.idle + 1))
        if not self.config.reset:
            return active.sum() * 0
        draw = (rand or Rand()).draw(
            "fresh", (self.codes,), randint(2**31), device=index.device, shared=True
        )
        order = active.int().argsort(descending=True, stable=True)  # those in use come first
        fresh = order[draw % active.sum().clamp(min=1)]
        dead = self.idle >= self.config.reset
        self.codebook.copy_(torch.where(dead[:, None], self.codebook[fresh], self.codebook))
        self.idle.masked_fill_(dead, 0)
        return dead.sum()

    def _centres(self, inputs: Tensor, rand: Rand | None) -> Tensor:
        """Directions (V, L) of the centres of features (..., L), some thousands of them."""
        flat = distributed.gather(inputs.flatten(0, -2).float())
        few = flat[:: max(1, len(flat) // MOST)]
        return F.normalize(kmeans(few, self.codes, rand=rand), dim=-1)

    def counted(self, index: Tensor) -> Tensor:
        """How often each row (V,) is among `index` (...), on all ranks."""
        return distributed.sum(torch.bincount(index.flatten(), minlength=self.codes))


class FiniteScalarQuantizer(nn.Module):
    """Each number squashed to (-1, 1) and rounded to evenly spaced levels (2309.15505)."""

    levels: Tensor
    basis: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config, self.codes = config, config.size
        levels = torch.tensor(config.levels)
        self.register_buffer("levels", levels, persistent=False)
        basis = torch.cat([torch.ones_like(levels[:1]), levels[:-1].cumprod(0)])
        self.register_buffer("basis", basis, persistent=False)

    def rows(self, index: Tensor) -> Tensor:
        """The codes (..., L) of numbers (...); the first place is the least significant one."""
        digits = index[..., None] // self.basis % self.levels
        return digits / (self.levels - 1) * 2 - 1

    def forward(self, x: Tensor) -> Quantized:
        """Features (..., L) quantized, in float32."""
        with torch.autocast(x.device.type, enabled=False):
            squashed, most = torch.tanh(x.float()), self.levels - 1
            digits = ((squashed.detach() + 1) / 2 * most).round()
            code = digits / most * 2 - 1
        index = (digits.long() * self.basis).sum(-1)
        return Quantized(squashed + (code - squashed).detach(), index, squashed, code)

    def chosen(self, x: Tensor, rand: Rand | None = None) -> Quantized:
        """Features (..., L) quantized; nothing is dropped."""
        return cast("Quantized", self(x))

    def losses(self, found: Quantized) -> dict[str, Tensor]:
        """None: there is no code-book to move."""
        return {}

    def revive(self, found: Quantized, rand: Rand | None = None) -> Tensor:
        """No code is ever revived, whatever was `found` (...); 0."""
        return found.index.sum() * 0


Quantizer = CodeBook | FiniteScalarQuantizer


def quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer of `config.kind`."""
    return CodeBook(config) if config.kind == "vq" else FiniteScalarQuantizer(config)
