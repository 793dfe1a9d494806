"""Image encoder and decoder. Outside images are (N, C, Y, X); inside maps are (N, Y, X, C)."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.errors import ConfigError, ContractError
from worldflux.nn.init import trunc_normal_in_
from worldflux.nn.norms import RMSNormSiLU
from worldflux_dreamer.dreamerv3.config import ModelConfig
from worldflux_dreamer.layers import BlockLinear, Dense, Linear

CHUNK_BYTES = 16 << 20
"""Maps above this size are computed in parts: larger blocks of memory are slow to come by."""


class Conv(nn.Module):
    """Convolution of maps (N, Y, X, C): weight (out, in, Y, X), "same" padding, stride 1."""

    def __init__(self, channels_in: int, channels_out: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, side, side))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        trunc_normal_in_(self.weight, channels_in * side * side)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias)


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution of maps (N, Y, X, C), channels last in memory too."""
    channels_first = x.permute(0, 3, 1, 2)
    return F.conv2d(channels_first, weight, bias, padding="same").permute(0, 2, 3, 1)


class PooledConv(Conv):
    """Convolution (N, Y, X, C), then the maximum over 2 x 2 pixels: (N, Y/2, X/2, C')."""

    def forward(self, x: Tensor) -> Tensor:
        size = 4 * x[0].numel() // x.shape[-1] * self.bias.shape[0]
        parts = x.split(max(1, CHUNK_BYTES // size))
        return torch.cat([self._part(part) for part in parts]) if len(parts) > 1 else self._part(x)

    def _part(self, x: Tensor) -> Tensor:
        channels_first = super().forward(x).permute(0, 3, 1, 2)
        return F.max_pool2d(channels_first, 2).permute(0, 2, 3, 1)


class UpConv(Conv):
    """Nearest-neighbour doubling of (N, Y, X, C), then convolution, at the low resolution.

    Output pixel (2i+a, 2j+b) sees a k x k window of doubled pixels, that is few source pixels with
    summed weights: four small convolutions, interleaved, with the same result and for k = 5 with
    9/25 of the products.
    """

    taps: Tensor

    def __init__(self, channels_in: int, channels_out: int, side: int) -> None:
        super().__init__(channels_in, channels_out, side)
        self.register_buffer("taps", phase_taps(side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return interleave(self.phases(x))

    def phases(self, x: Tensor) -> Tensor:
        """The result before interleaving (N, Y, X, 2, 2, C), phases (a, b)."""
        kernel = torch.einsum("apu,bqv,oiuv->aboipq", self.taps, self.taps, self.weight)
        maps = convolve(x, kernel.flatten(0, 2), self.bias.repeat(4))
        return maps.unflatten(-1, (2, 2, -1))


def interleave(phases: Tensor) -> Tensor:
    """(N, Y, X, 2, 2, C) -> (N, 2Y, 2X, C)."""
    return rearrange(phases, "n y x a b c -> n (y a) (x b) c")


def phase_taps(side: int) -> Tensor:
    """(phase, source offset, tap): 1 where the tap of the doubled image falls on that source."""
    reach = (side // 2 + 1) // 2
    taps = torch.zeros(2, 2 * reach + 1, side)
    for phase in range(2):
        for tap in range(side):
            taps[phase, (phase + tap - side // 2) // 2 + reach, tap] = 1
    return taps


def least_resolution(shape: tuple[int, ...], stages: int) -> tuple[int, int]:
    """Height and width after `stages` halvings of an image (C, Y, X)."""
    factor = 2**stages
    if any(side % factor or not 3 <= side // factor <= 16 for side in shape[1:]):
        raise ContractError(
            f"An image of shape {tuple(shape)} does not fit {stages} halvings: its sides must be "
            f"multiples of {factor} between {3 * factor} and {16 * factor}. Resize it, or set "
            "model.mults to another number of stages."
        )
    return shape[1] // factor, shape[2] // factor


class ImageEncoder(nn.Module):
    """Stages of convolution, max-pooling by 2, norm and SiLU (rssm.py:Encoder)."""

    def __init__(self, config: ModelConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        rows, columns = least_resolution(shape, len(config.mults))
        depths = [config.depth * mult for mult in config.mults]
        self.convs = nn.ModuleList(
            PooledConv(a, b, config.kernel)
            for a, b in zip([shape[0], *depths[:-1]], depths, strict=True)
        )
        self.norms = nn.ModuleList(RMSNormSiLU(depth, config.norm_eps) for depth in depths)
        self.size = rows * columns * depths[-1]

    def forward(self, image: Tensor) -> Tensor:
        # image (N, C, Y, X), uint8 or in [0, 1]
        x = image.permute(0, 2, 3, 1).contiguous().float()
        x = (x / 255 if image.dtype == torch.uint8 else x) - 0.5
        for conv, norm in self.stages():
            x = norm(conv(x))
        return x.flatten(1)

    def stages(self) -> list[tuple[PooledConv, RMSNormSiLU]]:
        """Convolution and norm of every stage, in order."""
        return list(zip(self.convs, self.norms, strict=True))  # type: ignore[arg-type]


class ImageDecoder(nn.Module):
    """Both parts of the latent to a small map, then doubling convolutions (rssm.py:Decoder)."""

    def __init__(self, config: ModelConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        depths = [config.depth * mult for mult in config.mults]
        self.map = (*least_resolution(shape, len(depths)), depths[-1])
        self.blocks = config.decoder_blocks
        if depths[-1] % self.blocks:
            raise ConfigError(
                f"model.decoder_blocks={self.blocks} does not divide the {depths[-1]} channels of "
                f"the last image stage, model.depth={config.depth} times {config.mults[-1]} of "
                "model.mults: change one of the three."
            )
        size, stoch = math.prod(self.map), config.stoch * config.classes
        self.from_deter = BlockLinear(config.deter, size, self.blocks)
        self.from_stoch = Dense(stoch, 2 * config.units, config.norm_eps)
        self.to_map = Linear(2 * config.units, size)
        self.map_norm = RMSNormSiLU(depths[-1], config.norm_eps)
        stages = zip(depths[:0:-1], depths[-2::-1], strict=True)
        self.convs = nn.ModuleList(UpConv(a, b, config.kernel) for a, b in stages)
        self.norms = nn.ModuleList(RMSNormSiLU(d, config.norm_eps) for d in depths[-2::-1])
        self.out = UpConv(depths[0], shape[0], config.kernel)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        # deter (N, D), stoch (N, S * K) -> (N, C, Y, X) in [0, 1]
        sizes = {"g": self.blocks, "y": self.map[0], "x": self.map[1]}
        own = rearrange(self.from_deter(deter), "n (g y x c) -> n y x (g c)", **sizes)
        x = self.map_norm(own + self.to_map(self.from_stoch(stoch)).view_as(own))
        for conv, norm in self.stages():
            x = interleave(norm(conv.phases(x)))
        return torch.sigmoid(self.out(x).float()).permute(0, 3, 1, 2)

    def stages(self) -> list[tuple[UpConv, RMSNormSiLU]]:
        """Convolution and norm of every stage but the last, in order."""
        return list(zip(self.convs, self.norms, strict=True))  # type: ignore[arg-type]
