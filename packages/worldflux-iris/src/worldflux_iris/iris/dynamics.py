"""The transformer over tokens: a frame's N tokens and an action are a block of the sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import ActionConditioner
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.cache import KeyValueCache
from worldflux.nn.transformer import CausalTransformer
from worldflux.specs import TensorSpec
from worldflux_iris.dynamics import TokenDynamics
from worldflux_iris.heads import head, initialised, own_episode
from worldflux_iris.iris.config import ModelConfig
from worldflux_iris.sampling import sampled

SIGNS, ENDS = 3, 2


class ActionTokens(ActionConditioner):
    """Choices (B,), or weights of all of them (B, A), to tokens (B, D)."""

    def __init__(self, spec: TensorSpec, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(spec.size, dim)

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        assert action is not None
        if action.is_floating_point():
            return action @ self.table.weight
        found: Tensor = self.table(action)
        return found


class TokenTransformer(TokenDynamics):
    """Predicts the reward's sign, the end and the next frame's tokens, one token after another.

    Its caches hold every token but the frame's last: that one goes in together with the action
    (one pass less). Where a step does not fit into the window, a row begins anew with its frame.
    """

    def __init__(self, c: ModelConfig, tokens: int) -> None:
        super().__init__()
        self.tokens, self.vocab = tokens, c.vocab
        self.words = nn.Embedding(c.vocab, c.dim)
        window = c.max_blocks * (tokens + 1)
        self.transformer = CausalTransformer(c.layers, c.dim, c.heads, window, c.dropout)
        self.token, self.sign, self.end = (head(c.dim, n) for n in (c.vocab, SIGNS, ENDS))
        self.apply(initialised)

    def initial(self, batch_size: int, device: torch.device) -> State:
        like = self.words.weight.new_zeros(0, device=device)
        cache = self.transformer.cache(batch_size, like)
        return State({**self._nothing(batch_size, device), **cache.tensors()})

    def _nothing(self, rows: int, device: torch.device) -> dict[str, Tensor]:
        """The tensors of a State before anything was seen or predicted."""
        return {
            "tokens": torch.zeros(rows, self.tokens, dtype=torch.int64, device=device),
            "reward": torch.zeros(rows, device=device),
            "ended": torch.zeros(rows, device=device),
            "reward_logits": torch.zeros(rows, SIGNS, device=device),
            "end_logits": torch.zeros(rows, ENDS, device=device),
        }

    def advance(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
        own: bool = True,
    ) -> State:
        """`transition` of State (B, ...) by action (B, D); with `own` its caches are written to.

        Draws: "reward_noise" (B, 3), "end_noise" (B, 2), "tokens_noise" (B, N, V), or the choices
        themselves: "reward" and "end" (B,), "tokens" (B, N).
        """
        rand = rand or Rand()
        cache = self._with_room(state, own)
        out = self._acted(cache, state, action)
        noise, forced = self._choices(action, rand, deterministic)
        found = self._predicted(out)
        sign = sampled(found["reward_logits"], "reward", rand, deterministic)
        end = sampled(found["end_logits"], "end", rand, deterministic)
        tokens = self._drawn(cache, out, noise, forced)
        found |= {"tokens": tokens, "reward": sign - 1.0, "ended": end.float()}
        return State({**found, **cache.tensors()}, state.meta)

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
        tokens = features["tokens"]
        cache, found = self._with_room(state, own=False), self._nothing(len(tokens), tokens.device)
        if not bool(is_first.all()):
            predicted = self._predicted(self._acted(cache, state, action))
            for name, value in predicted.items():
                found[name] = value.masked_fill(is_first[:, None], 0)
        if bool(is_first.any()):
            cache = cache.emptied(is_first)
        self._feed(cache, tokens[:, :-1])
        return State({**found, "tokens": tokens, **cache.tensors()}, state.meta)

    def sequence(self, tokens: Tensor, action: Tensor, is_first: Tensor) -> Tensor:
        """Whole sequences at once: tokens (B, T, N) and actions (B, T, D) to (B, T, N + 1, D).

        A block's last output is the action's. Steps of other episodes (`is_first` (B, T) tells
        where one begins) are not seen.
        """
        x = torch.cat([self.words(tokens), action[:, :, None]], 2)  # (B, T, N + 1, D)
        out = self.transformer(x.flatten(1, 2), mask=own_episode(is_first, self.tokens + 1))
        found: Tensor = out.unflatten(1, x.shape[1:3])
        return found

    def ahead(self, out: Tensor) -> Tensor:
        """Logits (B, T, N, V) of the token after each but the last of a block, the action first.

        Those at [:, t, 0] are of the first token of step t + 1, the others of step t's own tokens
        1 to N - 1, from outputs (B, T, N + 1, D) of `sequence`.
        """
        found: Tensor = self.token(torch.cat([out[:, :, -1:], out[:, :, :-2]], 2))
        return found.float()

    def _predicted(self, out: Tensor) -> dict[str, Tensor]:
        return {"reward_logits": self.sign(out).float(), "end_logits": self.end(out).float()}

    def _acted(self, cache: KeyValueCache, state: State, action: Tensor) -> Tensor:
        """What the action's token (B, D) says, put behind the frame's last token: (B, D)."""
        last = self.words(state["tokens"][:, -1])
        found: Tensor = self.transformer(torch.stack([last, action.to(last.dtype)], 1), cache)[:, 1]
        return found

    def _feed(self, cache: KeyValueCache, tokens: Tensor) -> None:
        if tokens.shape[1]:
            self.transformer(self.words(tokens), cache)

    def _with_room(self, state: State, own: bool) -> KeyValueCache:
        """The State's caches with room for a step."""
        cache = KeyValueCache.of(state.tensors, own)
        full = cache.length + 1 + self.tokens + 1 > cache.window
        if cache.length.is_meta or not bool(full.any()):
            return cache
        again = cache.emptied(torch.ones_like(full))
        kept = None if bool(full.all()) else KeyValueCache.of(cache.tensors())
        self._feed(again, state["tokens"][:, :-1])
        return again if kept is None else again.where(full, kept)
