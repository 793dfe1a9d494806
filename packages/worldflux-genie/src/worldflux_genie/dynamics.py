"""The dynamics: the tokens and latent actions so far to the tokens of the next frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import DynamicsModel
from worldflux.core.rand import Rand, gumbel
from worldflux.core.state import State
from worldflux_genie import history, maskgit
from worldflux_genie.config import ModelConfig
from worldflux_genie.past import Past
from worldflux_genie.tokenizer import FRAMES, SEEN
from worldflux_genie.transformer import STTransformer

KEYS, VALUES = "cache.keys", "cache.values"
"""Keys and values over time of the frames in a State, (B, L, N, heads, T, d)."""
_HISTORY = ("tokens", "actions", FRAMES, SEEN)


class TokenDynamics(DynamicsModel):
    """An ST-transformer over tokens (B, T, N); a State holds the last `frames` frames of each row.

    `actions[t]` (B, T, L) is the code of the action that led to frame t; the first frame of an
    episode has none, which is not the same as a code of zeros.
    """

    recurrent = True

    def __init__(
        self, config: ModelConfig, tokens: int, codes: int, action: int, image: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.config, self.frames = config.dynamics, config.frames
        self.tokens, self.action, self.image = tokens, action, image
        c, dim = config.dynamics, config.dynamics.transformer.dim
        self.causal, self.prepend = c.kind == "causal", c.actions == "prepend"
        self.words = nn.Embedding(codes, dim)
        self.action_up = nn.Linear(action, dim)
        self.hidden = None if self.causal else nn.Parameter(torch.randn(dim) * 0.02)
        self.net = STTransformer(
            c.transformer, dim, codes, config.frames, tokens + self.prepend,
            causal_space=self.causal,
        )  # fmt: skip

    # Logits

    def inputs(
        self, tokens: Tensor, action: Tensor, acted: Tensor, hidden: Tensor | None = None
    ) -> Tensor:
        """What the transformer sees, (B, T, N or N + 1, D).

        Of tokens (B, T, N), those `hidden` (B, T, N) replaced, and actions (B, T, L), where there
        were any: `acted` (B, T).
        """
        x = self.words(tokens)  # (B, T, N, D)
        if hidden is not None and self.hidden is not None:
            x = torch.where(hidden[..., None], self.hidden.to(x), x)
        push = self.action_up(action) * acted[..., None].to(x)  # (B, T, D)
        if self.prepend:
            return torch.cat([push[:, :, None].to(x), x], 2)
        return x + push[:, :, None]

    def outputs(self, x: Tensor) -> Tensor:
        """The logits (B, T, N, V) among the transformer's outputs (B, T, N or N + 1, V).

        A prepended action has the first output. The causal kind reads the logits of a token where
        the one before it went in, so that the last output is of no use.
        """
        if not self.prepend:
            return x
        return x[:, :, :-1] if self.causal else x[:, :, 1:]

    def logits(
        self, tokens: Tensor, action: Tensor, is_first: Tensor, hidden: Tensor | None = None
    ) -> Tensor:
        """Logits (B, T, N, V) of the tokens of sequences (B, T, N), given those not hidden."""
        place, mask = history.places(is_first)
        acted = ~is_first
        acted[:, 0] = False
        return self.outputs(self.net(self.inputs(tokens, action, acted, hidden), mask, place))

    # States

    def initial(self, batch_size: int, device: torch.device) -> State:
        shape = (batch_size, self.frames)
        tokens = torch.zeros(*shape, self.tokens, dtype=torch.int64, device=device)
        actions = torch.zeros(*shape, self.action, device=device)
        return State({"tokens": tokens, "actions": actions, "length": tokens[:, 0, 0].clone()})

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
        frame, columns, length = features["frame"], _columns(state), state["length"]
        if FRAMES not in columns:
            columns[FRAMES] = frame.new_zeros(len(length), self.frames, *frame.shape[1:])
            columns[SEEN] = columns["tokens"][:, :, 0].bool() & False
        columns, length = history.cleared(columns, length, is_first)
        columns, length = history.made_room(columns, length)
        new = {"tokens": features["token"], "actions": self._taken(action, length), FRAMES: frame}
        new[SEEN] = torch.ones_like(is_first)
        found = {name: history.put(columns[name], length, value) for name, value in new.items()}
        return State({**found, "length": length + 1}, dict(state.meta))

    def transition(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        columns, length = history.made_room(_columns(state), state["length"])
        kept = KEYS in state and length is state["length"]  # a frame that went takes its place away
        if kept:
            past = Past.unpacked(state[KEYS], state[VALUES], length)
        else:
            past = self._past(columns, length)
        taken = self._taken(action, length)

        def logits(tokens: Tensor, hidden: Tensor | None) -> Tensor:
            x = self.inputs(
                tokens[:, None], taken[:, None], length[:, None] > 0,
                None if hidden is None else hidden[:, None],
            )  # fmt: skip
            return self.outputs(self.net.after(x, past))[:, 0]

        draw = self._in_order if self.causal else self._in_rounds
        tokens = draw(logits, len(length), length.device, None if deterministic else rand or Rand())
        logits(tokens, None)  # puts the finished frame's keys and values into `past`
        columns["tokens"] = history.put(columns["tokens"], length, tokens)
        columns["actions"] = history.put(columns["actions"], length, taken)
        stored = past.packed(self.frames)
        caches = {KEYS: stored["keys"], VALUES: stored["values"]}
        return State({**columns, "length": length + 1, **caches}, dict(state.meta))

    def _taken(self, action: Tensor, length: Tensor) -> Tensor:
        """Actions (B, L) as remembered: nothing led to the first frame."""
        return torch.where(length[:, None] > 0, action, torch.zeros_like(action))

    def _past(self, columns: history.Columns, length: Tensor) -> Past:
        count = history.longest(length, self.frames)
        tokens, actions = columns["tokens"][:, :count], columns["actions"][:, :count]
        acted = torch.arange(count, device=length.device).expand(len(length), -1) > 0
        return self.net.past(self.inputs(tokens, actions, acted), length)

    # Sampling: what is asked for is (tokens (B, N), hidden (B, N)) -> logits (B, N, V)

    def _in_rounds(
        self,
        logits: Callable[[Tensor, Tensor | None], Tensor],
        rows: int,
        device: torch.device,
        rand: Rand | None,
    ) -> Tensor:
        """A frame's tokens (B, N) by MaskGIT. Draws: "round<k>/tokens" (B, N, V)."""
        tokens = torch.zeros(rows, self.tokens, dtype=torch.int64, device=device)
        hidden = torch.ones_like(tokens, dtype=torch.bool)
        for now in maskgit.rounds(self.config, self.tokens):
            found = logits(tokens, hidden)
            noise = None
            if rand is not None:
                named = rand.under(f"round{now.number}/")
                noise = named.draw("tokens", tuple(found.shape), gumbel, device=device)
            tokens, hidden, _ = maskgit.draw(found, tokens, hidden, now, noise)
        return tokens

    def _in_order(
        self,
        logits: Callable[[Tensor, Tensor | None], Tensor],
        rows: int,
        device: torch.device,
        rand: Rand | None,
    ) -> Tensor:
        """A frame's tokens (B, N), one after another. Draw: "tokens" (B, N, V)."""
        tokens = torch.zeros(rows, self.tokens, dtype=torch.int64, device=device)
        noise = None
        for n in range(self.tokens):
            found = logits(tokens, None).float() / self.config.temperature
            if rand is not None and noise is None:
                noise = rand.draw("tokens", tuple(found.shape), gumbel, device=device)
            now = found[:, n] if noise is None else found[:, n] + noise[:, n]
            tokens[:, n] = now.argmax(-1)
        return tokens


def _columns(state: State) -> history.Columns:
    """What a State remembers frame by frame."""
    return {name: state[name] for name in _HISTORY if name in state}
