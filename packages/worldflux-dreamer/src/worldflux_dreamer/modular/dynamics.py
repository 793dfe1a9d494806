"""A latent dynamics that remembers by attention over past steps, with a cache of keys and values.

Every step is one token made of the previous latent and action; attention is over time, causal,
within an episode and within the last M steps. The posterior sees the observation alone (2209.14430,
2310.09615), so a whole sequence is computed at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.interfaces import DynamicsModel
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import StateError
from worldflux_dreamer.latent_rssm.latents import Stats, latent_noise, make_latent
from worldflux_dreamer.latent_rssm.layers import ACTIVATIONS, Head, dense
from worldflux_dreamer.modular.config import ModelConfig


@dataclass
class Cache:
    """What attention remembers: keys, values (B, M, layers, D), `filled` (B, M) where there is any.

    The newest is last.
    """

    keys: Tensor
    values: Tensor
    filled: Tensor


class TimeAttention(nn.Module):
    """Attention over time, biased by a learned function of the distance."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, self.heads = config.deter, config.heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (dense(width, width) for _ in range(4))
        self.distance = nn.Parameter(torch.zeros(config.heads, config.memory + 1))

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor], visible: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        # x (B, T, D), past keys and values (B, M, D), visible (B, T, M+T)
        normed = self.norm(x)
        keys = torch.cat([past[0], self.key(normed)], 1)
        values = torch.cat([past[1], self.value(normed)], 1)
        q, k, v = (self._heads(y) for y in (self.query(normed), keys, values))
        bias = self._bias(x.shape[1]).masked_fill(~visible[:, None], -math.inf)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return x + self.out(mixed.transpose(1, 2).flatten(2)), keys, values

    def _bias(self, steps: int) -> Tensor:
        """(heads, T, M+T): the bias of each distance."""
        return self.distance[:, distances(steps, self.distance).clamp(0, self.memory)]

    @property
    def memory(self) -> int:
        """M."""
        return self.distance.shape[1] - 1

    def _heads(self, y: Tensor) -> Tensor:
        return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def distances(steps: int, table: Tensor) -> Tensor:
    """(T, M+T): how many steps before query t lies token j of [cache, sequence]."""
    memory = table.shape[1] - 1
    now = torch.arange(steps, device=table.device)[:, None] + memory
    return now - torch.arange(memory + steps, device=table.device)


class TimeTransformer(nn.Module):
    """Pre-norm blocks of time attention and an MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleList(TimeAttention(config) for _ in range(config.layers))
        self.feed = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(config.deter),
                dense(config.deter, 4 * config.deter),
                nn.GELU(),
                dense(4 * config.deter, config.deter),
            )
            for _ in range(config.layers)
        )
        self.norm, self.memory = nn.LayerNorm(config.deter), config.memory

    def forward(self, x: Tensor, cache: Cache, is_first: Tensor) -> tuple[Tensor, Cache]:
        """Tokens (B, T, D) to outputs (B, T, D) and the Cache after the last step."""
        episode = is_first.long().cumsum(1)  # (B, T); the cache belongs to episode 0
        past = torch.where(cache.filled > 0, 0, -1)
        whole = torch.cat([past, episode], 1)  # (B, M+T)
        apart = distances(x.shape[1], self.attention[0].distance)  # type: ignore[arg-type]
        near = (apart >= 0) & (apart <= self.memory)
        visible = near & (episode[:, :, None] == whole[:, None])
        keys, values = [], []
        for i, (attend, feed) in enumerate(zip(self.attention, self.feed, strict=True)):
            x, key, value = attend(x, (cache.keys[:, :, i], cache.values[:, :, i]), visible)
            x = x + feed(x)
            keys.append(key)
            values.append(value)
        after = self._after(torch.stack(keys, 2), torch.stack(values, 2), whole, episode)
        return self.norm(x), after

    def _after(self, keys: Tensor, values: Tensor, whole: Tensor, episode: Tensor) -> Cache:
        """The last M entries, a copy; what belongs to another episode is zero."""
        filled = whole[:, -self.memory :] == episode[:, -1:]  # (B, M)
        mask = filled[..., None, None].to(keys.dtype)
        kept, held = keys[:, -self.memory :] * mask, values[:, -self.memory :] * mask
        return Cache(kept, held, filled.float())


class TransformerDynamics(DynamicsModel):
    """State: "deter" (B, D), "stoch" and its stats; "cache.keys", "cache.values", "cache.filled".

    As with every cache, the last State of a sequence alone has it: only from there it goes on.
    """

    recurrent = True

    def __init__(self, config: ModelConfig, action_size: int, embed_size: int) -> None:
        super().__init__()
        self.config, self.latent = config, make_latent(config)
        flat, outputs = math.prod(self.latent.shape), self.latent.outputs
        self.token = nn.Sequential(
            dense(flat + action_size, config.deter), ACTIVATIONS[config.activation]()
        )
        self.transformer = TimeTransformer(config)
        self.prior_head = Head(config.deter, outputs, config.hidden, 1, config.activation)
        self.posterior = Head(embed_size, outputs, config.hidden, 1, config.activation)

    def initial(self, batch_size: int, device: torch.device) -> State:
        c = self.config
        zeros = torch.zeros(batch_size, c.memory, c.layers, c.deter, device=device)
        return State(
            {
                "deter": torch.zeros(batch_size, c.deter, device=device),
                "stoch": torch.zeros(batch_size, *self.latent.shape, device=device),
                "cache.keys": zeros,
                "cache.values": zeros.clone(),
                "cache.filled": torch.zeros(batch_size, c.memory, device=device),
            }
        )

    def prior(self, state: State) -> Stats:
        """The latent's distribution (...) given the deterministic state alone."""
        return self.latent.stats(self.prior_head(state["deter"]))

    def transition(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        going_on = torch.zeros(len(action), 1, dtype=torch.bool, device=action.device)
        moved = self._remember(state, state["stoch"][:, None], action[:, None], going_on)
        stats = self.prior(State(moved))
        stoch = self._sampled(stats, (len(action),), rand, deterministic)
        return State({**moved, "stoch": stoch, **stats}).at(0)

    def observe(
        self,
        state: State,
        action: Tensor,
        features: State,
        is_first: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        stats = self.latent.stats(self.posterior(features["embed"][:, None]))
        stoch = self._sampled(stats, is_first.shape, rand, deterministic)
        before = state["stoch"][:, None]
        moved = self._remember(state, before, action[:, None], is_first[:, None])
        return State({**moved, "stoch": stoch, **stats}).at(0)

    def observe_sequence(
        self,
        state: State,
        action: Tensor,
        features: State,
        is_first: Tensor,
        *,
        rand: Rand | None = None,
    ) -> State:
        stats = self.latent.stats(self.posterior(features["embed"]))
        stoch = self._sampled(stats, is_first.shape, rand)
        before = torch.cat([state["stoch"][:, None], stoch[:, :-1]], 1)
        moved = self._remember(state, before, action, is_first)
        return State({**moved, "stoch": stoch, **stats})

    def _remember(
        self, state: State, stoch: Tensor, action: Tensor, is_first: Tensor
    ) -> dict[str, Tensor]:
        """Deterministic states (B, T, D) after previous latents and actions; the last cache."""
        both = torch.cat([stoch.flatten(2), action], -1).masked_fill(is_first[..., None], 0)
        deter, after = self.transformer(self.token(both), _cache_of(state), is_first)
        caches = {f"cache.{name}": tensor for name, tensor in vars(after).items()}
        return {"deter": deter.float(), **caches}

    def _sampled(
        self,
        stats: Stats,
        lead: tuple[int, ...],
        rand: Rand | None,
        deterministic: bool = False,
    ) -> Tensor:
        """Latents (B, T, ...); `lead` (B,) draws for one step, whose stats are (B, 1, ...)."""
        if deterministic:
            return self.latent.mode(stats)
        device = next(iter(stats.values())).device
        noise = latent_noise(self.latent, lead, device, rand)
        return self.latent.sample(stats, noise if len(lead) == 2 else noise[:, None])


def _cache_of(state: State) -> Cache:
    if "cache.keys" not in state:
        raise StateError(
            "A State without a cache cannot go on: of a sequence or a rollout the last one alone "
            "keeps cache.keys, cache.values and cache.filled. Go on from that one, or observe the "
            f"steps up to this one again. It has: {', '.join(state.tensors)}."
        )
    return Cache(*(state[f"cache.{name}"] for name in ("keys", "values", "filled")))
