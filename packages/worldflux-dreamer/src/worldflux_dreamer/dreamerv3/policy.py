"""The actor: distributions over actions given features, for every kind of action space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldflux.core.rand import Rand, normal, uniform
from worldflux.specs import TensorSpec
from worldflux_dreamer.categorical import categorical_entropy, sample_index
from worldflux_dreamer.dreamerv3.config import AgentConfig, ModelConfig
from worldflux_dreamer.dreamerv3.losses import mixed_log_probs, normal_entropy, normal_log_prob
from worldflux_dreamer.layers import MLP, Linear


@dataclass
class BoundedNormal:
    """Diagonal normal over continuous actions (..., A): no squashing, no clipping."""

    mean: Tensor
    std: Tensor
    shape: tuple[int, ...]

    def sample(self, rand: Rand) -> Tensor:
        """An action (..., *shape), from the normal draw "action_noise" (..., A)."""
        device = self.mean.device
        noise = rand.draw("action_noise", tuple(self.mean.shape), normal, device=device)
        return self._shaped(self.mean + self.std * noise)

    def mode(self) -> Tensor:
        """The most likely action (..., *shape)."""
        return self._shaped(self.mean)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density (...) of actions (..., *shape)."""
        return normal_log_prob(self.mean, self.std, action.reshape(self.mean.shape))

    def entropy(self) -> Tensor:
        """Entropy (...), summed over action dimensions."""
        return normal_entropy(self.std)

    def _shaped(self, flat: Tensor) -> Tensor:
        return flat.view(*flat.shape[:-1], *self.shape)


@dataclass
class Categoricals:
    """One or several independent choices; indices (...) for one, (..., N) for several."""

    log_probs: tuple[Tensor, ...]
    single: bool

    def sample(self, rand: Rand) -> Tensor:
        """Indices, from the uniform draw "action_noise" (..., N), one number per choice."""
        like, parts = self.log_probs[0], enumerate(self.log_probs)
        shape = (*like.shape[:-1], len(self.log_probs))
        noise = rand.draw("action_noise", shape, uniform, device=like.device)
        return self._joined([sample_index(part.exp(), noise[..., i]) for i, part in parts])

    def mode(self) -> Tensor:
        """The most likely indices."""
        return self._joined([part.argmax(-1) for part in self.log_probs])

    def log_prob(self, action: Tensor) -> Tensor:
        """Log probability (...) of indices, or of one-hot actions (..., sum of choices)."""
        if action.is_floating_point():
            counts = [part.shape[-1] for part in self.log_probs]
            hot = zip(self.log_probs, action.split(counts, -1), strict=True)
            return torch.stack([(part * one).sum(-1) for part, one in hot]).sum(0)
        index = action.long().unsqueeze(-1) if self.single else action.long()
        picked = [
            part.gather(-1, index[..., i : i + 1]).squeeze(-1)
            for i, part in enumerate(self.log_probs)
        ]
        return torch.stack(picked).sum(0)

    def entropy(self) -> Tensor:
        """Entropy (...), summed over the choices."""
        return torch.stack([categorical_entropy(part) for part in self.log_probs]).sum(0)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        return parts[0] if self.single else torch.stack(parts, -1)


class ActorHead(nn.Module):
    """Features (..., F) to a distribution over actions (heads.py: bounded_normal, categorical)."""

    def __init__(self, size_in: int, spec: TensorSpec, model: ModelConfig, agent: AgentConfig):
        super().__init__()
        self.spec = spec
        self.minstd, self.maxstd = agent.minstd, agent.maxstd
        self.unimix = agent.policy_unimix
        self.mlp = MLP(size_in, model.units, agent.policy_layers, model.norm_eps)
        width = model.units if agent.policy_layers else size_in
        if spec.discrete:
            self.logits = Linear(width, spec.size, outscale=0.01)
        else:
            self.mean = Linear(width, spec.size, outscale=0.01)
            self.stddev = Linear(width, spec.size, outscale=0.01)

    def forward(self, feat: Tensor) -> BoundedNormal | Categoricals:
        x = self.mlp(feat)
        if self.spec.discrete:
            parts = self.logits(x).float().split(self.spec.counts, -1)
            log_probs = tuple(mixed_log_probs(part, self.unimix) for part in parts)
            return Categoricals(log_probs, single=isinstance(self.spec.n, int))
        spread = (self.maxstd - self.minstd) * torch.sigmoid(self.stddev(x).float() + 2.0)
        mean = torch.tanh(self.mean(x).float())
        return BoundedNormal(mean, spread + self.minstd, self.spec.shape)
