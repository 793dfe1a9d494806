"""Encoder and decoder of observation dicts: images by convolutions, everything else by MLPs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.interfaces import Decoder, ObservationEncoder
from worldflux.core.output import ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.specs import TensorSpec
from worldflux_dreamer.latent_rssm.config import SizesConfig
from worldflux_dreamer.latent_rssm.images import ImageDecoder, ImageEncoder, quantised
from worldflux_dreamer.latent_rssm.layers import ScalarHead, dense, mlp
from worldflux_dreamer.latent_rssm.rssm import features
from worldflux_dreamer.spaces import image_keys, stacked_shape, vector_keys

Specs = Mapping[str, TensorSpec]


class Encoder(ObservationEncoder):
    """Images stacked on their channels, vectors concatenated, to "embed" (..., E)."""

    def __init__(self, config: SizesConfig, obs_spec: Specs) -> None:
        super().__init__()
        self.obs_spec, self.bits = dict(obs_spec), config.bits
        self.vectors, self.images = vector_keys(obs_spec), image_keys(obs_spec)
        self.size = 0
        if self.vectors:
            width = sum(obs_spec[key].size for key in self.vectors)
            self.vector = mlp(width, config.units, config.vector_layers, config.activation)
            self.size += config.units
        if self.images:
            self.image = self.image_network(config, stacked_shape(obs_spec, self.images))
            self.size += int(self.image.size)  # type: ignore[arg-type]

    def image_network(self, config: SizesConfig, shape: tuple[int, int, int]) -> nn.Module:
        """Network with a `size` E from images (N, C, Y, X) around 0 to (N, E)."""
        return ImageEncoder(shape, config.depth, config.image_activation)

    def forward(self, obs: dict[str, Tensor]) -> State:
        parts = []
        if self.vectors:
            inputs = [vector_input(obs[key], self.obs_spec[key]) for key in self.vectors]
            parts.append(self.vector(torch.cat(inputs, -1)))
        if self.images:
            stack = torch.cat([quantised(obs[key], self.bits) for key in self.images], -3) - 0.5
            embed = self.image(stack.flatten(0, -4))
            parts.append(embed.view(*stack.shape[:-3], -1))
        return State({"embed": torch.cat(parts, -1)})


def vector_input(value: Tensor, spec: TensorSpec) -> Tensor:
    """An observation (..., *shape) as a float vector (..., N); choices are one-hot."""
    lead = value.shape[: value.ndim - len(spec.shape)]
    if not spec.discrete:
        return value.float().reshape(*lead, spec.size)
    parts = value.reshape(*lead, -1).long().unbind(-1)
    hot = [F.one_hot(part, n) for part, n in zip(parts, spec.counts, strict=True)]
    return torch.cat(hot, -1).float()


class LatentDecoder(Decoder):
    """Observations, "reward" and, given `going_on`, "continue"; means and logits are in `aux`."""

    def __init__(
        self,
        config: SizesConfig,
        obs_spec: Specs,
        stoch_shape: tuple[int, ...],
        going_on: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.obs_spec = dict(obs_spec)
        self.vectors, self.images = vector_keys(obs_spec), image_keys(obs_spec)
        size = config.deter + math.prod(stoch_shape)
        if self.vectors:
            self.vector = mlp(size, config.units, config.vector_layers, config.activation)
            outs = {key: dense(config.units, obs_spec[key].size) for key in self.vectors}
            self.vector_outs = nn.ModuleDict(outs)
        if self.images:
            self.image = self.image_network(config, size, stacked_shape(obs_spec, self.images))
        self.reward = ScalarHead(size, config.units, config.reward_layers, config.activation)
        self.going_on = going_on

    def image_network(
        self, config: SizesConfig, size_in: int, shape: tuple[int, int, int]
    ) -> nn.Module:
        """Network from features (N, F) to images (N, C, Y, X) around 0."""
        return ImageDecoder(size_in, shape, config.depth, config.image_activation)

    def forward(
        self,
        state: State,
        keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> ModelOutput:
        output, feat = ModelOutput(), features(state)
        scalars = ["reward"] if self.going_on is None else ["reward", "continue"]
        wanted = [*self.obs_spec, *scalars] if keys is None else keys
        if any(key in wanted for key in self.vectors):
            self._vectors(feat, output, wanted)
        if any(key in wanted for key in self.images):
            self._images(feat, output, wanted)
        if "reward" in wanted:
            output.predictions["reward"] = self.reward(feat).squeeze(-1)
        if "continue" in wanted and self.going_on is not None:
            output.aux["continue"] = self.going_on(feat).squeeze(-1)
            output.predictions["continue"] = torch.sigmoid(output.aux["continue"])
        return output

    def _vectors(self, feat: Tensor, output: ModelOutput, wanted: Collection[str]) -> None:
        hidden = self.vector(feat)
        for key in (key for key in self.vectors if key in wanted):
            spec, value = self.obs_spec[key], self.vector_outs[key](hidden).float()
            output.aux[key] = value
            if not spec.discrete:
                output.predictions[key] = value.view(*value.shape[:-1], *spec.shape)
                continue
            best = [part.argmax(-1) for part in value.split(spec.counts, -1)]
            single = isinstance(spec.n, int)
            output.predictions[key] = best[0] if single else torch.stack(best, -1)

    def _images(self, feat: Tensor, output: ModelOutput, wanted: Collection[str]) -> None:
        stack = self.image(feat.flatten(0, -2)).float()  # (N, C, Y, X)
        channels = [self.obs_spec[key].shape[0] for key in self.images]
        for key, image in zip(self.images, stack.split(channels, 1), strict=True):
            if key not in wanted:
                continue
            output.aux[key] = image.unflatten(0, feat.shape[:-1]) + 0.5
            output.predictions[key] = output.aux[key].clamp(0, 1)


class ConstantContinue(nn.Module):
    """A continue head that knows of no end: the same probability (..., 1), as a logit."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.logit = math.log(probability) - math.log1p(-probability)

    def forward(self, feat: Tensor) -> Tensor:
        return feat.new_full((*feat.shape[:-1], 1), self.logit, dtype=torch.float32)
