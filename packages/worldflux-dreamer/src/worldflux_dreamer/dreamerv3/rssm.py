"""The recurrent state-space model: block-GRU core, prior and posterior over categorical latents."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux.core.interfaces import DynamicsModel
from worldflux.core.rand import Rand, uniform
from worldflux.core.state import State
from worldflux_dreamer.block_gru import BlockGRU
from worldflux_dreamer.categorical import sample_index, straight_through
from worldflux_dreamer.dreamerv3.config import ModelConfig
from worldflux_dreamer.dreamerv3.losses import mixed_probs
from worldflux_dreamer.layers import MLP, Linear
from worldflux_dreamer.unroll import Rows, Steps, linear


class RSSM(DynamicsModel):
    """State: "deter" (B, D), "stoch" (B, S, K) one-hot, and the logits (B, S, K) it was drawn from.

    Those are "prior_logits" after `transition` and "posterior_logits" after `observe`. Sequences
    hold both, and "embed", the features they were given.

    Draws: "stoch", uniform (B, S), or (B, T, S) for a sequence. Forced integers are the classes.
    """

    recurrent = True

    def __init__(self, config: ModelConfig, action_size: int, embed_size: int) -> None:
        super().__init__()
        self.config = config
        h, eps, size = config.hidden, config.norm_eps, config.stoch * config.classes
        self.core = BlockGRU(
            config.deter, h, size, action_size, config.blocks, config.dyn_layers, eps
        )
        self.prior = MLP(config.deter, h, config.image_layers, eps)
        self.prior_logit = Linear(h, size)
        self.posterior = MLP(config.deter + embed_size, h, config.obs_layers, eps)
        self.posterior_logit = Linear(h, size)

    def initial(self, batch_size: int, device: torch.device) -> State:
        c = self.config
        return State(
            {
                "deter": torch.zeros(batch_size, c.deter, device=device),
                "stoch": torch.zeros(batch_size, c.stoch, c.classes, device=device),
            }
        )

    def prior_logits(self, deter: Tensor) -> Tensor:
        """Raw logits (..., S, K) predicted from the deterministic state alone."""
        return self._logits(self.prior_logit(self.prior(deter)))

    def transition(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        stoch, action = state["stoch"].flatten(-2), self.core.action_input(action)
        deter = self.core(state["deter"], stoch, action, Steps())
        noise = None if deterministic else self._noise((len(deter),), deter.device, rand)
        logits = self.prior_logits(deter)
        stoch = self._sampled(logits, noise)
        return State({"deter": deter, "stoch": stoch, "prior_logits": logits})

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
        action = self.core.action_input(action.masked_fill(is_first[:, None], 0))
        posterior = _Posterior(self, features["embed"])
        noise = None if deterministic else self._noise(is_first.shape, is_first.device, rand)
        return self._observe(state, action, posterior, is_first, noise, 0)

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
        actions = self.core.action_input(action.masked_fill(is_first[..., None], 0)).unbind(1)
        posterior = _Posterior(self, features["embed"].transpose(0, 1))
        noise = self._noise(is_first.shape, is_first.device, rand).unbind(1)
        states = []
        for t, first in enumerate(is_first.unbind(1)):
            state = self._observe(state, actions[t], posterior, first, noise[t], t)
            states.append(state)
        whole = State.stack(states)
        prior = self.prior_logits(whole["deter"])
        return whole.with_({"prior_logits": prior, "embed": features["embed"]})

    def _observe(
        self,
        state: State,
        action: Tensor,
        posterior: _Posterior,
        is_first: Tensor,
        noise: Tensor | None,
        step: int,
    ) -> State:
        first = is_first[:, None]
        deter = state["deter"].masked_fill(first, 0)
        stoch = state["stoch"].flatten(-2).masked_fill(first, 0)
        deter = self.core(deter, stoch, action, posterior.steps)
        logits = self._logits(posterior(deter, step))
        stoch = self._sampled(logits, noise)
        return State({"deter": deter, "stoch": stoch, "posterior_logits": logits})

    def _noise(self, lead: tuple[int, ...], device: torch.device, rand: Rand | None) -> Tensor:
        rand = rand or Rand()
        return rand.draw("stoch", (*lead, self.config.stoch), uniform, device=device)

    def _logits(self, flat: Tensor) -> Tensor:
        return flat.float().unflatten(-1, (self.config.stoch, self.config.classes))

    def _sampled(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """One-hots (B, S, K): sampled by `noise` (B, S), or its classes; without, the likeliest."""
        probs = mixed_probs(logits, self.config.unimix)
        if noise is None:
            index = probs.argmax(-1)
        else:
            index = sample_index(probs, noise) if noise.is_floating_point() else noise.long()
        return straight_through(index, probs)


class _Posterior:
    """Posterior layers inside one loop: input [deter, tokens], the tokens' part done beforehand."""

    def __init__(self, rssm: RSSM, embed: Tensor) -> None:
        # embed (B, E), or (T, B, E) for a sequence
        self.steps, self.rssm = Steps(), rssm
        first, size = rssm.posterior.layers[0].linear, rssm.config.deter
        seen = linear(embed.reshape(-1, embed.shape[-1]), first.kernel[size:], first.bias)
        self.seen = seen.view(-1, embed.shape[-2], seen.shape[-1]).unbind(0)  # T of (B, hidden)
        self.deter_rows = Rows(first.kernel[:size])

    def __call__(self, deter: Tensor, step: int) -> Tensor:
        rssm = self.rssm
        x = rssm.posterior.layers[0].norm(self.steps(self.deter_rows, deter) + self.seen[step])
        for layer in rssm.posterior.layers[1:]:
            x = layer.step(x, self.steps)
        return self.steps(rssm.posterior_logit, x)
