"""The transformer over frames, actions and changes; frames follow from its tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import ActionConditioner
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.cache import KeyValueCache
from worldflux.nn.pixels import unit
from worldflux.nn.symlog import symexp
from worldflux.nn.transformer import CausalTransformer
from worldflux.specs import TensorSpec
from worldflux_iris.delta_iris.config import ModelConfig
from worldflux_iris.delta_iris.networks import FrameEncoder, flat
from worldflux_iris.delta_iris.tokenizer import DeltaTokenizer
from worldflux_iris.dynamics import TokenDynamics
from worldflux_iris.heads import head, initialised, own_episode
from worldflux_iris.sampling import sampled

BINS, LIMIT, SIGNS, ENDS = 255, 20.0, 3, 2


class OneHot(ActionConditioner):
    """Choices (B,), or weights of all of them (B, A), as weights (B, A)."""

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__()
        self.size = spec.size

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        assert action is not None
        if action.is_floating_point():
            return action
        return nn.functional.one_hot(action.long(), self.size).float()


class DeltaTransformer(TokenDynamics):
    """A block is [frame, action, K tokens of the change]; the frame follows from the tokens.

    The State holds the frame itself, as bytes. Its caches lack the frame's token and the last one
    of the change that led to it: those go in together with the action. Where at most a block is
    left of the window, a row begins anew with its frame.
    """

    bins: Tensor

    def __init__(self, c: ModelConfig, image: TensorSpec, choices: int) -> None:
        super().__init__()
        self.tokens, self.vocab, self.image = c.tokens, c.vocab, tuple(image.shape)
        self.two_hot = c.two_hot_rewards
        self.tokenizer = DeltaTokenizer(c, image, choices)
        self.context = FrameEncoder(c.context, image.shape[0])
        size = c.context.latent * (image.shape[1] // c.context.downscale) ** 2
        self.context_fit = nn.Identity() if size == c.dim else nn.Linear(size, c.dim)
        self.context_norm = nn.LayerNorm(c.dim)
        self.actions, self.words = nn.Embedding(choices, c.dim), nn.Embedding(c.vocab, c.dim)
        window = c.max_blocks * (c.tokens + 2)
        self.transformer = CausalTransformer(c.layers, c.dim, c.heads, window, c.dropout)
        self.rewards = BINS if c.two_hot_rewards else SIGNS
        self.token, self.reward, self.end = (head(c.dim, n) for n in (c.vocab, self.rewards, ENDS))
        self.register_buffer("bins", torch.linspace(-LIMIT, LIMIT, BINS), persistent=False)
        for part in self.predictors():
            part.apply(initialised)

    def predictors(self) -> tuple[nn.Module, ...]:
        """The parts that phase "world_model" trains: all but the tokenizer."""
        return (
            self.context, self.context_fit, self.context_norm, self.actions, self.words,
            self.transformer, self.token, self.reward, self.end,
        )  # fmt: skip

    def initial(self, batch_size: int, device: torch.device) -> State:
        like = self.words.weight.new_zeros(0, device=device)
        frame = torch.zeros(batch_size, *self.image, dtype=torch.uint8, device=device)
        cache = self.transformer.cache(batch_size, like)
        steps = torch.zeros(batch_size, dtype=torch.int64, device=device)
        nothing = self._nothing(batch_size, device)
        return State({"frame": frame, "steps": steps, **nothing, **cache.tensors()})

    def _nothing(self, rows: int, device: torch.device) -> dict[str, Tensor]:
        return {
            "tokens": torch.zeros(rows, self.tokens, dtype=torch.int64, device=device),
            "reward": torch.zeros(rows, device=device),
            "ended": torch.zeros(rows, device=device),
            "reward_logits": torch.zeros(rows, self.rewards, device=device),
            "end_logits": torch.zeros(rows, ENDS, device=device),
        }

    def frame_token(self, frame: Tensor) -> Tensor:
        """Frames (N, C, Y, X), of bytes or in [0, 1], as tokens (N, D).

        The published sizes fit D as they are; others go through a linear layer.
        """
        seen = self.context(self.tokenizer.pixels(frame))
        found: Tensor = self.context_norm(self.context_fit(flat(seen)))
        return found

    def reward_mean(self, logits: Tensor) -> Tensor:
        """Expected rewards (...) of logits (..., R)."""
        chances = logits.float().softmax(-1)
        if self.two_hot:
            return symexp((chances * self.bins).sum(-1))
        return chances[..., 2] - chances[..., 0]

    def advance(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
        own: bool = True,
    ) -> State:
        """`transition` of State (B, ...) by action (B, A); with `own` its caches are written to.

        Draws: "reward_noise" (B, 3) unless rewards are two-hot, "end_noise" (B, 2),
        "tokens_noise" (B, K, V), or the choices themselves: "reward", "end" (B,), "tokens" (B, K).
        """
        rand = rand or Rand()
        cache = self._with_room(state, own)
        cache, out = self._acted(cache, state, action)
        noise, forced = self._choices(action, rand, deterministic)
        found = self._predicted(out)
        if self.two_hot:
            reward = self.reward_mean(found["reward_logits"])
        else:
            reward = sampled(found["reward_logits"], "reward", rand, deterministic) - 1.0
        end = sampled(found["end_logits"], "end", rand, deterministic)
        tokens = self._drawn(cache, out, noise, forced)
        with torch.no_grad():
            frame = self.tokenizer.shown(unit(state["frame"]), action, tokens)
        found |= {
            "frame": frame, "tokens": tokens, "reward": reward, "ended": end.float(),
            "steps": state["steps"] + 1,
        }  # fmt: skip
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
        frame, rows = features["frame"], len(is_first)
        fresh = is_first | (state["steps"] == 0)
        found = self._nothing(rows, frame.device)
        if fresh.is_meta or bool(fresh.all()):
            cache = KeyValueCache.of(state.tensors).emptied(torch.ones_like(fresh))
        else:
            cache, out = self._acted(self._with_room(state, own=False), state, action)
            with torch.no_grad():
                before = unit(state["frame"])
                tokens = self.tokenizer.tokens(before, action, unit(frame))
            if self.tokens > 1:
                self.transformer(self.words(tokens[:, :-1]), cache)
            found |= {"tokens": tokens, **self._predicted(out)}
            found = {
                k: x.masked_fill(fresh.reshape(-1, *[1] * (x.ndim - 1)), 0)
                for k, x in found.items()
            }
            if bool(fresh.any()):
                cache = cache.emptied(fresh)
        steps = state["steps"].masked_fill(fresh, 0) + 1
        return State({"frame": frame, "steps": steps, **found, **cache.tensors()}, state.meta)

    def sequence(self, frames: Tensor, action: Tensor, tokens: Tensor, is_first: Tensor) -> Tensor:
        """Whole sequences: frames (B, T, C, Y, X), actions (B, T, A), tokens (B, T, K).

        Outputs (B, T, K + 2, D): the frame's, the action's, the tokens'. Steps of other episodes
        (`is_first` (B, T) tells where one begins) are not seen.
        """
        seen = self.frame_token(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        parts = [seen[:, :, None], (action @ self.actions.weight)[:, :, None], self.words(tokens)]
        x = torch.cat([part.float() for part in parts], 2)
        out = self.transformer(x.flatten(1, 2), mask=own_episode(is_first, self.tokens + 2))
        found: Tensor = out.unflatten(1, x.shape[1:3])
        return found

    def _predicted(self, out: Tensor) -> dict[str, Tensor]:
        return {"reward_logits": self.reward(out).float(), "end_logits": self.end(out).float()}

    def _acted(
        self, cache: KeyValueCache, state: State, action: Tensor
    ) -> tuple[KeyValueCache, Tensor]:
        """The caches with frame and action put in, and what the action says (B, D)."""
        frame = self.frame_token(state["frame"])
        acted = (action @ self.actions.weight).to(frame.dtype)
        begun = cache.length > 0
        short = torch.stack([frame, acted], 1)
        if cache.length.is_meta or not bool(begun.any()):
            return cache, self.transformer(short, cache)[:, -1]
        last = self.words(state["tokens"][:, -1]).to(frame.dtype)
        other = None if bool(begun.all()) else cache.emptied(torch.ones_like(begun))
        out = self.transformer(torch.cat([last[:, None], short], 1), cache)[:, -1]
        if other is None:
            return cache, out
        anew = self.transformer(short, other)[:, -1]
        return cache.where(begun, other), torch.where(begun[:, None], out, anew)

    def _with_room(self, state: State, own: bool) -> KeyValueCache:
        """The State's caches, emptied where at most a block of the window is left."""
        cache = KeyValueCache.of(state.tensors, own)
        full = cache.length >= cache.window - (self.tokens + 2)
        if cache.length.is_meta or not bool(full.any()):
            return cache
        return cache.emptied(full)
