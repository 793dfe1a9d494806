"""The recurrent state-space model: block-GRU core, prior and posterior over categorical latents."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import Draws, DynamicsModel
from worldflux.core.state import State
from worldflux.nn.norms import RMSNormSiLU
from worldflux_dreamer.config import ModelConfig
from worldflux_dreamer.layers import MLP, BlockLinear, Dense, Linear
from worldflux_dreamer.losses import mixed_probs, sample_index, straight_through


class Core(nn.Module):
    """h' = core(h, z, a): three projections, a block-diagonal layer, gates (rssm.py:_core)."""

    def __init__(self, config: ModelConfig, action_size: int) -> None:
        super().__init__()
        d, h, g, eps = config.deter, config.hidden, config.blocks, config.norm_eps
        self.blocks = g
        self.from_deter = Dense(d, h, eps)
        self.from_stoch = Dense(config.stoch * config.classes, h, eps)
        self.from_action = Dense(action_size, h, eps)
        widths = [d + 3 * h * g, *[d] * config.dyn_layers]
        self.hidden = nn.ModuleList(BlockLinear(a, b, g) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(RMSNormSiLU(d, eps) for _ in self.hidden)
        self.gates = BlockLinear(widths[-1], 3 * d, g)

    def action_input(self, action: Tensor) -> Tensor:
        """What an action (..., A) contributes (..., hidden); does not depend on the state."""
        action = action / action.detach().abs().clamp(min=1)
        hidden: Tensor = self.from_action(action)
        return hidden

    def forward(self, deter: Tensor, stoch: Tensor, action_input: Tensor) -> Tensor:
        # deter (B, D), stoch (B, S * K), action_input (B, hidden) -> (B, D)
        g = self.blocks
        shared = torch.cat([self.from_deter(deter), self.from_stoch(stoch), action_input], -1)
        own = deter.to(shared.dtype).unflatten(-1, (g, -1))  # (B, G, D/G)
        x = torch.cat([own, shared.unsqueeze(1).expand(-1, g, -1)], -1).flatten(1)
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = norm(layer(x))
        return gru_update(self.gates(x).unflatten(-1, (g, -1)), deter)


def gru_update(gates: Tensor, deter: Tensor) -> Tensor:
    """Gates (B, G, 3 D/G), split inside each block into reset, candidate, update; deter (B, D)."""
    reset, cand, update = gates.float().chunk(3, -1)
    cand = torch.tanh(torch.sigmoid(reset) * cand).flatten(1)
    update = torch.sigmoid(update - 1).flatten(1)
    return torch.lerp(deter.float(), cand, update)


class RSSM(DynamicsModel):
    """State: "deter" (B, D) and "stoch" (B, S, K) one-hot; "logit" of what it was drawn from.

    Draws: "stoch", uniform noise (B, S), or, if integers, the classes themselves.
    """

    recurrent = True

    def __init__(self, config: ModelConfig, action_size: int, embed_size: int) -> None:
        super().__init__()
        self.config = config
        h, eps, size = config.hidden, config.norm_eps, config.stoch * config.classes
        self.core = Core(config, action_size)
        self.prior = MLP(config.deter, h, config.image_layers, eps)
        self.prior_logit = Linear(h, size)
        self.posterior = MLP(config.deter + embed_size, h, config.obs_layers, eps)
        self.posterior_logit = Linear(h, size)

    def noise(
        self,
        lead: tuple[int, ...],
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        return {"stoch": torch.rand(*lead, self.config.stoch, device=device, generator=generator)}

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

    def posterior_logits(self, deter: Tensor, embed: Tensor) -> Tensor:
        """Raw logits (..., S, K) given what was observed; input order [deter, tokens]."""
        x = self.posterior(torch.cat([deter, embed.to(deter.dtype)], -1))
        return self._logits(self.posterior_logit(x))

    def transition(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        deter = self.core(
            state["deter"], state["stoch"].flatten(-2), self.core.action_input(action)
        )
        logit = self.prior_logits(deter)
        return self._sampled(deter, logit, deterministic, draws, generator)

    def observe(
        self,
        state: State,
        action: Tensor,
        features: State,
        is_first: Tensor,
        *,
        deterministic: bool = False,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        first = is_first[:, None]
        deter = self.core(
            state["deter"].masked_fill(first, 0),
            state["stoch"].flatten(-2).masked_fill(first, 0),
            self.core.action_input(action.masked_fill(first, 0)),
        )
        logit = self.posterior_logits(deter, features["embed"])
        return self._sampled(deter, logit, deterministic, draws, generator)

    def _logits(self, flat: Tensor) -> Tensor:
        return flat.float().unflatten(-1, (self.config.stoch, self.config.classes))

    def _sampled(
        self,
        deter: Tensor,
        logit: Tensor,
        deterministic: bool,
        draws: Draws | None,
        generator: torch.Generator | None,
    ) -> State:
        probs = mixed_probs(logit, self.config.unimix)
        if deterministic:
            index = probs.argmax(-1)
        else:
            draws = draws or self.noise((len(deter),), deter.device, generator)
            given = draws["stoch"]
            index = sample_index(probs, given) if given.is_floating_point() else given.long()
        return State({"deter": deter, "stoch": straight_through(index, probs), "logit": logit})
