"""Vector quantisation: each vector becomes the row of a code-book that matches it best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux import distributed
from worldflux.core.rand import Rand, randint, uniform

Match = Literal["distance", "inner", "cosine"]


@dataclass(frozen=True)
class Quantized:
    """What a quantiser says of vectors (..., D)."""

    output: Tensor
    """The chosen rows (..., D); their gradient goes to the inputs (straight-through)."""
    index: Tensor
    """Numbers (...) of the chosen rows."""
    inputs: Tensor
    """What was compared (..., D): the vectors themselves, or their directions."""
    chosen: Tensor
    """The chosen rows (..., D); their gradient goes to the code-book, if it is learned by one."""

    def codebook_loss(self) -> Tensor:
        """Mean square (...) that moves the rows to their inputs (van den Oord et al., 2017)."""
        return (self.inputs.detach() - self.chosen).square().mean(-1)

    def commitment_loss(self) -> Tensor:
        """Mean square (...) that moves the inputs to their rows."""
        return (self.inputs - self.chosen.detach()).square().mean(-1)


class VectorQuantizer(nn.Module):
    """A code-book (K, D) learned by gradients.

    `match` says which row fits a vector best: the nearest by Euclidean `distance`; or that of the
    largest `inner` product with the vector's direction (inputs are divided by their length); or
    the same with the rows' directions as well, `cosine`. Chosen rows are returned as they are.
    It starts uniform in [-1/K, 1/K].
    """

    codebook: Tensor

    def __init__(self, codes: int, dim: int, match: Match = "distance") -> None:
        super().__init__()
        self.codes, self.match = codes, match
        self._start(torch.empty(codes, dim).uniform_(-1 / codes, 1 / codes))

    def _start(self, codebook: Tensor) -> None:
        self.codebook = nn.Parameter(codebook)

    def scores(self, z: Tensor) -> Tensor:
        """How well each row fits vectors (..., D), (..., K); float32 whatever the compute type."""
        with torch.autocast(z.device.type, enabled=False):
            z, rows = self.compared(z.float()), self.codebook.float()
            if self.match == "distance":
                return 2 * (z @ rows.T) - rows.square().sum(-1) - z.square().sum(-1, keepdim=True)
            return z @ (F.normalize(rows, dim=-1) if self.match == "cosine" else rows).T

    def compared(self, z: Tensor) -> Tensor:
        """Vectors (..., D) as they are compared with the rows (..., D)."""
        return z if self.match == "distance" else F.normalize(z, dim=-1)

    def indices(self, z: Tensor) -> Tensor:
        """Numbers (...) of the rows that fit vectors (..., D) best."""
        with torch.no_grad():
            return self.scores(z).argmax(-1)

    def rows(self, index: Tensor) -> Tensor:
        """Rows (..., D) of the code-book by their numbers (...)."""
        return F.embedding(index, self.codebook)

    def forward(self, z: Tensor, index: Tensor | None = None) -> Quantized:
        """Vectors (..., D) quantised; `index` (...) forces the choice (dropped codes, say)."""
        index = self.indices(z) if index is None else index
        inputs, chosen = self.compared(z.float()), self.rows(index)
        output = inputs + (chosen - inputs).detach()
        return Quantized(output.to(z.dtype), index, inputs, chosen)

    @torch.no_grad()
    def replace(self, rows: Tensor, index: Tensor) -> None:
        """Put `rows` (N, D) in place of the codes `index` (N,)."""
        self.codebook[index] = rows.to(self.codebook.dtype)


class MovingQuantizer(VectorQuantizer):
    """A code-book (K, D) of directions, no parameter: it moves to the mean of what chose it.

    Each row moves by `rate` towards the direction of its inputs' mean, towards nothing where none
    chose it, and keeps length one (Micheli et al., 2024, appendix; delta-iris, quantizer.py).
    `used` (K,) is how often each was chosen, a moving average of `usage_rate`. Rows used less than
    a tenth of their fair share are expired, and `revive` puts inputs in their place.
    """

    used: Tensor
    moves: Tensor

    def __init__(self, codes: int, dim: int, rate: float = 0.01, usage_rate: float = 0.02) -> None:
        self.rate, self.usage_rate = rate, usage_rate
        super().__init__(codes, dim, "inner")
        self.register_buffer("used", torch.full((codes,), 1 / codes))
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))

    def _start(self, codebook: Tensor) -> None:
        self.register_buffer("codebook", codebook)

    @torch.no_grad()
    def move(self, inputs: Tensor, index: Tensor) -> None:
        """One step of the code-book, after inputs (..., D) chose rows `index` (...)."""
        flat, chosen = inputs.flatten(0, -2).float(), index.flatten()
        hot = F.one_hot(chosen, self.codes).float()  # (N, K)
        direction = F.normalize(distributed.sum(hot.T @ flat), dim=-1)
        self.codebook.copy_(F.normalize(self.codebook.lerp(direction, self.rate), dim=-1))
        counts = distributed.sum(hot.sum(0))
        self.used.lerp_(counts / counts.sum(), self.usage_rate)
        self.moves += 1

    def entropy(self) -> Tensor:
        """Entropy (0-d) of the usage, in bits; right after a revival `used` sums to more than one.

        As published it is not normalised then.
        """
        return -torch.xlogy(self.used, self.used).sum() / torch.log(self.used.new_tensor(2.0))

    def expired(self) -> Tensor:
        """Which rows (K,) are hardly used."""
        return self.used < 1 / (10 * self.codes)

    @torch.no_grad()
    def revive(self, inputs: Tensor, rand: Rand | None = None) -> Tensor:
        """Put random inputs (..., D) in place of expired rows; how many were (0-d).

        At most as many as there are inputs. Draws: "expired" (K,) and "inputs" (N,), whose orders
        say which rows and which inputs come first.
        """
        flat, rand = distributed.gather(inputs.flatten(0, -2).float()), rand or Rand()
        device, expired = flat.device, self.expired().nonzero()[:, 0]
        order = rand.draw("expired", (self.codes,), randint(2**31), device=device, shared=True)
        among = rand.draw("inputs", (len(flat),), randint(2**31), device=device, shared=True)
        count = min(len(expired), len(flat))
        rows = expired[order[: len(expired)].argsort()[:count]]
        self.codebook[rows] = flat[among.argsort()[:count]]
        self.used[rows] = 1 / self.codes
        return torch.tensor(count, device=device)


def perplexity(index: Tensor, codes: int) -> Tensor:
    """How many codes the numbers `index` (...) use evenly: 2 to their entropy in bits (0-d)."""
    share = torch.bincount(index.flatten(), minlength=codes).float() / index.numel()
    return torch.exp(-torch.xlogy(share, share).sum())


@torch.no_grad()
def kmeans(x: Tensor, count: int, iterations: int = 10, rand: Rand | None = None) -> Tensor:
    """Centres (count, D) of vectors (N, D), to start a code-book from.

    Starts apart from each other (k-means++); a centre that no vector is nearest to stays. Draws:
    "centres" (count,) in [0, 1).
    """
    draws = (rand or Rand()).draw("centres", (count,), uniform, device=x.device, shared=True)
    centres = [x[int(draws[0] * len(x))]]
    apart = (x - centres[0]).square().sum(-1)
    for i in range(1, count):
        chances = apart.cumsum(0)
        pick = int(torch.searchsorted(chances, draws[i] * chances[-1], right=True))
        centres.append(x[min(pick, len(x) - 1)])
        apart = torch.minimum(apart, (x - centres[-1]).square().sum(-1))
    found = torch.stack(centres)
    for _ in range(iterations):
        nearest = (2 * (x @ found.T) - found.square().sum(-1)).argmax(-1)
        sums = torch.zeros_like(found).index_add_(0, nearest, x)
        held = torch.bincount(nearest, minlength=count)[:, None]
        found = torch.where(held > 0, sums / held.clamp(min=1), found)
    return found
