"""LeWorldModel's dynamics: a window of embeddings and actions, and the predictor over it."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux.core.interfaces import DynamicsModel
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux_jepa import window
from worldflux_jepa.lewm.config import ModelConfig
from worldflux_jepa.lewm.predictor import Predictor
from worldflux_jepa.projected import Projector
from worldflux_jepa.vit import Past


class WindowDynamics(DynamicsModel):
    """Keeps the newest W embeddings and the actions taken at them, the oldest first.

    State: `rep` (B, D), `history` (B, W, D), `blocks` (B, W, D), of which the first `count` (B,)
    are there; the last of these has no action yet.
    """

    recurrent = True

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.window, self.width = config.history, width
        self.predictor = Predictor(config.predictor, config.history, width)
        self.projector = Projector(width, config.projector, width)

    def initial(self, batch_size: int, device: torch.device) -> State:
        """An empty window."""
        sizes = {"rep": (self.width,)}
        return window.empty(batch_size, self.window, sizes, self.width, device)

    def transition(
        self, state: State, action: Tensor, *, deterministic: bool = False, rand: Rand | None = None
    ) -> State:
        """The predicted State after conditioned actions (B, D)."""
        acted = window.acted(state, action)
        guess = self.predictor(acted["history"], acted["blocks"])  # (B, W, D)
        last = (acted["count"] - 1).clamp(min=0)
        rows = torch.arange(len(last), device=last.device)
        return window.pushed(acted, {"rep": self.projector(guess[rows, last])})

    def observe(
        self, state: State, action: Tensor, features: State, is_first: Tensor,
        *, deterministic: bool = False, rand: Rand | None = None,
    ) -> State:  # fmt: skip
        """The window with the observed embedding (B, D) after `action` (B, D)."""
        state = self.initial(len(is_first), is_first.device).where(is_first, state)
        return window.pushed(window.acted(state, action), {"rep": features["rep"]})

    def sequence(
        self, rep: Tensor, action: Tensor, is_first: Tensor, rand: Rand | None = None
    ) -> Tensor:
        """Predictions (B, N, D) of what follows embeddings (B, N, D), in one pass.

        N is at most W, or any with W = 1. A token sees the earlier ones of its episode; positions
        begin anew where one begins.
        """
        if self.window == 1:
            each = (part.flatten(0, 1)[:, None] for part in (rep, action))
            alone = self.projector(self.predictor(*each, rand=rand))
            return alone[:, 0].unflatten(0, rep.shape[:2])
        assert rep.shape[1] <= self.window, (rep.shape, self.window)
        mask, place = window.episode_mask(is_first)
        return self.projector(self.predictor(rep, action, place, mask, rand))

    def paths(self, state: State, action: Tensor) -> Tensor:
        """Predicted embeddings (B, N, H, D) along N plans (B, N, H, D) of conditioned actions.

        All rows have windows of one size. What the plans share is computed once for a row; keys
        and values are kept as long as the window only grows, and a modulation for each action.
        """
        rows, plans, horizon = action.shape[:3]
        held = int(state["count"][0])
        flat = action.flatten(0, 1)  # (B * N, H, D)
        how = self.predictor.modulations(flat)  # each (B * N, H, 6 D')
        before = self.predictor.modulations(state["blocks"][:, : held - 1])  # (B, held - 1, 6 D')
        frames = [f.repeat_interleave(plans, 0) for f in state["history"][:, :held].unbind(1)]
        past = self._shared(state["history"][:, : held - 1], before)
        old = [m.repeat_interleave(plans, 0) for m in before]  # for when the window slides
        found: list[Tensor] = []
        for h in range(horizon):
            count = held + h
            if count <= self.window:
                own = [m[:, h : h + 1] for m in how]
                guess, past = self.predictor.step(frames[-1][:, None], own, count - 1, past)
            else:
                every = [torch.cat([o, m[:, : h + 1]], 1)[:, -self.window :]
                         for o, m in zip(old, how, strict=True)]  # fmt: skip
                newest = torch.stack(frames[-self.window :], 1)
                guess, _ = self.predictor.step(newest, every, 0, None)
            found.append(self.projector(guess))
            frames.append(found[-1])
        return torch.stack(found, 1).unflatten(0, (rows, plans))

    def _shared(self, rep: Tensor, how: list[Tensor]) -> list[Past] | None:
        """Keys and values of embeddings (B, n, D) whose actions were executed; None of none."""
        if not rep.shape[1]:
            return None
        return self.predictor.step(rep, how, 0, None)[1]
