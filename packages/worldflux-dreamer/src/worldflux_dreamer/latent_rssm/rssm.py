"""The recurrent state-space model of PlaNet, DreamerV1 and V2 (1811.04551, figure 2c)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.interfaces import DynamicsModel
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux_dreamer.latent_rssm.config import SizesConfig
from worldflux_dreamer.latent_rssm.cores import CORES, MakeCore, Memory
from worldflux_dreamer.latent_rssm.latents import Stats, latent_noise, make_latent
from worldflux_dreamer.latent_rssm.layers import ACTIVATIONS, Head, dense


class RSSM(DynamicsModel):
    """State: the core's memory with "deter" (B, D), "stoch", and the stats it was drawn from.

    Draws: "stoch", noise as the latent's `sample` takes it. `core` names one of `cores.CORES`, or
    is any class constructed like them, a `cores.LatentCore`.
    """

    recurrent = True

    def __init__(
        self,
        config: SizesConfig,
        core: str | MakeCore,
        action_size: int,
        embed_size: int,
    ) -> None:
        super().__init__()
        self.latent = make_latent(config)
        flat, outputs = math.prod(self.latent.shape), self.latent.outputs
        make = CORES[core] if isinstance(core, str) else core
        self.core = make(config, flat, action_size)
        self.prior_head = Head(config.deter, outputs, config.hidden, 1, config.activation)
        self.seen = dense(config.deter + embed_size, config.hidden)
        self.activation = ACTIVATIONS[config.activation]()
        self.posterior_out = dense(config.hidden, outputs)
        self.deter = config.deter

    def initial(self, batch_size: int, device: torch.device) -> State:
        stoch = torch.zeros(batch_size, *self.latent.shape, device=device)
        return State({**self.core.initial(batch_size, device), "stoch": stoch})

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
        memory = {key: state[key] for key in self.core.keys}
        stoch = state["stoch"].flatten(1)
        memory = self.core(memory, stoch, self.core.action_input(action))
        noise = None if deterministic else self._noise((len(stoch),), stoch.device, rand)
        return self._state(memory, self.prior(State(memory)), noise)

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
        moved = self.core.action_input(action.masked_fill(is_first[:, None], 0))
        noise = None if deterministic else self._noise(is_first.shape, moved.device, rand)
        return self._observe(state, moved, self._embedded(features["embed"]), is_first, noise)

    def observe_sequence(
        self,
        state: State,
        action: Tensor,
        features: State,
        is_first: Tensor,
        *,
        rand: Rand | None = None,
    ) -> State:
        # what does not depend on the state is computed for all steps at once
        moved = self.core.action_input(action.masked_fill(is_first[..., None], 0))
        embedded = self._embedded(features["embed"]).unbind(1)
        noise = self._noise(is_first.shape, moved.device, rand).unbind(1)
        states = []
        for t, (now, first) in enumerate(zip(moved.unbind(1), is_first.unbind(1), strict=True)):
            state = self._observe(state, now, embedded[t], first, noise[t])
            states.append(state)
        return State.stack(states)

    def _embedded(self, embed: Tensor) -> Tensor:
        """What observations (..., E) contribute to the posterior's hidden layer."""
        return F.linear(embed, self.seen.weight[:, self.deter :], self.seen.bias)

    def _observe(
        self, state: State, moved: Tensor, embedded: Tensor, is_first: Tensor, noise: Tensor | None
    ) -> State:
        kept = {key: _forget(state[key], is_first) for key in (*self.core.keys, "stoch")}
        memory = self.core({k: kept[k] for k in self.core.keys}, kept["stoch"].flatten(1), moved)
        hidden = F.linear(memory["deter"], self.seen.weight[:, : self.deter]) + embedded
        stats = self.latent.stats(self.posterior_out(self.activation(hidden)))
        return self._state(memory, stats, noise)

    def _state(self, memory: Memory, stats: Stats, noise: Tensor | None) -> State:
        stoch = self.latent.mode(stats) if noise is None else self.latent.sample(stats, noise)
        return State({**memory, "stoch": stoch, **stats})

    def _noise(self, lead: tuple[int, ...], device: torch.device, rand: Rand | None) -> Tensor:
        return latent_noise(self.latent, lead, device, rand)


def _forget(value: Tensor, rows: Tensor) -> Tensor:
    """Zeros in the rows (B,)."""
    return value.masked_fill(rows.view(-1, *[1] * (value.ndim - 1)), 0)


def features(state: State) -> Tensor:
    """What heads see of a State: [deter, stoch] (..., D + flat latents)."""
    deter = state["deter"]
    return torch.cat([deter, state["stoch"].flatten(deter.ndim - 1)], -1)
