"""Encoder and decoder of observation dicts, and the heads. Feature order is [deter, stoch]."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.interfaces import Decoder, ObservationEncoder
from worldflux.core.output import ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.nn.symlog import symexp, symlog
from worldflux.nn.two_hot import symexp_bins, two_hot_mean
from worldflux.specs import TensorSpec
from worldflux_dreamer.dreamerv3.config import ModelConfig
from worldflux_dreamer.dreamerv3.images import ImageDecoder, ImageEncoder
from worldflux_dreamer.layers import MLP, Linear
from worldflux_dreamer.spaces import image_keys, stacked_shape, vector_keys


def vector_input(value: Tensor, spec: TensorSpec) -> Tensor:
    """An observation (..., *shape) as the float vector (..., N) that the encoder sees."""
    if spec.discrete:
        parts = value.long().unsqueeze(-1) if isinstance(spec.n, int) else value.long()
        one_hots = [F.one_hot(parts[..., i], n) for i, n in enumerate(spec.counts)]
        return torch.cat(one_hots, -1).float()
    lead = value.ndim - len(spec.shape)
    return symlog(value.float()).reshape(*value.shape[:lead], spec.size)


class Encoder(ObservationEncoder):
    """Images by convolutions, vectors by an MLP, to "embed" (..., E); vectors come first."""

    def __init__(self, config: ModelConfig, obs_spec: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self.obs_spec = dict(obs_spec)
        self.vectors, self.images = vector_keys(obs_spec), image_keys(obs_spec)
        self.size = 0
        if self.vectors:
            width = sum(obs_spec[key].size for key in self.vectors)
            self.vector = MLP(width, config.units, config.layers, config.norm_eps)
            self.size += config.units
        if self.images:
            self.image = ImageEncoder(config, stacked_shape(obs_spec, self.images))
            self.size += self.image.size

    def forward(self, obs: dict[str, Tensor]) -> State:
        parts = []
        if self.vectors:
            inputs = [vector_input(obs[key], self.obs_spec[key]) for key in self.vectors]
            parts.append(self.vector(torch.cat(inputs, -1)))
        if self.images:
            stack = [obs[key] for key in self.images]
            image = torch.cat(stack, -3) if len(stack) > 1 else stack[0]
            embed = self.image(image.flatten(0, -4))
            parts.append(embed.view(*image.shape[:-3], -1))
        return State({"embed": torch.cat(parts, -1) if len(parts) > 1 else parts[0]})


class Head(nn.Module):
    """An MLP and a linear output: features (..., D) to float32 (..., outputs)."""

    def __init__(
        self, size_in: int, size_out: int, layers: int, config: ModelConfig, outscale: float = 1.0
    ) -> None:
        super().__init__()
        self.mlp = MLP(size_in, config.units, layers, config.norm_eps)
        self.out = Linear(config.units if layers else size_in, size_out, outscale)

    def forward(self, feat: Tensor) -> Tensor:
        logits: Tensor = self.out(self.mlp(feat)).float()
        return logits


class ScalarHead(Head):
    """A scalar as a two-hot distribution over raw symexp bins; starts at exactly 0."""

    bins: Tensor

    def __init__(self, size_in: int, layers: int, config: ModelConfig) -> None:
        super().__init__(size_in, config.bins, layers, config, outscale=0.0)
        self.register_buffer("bins", symexp_bins(config.bins), persistent=False)

    def mean(self, logits: Tensor) -> Tensor:
        """Expected scalar (...) of logits (..., bins)."""
        return two_hot_mean(logits, self.bins)


class VectorDecoder(nn.Module):
    """[stoch (N, S * K), deter (N, D)] through an MLP to one linear output (N, size) per key."""

    def __init__(self, config: ModelConfig, spec: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        size = config.stoch * config.classes + config.deter
        self.keys = list(spec)
        self.mlp = MLP(size, config.units, config.layers, config.norm_eps)
        self.outs = nn.ModuleList(Linear(config.units, spec[key].size) for key in self.keys)

    def named_outs(self) -> list[tuple[str, Linear]]:
        """The output layer of each key."""
        return list(zip(self.keys, self.outs, strict=True))  # type: ignore[arg-type]

    def forward(self, deter: Tensor, stoch: Tensor) -> dict[str, Tensor]:
        x = self.mlp(torch.cat([stoch, deter], -1))
        return {key: out(x).float() for key, out in self.named_outs()}


def features(state: State) -> Tensor:
    """What heads see of a State: [deter, stoch] (..., D + S * K)."""
    return torch.cat([state["deter"], state["stoch"].flatten(-2)], -1)


class DreamerDecoder(Decoder):
    """Observations, "reward" and "continue"; what losses need is in `aux` (logits, raw outputs)."""

    def __init__(self, config: ModelConfig, obs_spec: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self.obs_spec = dict(obs_spec)
        self.vectors, self.images = vector_keys(obs_spec), image_keys(obs_spec)
        size = config.deter + config.stoch * config.classes
        if self.vectors:
            self.vector = VectorDecoder(config, {key: obs_spec[key] for key in self.vectors})
        if self.images:
            self.image = ImageDecoder(config, stacked_shape(obs_spec, self.images))
        self.reward = ScalarHead(size, config.reward_layers, config)
        self.going_on = Head(size, 1, config.continue_layers, config)

    def forward(
        self,
        state: State,
        keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> ModelOutput:
        output = ModelOutput()
        wanted = [*self.obs_spec, "reward", "continue"] if keys is None else keys
        if any(key in wanted for key in self.vectors):
            self._vectors(state, output)
        if any(key in wanted for key in self.images):
            self._images(state, output)
        if "reward" in wanted or "continue" in wanted:
            self._scalars(features(state), wanted, output)
        return output

    def _vectors(self, state: State, output: ModelOutput) -> None:
        raw = self.vector(state["deter"], state["stoch"].flatten(-2))
        for key, value in raw.items():
            spec = self.obs_spec[key]
            output.aux[key] = value
            if not spec.discrete:
                output.predictions[key] = symexp(value).view(*value.shape[:-1], *spec.shape)
                continue
            best = [part.argmax(-1) for part in value.split(spec.counts, -1)]
            single = isinstance(spec.n, int)
            output.predictions[key] = best[0] if single else torch.stack(best, -1)

    def _images(self, state: State, output: ModelOutput) -> None:
        deter, stoch = state["deter"], state["stoch"].flatten(-2)
        lead = deter.shape[:-1]
        stack = self.image(deter.flatten(0, -2), stoch.flatten(0, -2))  # (N, C, Y, X)
        channels = [self.obs_spec[key].shape[0] for key in self.images]
        for key, image in zip(self.images, stack.split(channels, 1), strict=True):
            output.predictions[key] = image.unflatten(0, lead)

    def _scalars(self, feat: Tensor, wanted: Collection[str], output: ModelOutput) -> None:
        if "reward" in wanted:
            output.aux["reward"] = self.reward(feat)
            output.predictions["reward"] = self.reward.mean(output.aux["reward"])
        if "continue" in wanted:
            output.aux["continue"] = self.going_on(feat).squeeze(-1)
            output.predictions["continue"] = torch.sigmoid(output.aux["continue"])
