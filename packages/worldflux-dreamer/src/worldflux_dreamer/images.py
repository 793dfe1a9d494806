"""Image encoder and decoder. Images are (N, C, Y, X); feature order in vectors is (y, x, c)."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.errors import ContractError
from worldflux.nn.init import trunc_normal_in_
from worldflux.nn.norms import RMSNorm
from worldflux_dreamer.config import ModelConfig
from worldflux_dreamer.layers import BlockLinear, Dense, Linear


class Conv(nn.Module):
    """Convolution parameters, weight (out, in, Y, X); "same" padding, stride 1."""

    def __init__(self, channels_in: int, channels_out: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, side, side))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        trunc_normal_in_(self.weight, channels_in * side * side)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class UpConv(Conv):
    """Nearest-neighbour doubling, then convolution, computed at the low resolution.

    Output pixel (2i+a, 2j+b) sees a k x k window of doubled pixels, that is few source pixels with
    summed weights: four small convolutions, interleaved, with the same result and for k = 5 with
    9/25 of the products.
    """

    def __init__(self, channels_in: int, channels_out: int, side: int) -> None:
        super().__init__(channels_in, channels_out, side)
        self.register_buffer("taps", _phase_taps(side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.phases(x), 2)

    def phases(self, x: Tensor) -> Tensor:
        """The result before interleaving, (N, out * 4, Y, X), phase (a, b) fastest."""
        kernel = torch.einsum("apu,bqv,oiuv->oabipq", self.taps, self.taps, self.weight)
        bias = self.bias.repeat_interleave(4)
        return F.conv2d(x, kernel.flatten(0, 2), bias, padding=self.taps.shape[1] // 2)


def _phase_taps(side: int) -> Tensor:
    """(phase, source offset, tap): 1 where the tap of the doubled image falls on that source."""
    reach = (side // 2 + 1) // 2
    taps = torch.zeros(2, 2 * reach + 1, side)
    for phase in range(2):
        for tap in range(side):
            taps[phase, (phase + tap - side // 2) // 2 + reach, tap] = 1
    return taps


class ChannelNorm(RMSNorm):
    """RMSNorm over the channels of (N, C, Y, X), then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        inverse = torch.rsqrt(wide.square().mean(1, keepdim=True) + self.eps)
        return F.silu((wide * inverse * self.scale[:, None, None]).to(x.dtype))


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
            Conv(a, b, config.kernel) for a, b in zip([shape[0], *depths], depths, strict=False)
        )
        self.norms = nn.ModuleList(ChannelNorm(depth, config.norm_eps) for depth in depths)
        self.size = rows * columns * depths[-1]

    def forward(self, image: Tensor) -> Tensor:
        # image (N, C, Y, X), uint8 or in [0, 1]
        x = image.float() / 255 if image.dtype == torch.uint8 else image.float()
        x = x - 0.5
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(F.max_pool2d(conv(x), 2))
        return rearrange(x, "n c y x -> n (y x c)")


class ImageDecoder(nn.Module):
    """Both parts of the latent to a small map, then doubling convolutions (rssm.py:Decoder)."""

    def __init__(self, config: ModelConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        depths = [config.depth * mult for mult in config.mults]
        self.map = (*least_resolution(shape, len(depths)), depths[-1])
        self.blocks = config.decoder_blocks
        size, stoch = math.prod(self.map), config.stoch * config.classes
        self.from_deter = BlockLinear(config.deter, size, self.blocks)
        self.from_stoch = Dense(stoch, 2 * config.units, config.norm_eps)
        self.to_map = Linear(2 * config.units, size)
        self.map_norm = ChannelNorm(depths[-1], config.norm_eps)
        stages = zip(depths[:0:-1], depths[-2::-1], strict=True)
        self.convs = nn.ModuleList(UpConv(a, b, config.kernel) for a, b in stages)
        self.norms = nn.ModuleList(ChannelNorm(d, config.norm_eps) for d in depths[-2::-1])
        self.out = UpConv(depths[0], shape[0], config.kernel)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        # deter (N, D), stoch (N, S * K) -> (N, C, Y, X) in [0, 1]
        rows, columns, _ = self.map
        sizes = {"g": self.blocks, "y": rows, "x": columns}
        own = rearrange(self.from_deter(deter), "n (g y x c) -> n (g c) y x", **sizes)
        sampled = rearrange(
            self.to_map(self.from_stoch(stoch)), "n (y x c) -> n c y x", y=rows, x=columns
        )
        x = self.map_norm(own + sampled)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x))
        return torch.sigmoid(self.out(x).float())
