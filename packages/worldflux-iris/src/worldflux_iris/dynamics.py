"""What both transformers over tokens share: how a step's tokens are drawn, one after another."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import DynamicsModel
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.cache import KeyValueCache
from worldflux.nn.transformer import CausalTransformer
from worldflux_iris.sampling import noise_for
from worldflux_iris.token_maps import drawn_by_rows


class TokenDynamics(DynamicsModel):
    """A causal transformer whose steps end with `tokens` tokens of a code-book of `vocab` words."""

    recurrent = True
    tokens: int
    vocab: int
    words: nn.Embedding
    transformer: CausalTransformer
    token: nn.Module
    """From outputs (..., D) to logits (..., V) of the next token."""

    def transition(
        self, state: State, action: Tensor, *, deterministic: bool = False, rand: Rand | None = None
    ) -> State:
        return self.advance(state, action, deterministic=deterministic, rand=rand, own=False)

    def stages(
        self, state: State, action: Tensor, *, rand: Rand | None = None
    ) -> Mapping[str, Tensor]:
        """The tokens of a transition as a map: "tokens" (S, B, 3, side, side), row by row."""
        after = self.transition(state, action, rand=rand)
        return {"tokens": drawn_by_rows(state["tokens"], after["tokens"])}

    @abstractmethod
    def advance(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
        own: bool = True,
    ) -> State:
        """`transition` of State (B, ...) by action (B, ...); with `own` its caches are written."""

    def _choices(
        self, action: Tensor, rand: Rand, deterministic: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Noise (B, K, V) to draw tokens with, or tokens (B, K) that are given."""
        forced = None if deterministic else rand.given("tokens")
        if forced is not None:
            return None, forced
        shape = (len(action), self.tokens, self.vocab)
        return noise_for(shape, "tokens", rand, action, deterministic), None

    def _drawn(
        self, cache: KeyValueCache, out: Tensor, noise: Tensor | None, forced: Tensor | None
    ) -> Tensor:
        """The tokens (B, K), each after the ones before it; `out` (B, D) is before the first."""
        tokens: list[Tensor] = []
        for i in range(self.tokens):
            if i:
                out = self.transformer(self.words(tokens[-1])[:, None], cache)[:, 0]
            logits = self.token(out).float()
            chosen = (logits if noise is None else logits + noise[:, i]).argmax(-1)
            tokens.append(chosen if forced is None else forced[:, i].long().to(out.device))
        return torch.stack(tokens, 1)
