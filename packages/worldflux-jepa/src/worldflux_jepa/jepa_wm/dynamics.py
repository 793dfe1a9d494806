"""The dynamics of a JEPA world model: a window of frames' tokens, and the predictor over it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.interfaces import DynamicsModel
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux_jepa import window
from worldflux_jepa.jepa_wm.config import ModelConfig
from worldflux_jepa.jepa_wm.networks import FlatBlocks
from worldflux_jepa.jepa_wm.predictor import Predictor
from worldflux_jepa.vit import Past


class TokenDynamics(DynamicsModel):
    """Keeps the newest W frames' tokens, body states and actions, the oldest first.

    State: `rep` (B, N, D), `history` (B, W, N, D), with a body `proprio` (B, S) and
    `history.proprio` (B, W, S), `blocks` (B, W, A'), `count` (B,).
    """

    recurrent = True

    def __init__(
        self, config: ModelConfig, tokens: tuple[int, int], grid: tuple[int, int], action: int,
        proprio: int | None, conditioner: FlatBlocks | None,
    ) -> None:  # fmt: skip
        """`tokens` are number and features of a frame's tokens, `action` features of an action."""
        super().__init__()
        self.config, self.grid, self.action = config, grid, action
        self.sizes: dict[str, tuple[int, ...]] = {"rep": tokens}
        if proprio is not None:
            self.sizes["proprio"] = (proprio,)
        predicts = config.proprio_next == "predict"
        self.predictor = Predictor(config.predictor, tokens[1], action, proprio, predicts)
        self.total = None if conditioner is None else [conditioner]  # not a part of this one

    def initial(self, batch_size: int, device: torch.device) -> State:
        """An empty window."""
        return window.empty(batch_size, self.config.window, self.sizes, self.action, device)

    def tokens(self, rep: Tensor) -> Tensor:
        """Tokens (..., D) as the model compares them: normalised, where that is configured."""
        return F.layer_norm(rep, rep.shape[-1:]) if self.config.normalise else rep

    def observe(
        self, state: State, action: Tensor, features: State, is_first: Tensor,
        *, deterministic: bool = False, rand: Rand | None = None,
    ) -> State:  # fmt: skip
        """The window with observed features (B, ...) after `action` (B, A')."""
        state = self.initial(len(is_first), is_first.device).where(is_first, state)
        return window.pushed(window.acted(state, action), self.newest(features))

    def newest(self, features: State) -> dict[str, Tensor]:
        """What the window keeps of features (B, ...), by name."""
        found = {"rep": self.tokens(features["rep"])}
        return found | ({"proprio": features["proprio"]} if "proprio" in self.sizes else {})

    def transition(
        self, state: State, action: Tensor, *, deterministic: bool = False, rand: Rand | None = None
    ) -> State:
        """The predicted State after conditioned actions (B, A')."""
        acted = window.acted(state, action)
        body = acted.get("history.proprio")
        guess, said, _ = self.predictor(acted["history"], acted["blocks"], body, self.grid)
        last = (acted["count"] - 1).clamp(min=0)
        rows = torch.arange(len(last), device=last.device)
        after = {"rep": self.tokens(guess[rows, last])}
        if body is not None:
            own = None if said is None else said[rows, last]
            after["proprio"] = self._next_body(state["proprio"], action, own)
        return window.pushed(acted, after)

    def _next_body(self, body: Tensor, action: Tensor, said: Tensor | None) -> Tensor:
        """The body's next state (R, S): predicted, or moved by the actions' sum (R, A)."""
        if said is not None:
            return said
        assert self.total is not None, "proprio_next='add' needs the family's action conditioner"
        moved = self.total[0].total(action)
        return body + F.pad(moved, (0, body.shape[-1] - moved.shape[-1]))

    def sequence(
        self, rep: Tensor, action: Tensor, proprio: Tensor | None, is_first: Tensor,
        extrinsics: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """What follows each of frames rep (B, T, N, D), given the frames before it in its episode.

        action (B, T, A'), proprio (B, T, S), T at most W, or any with W = 1; the next states
        (B, T, S), too, where they are predicted.
        """
        if self.config.window == 1:
            lead = rep.shape[:2]
            alone = [None if x is None else x.flatten(0, 1)[:, None]
                     for x in (action, proprio, extrinsics)]  # fmt: skip
            assert alone[0] is not None
            guess, said, _ = self.predictor(
                rep.flatten(0, 1)[:, None], alone[0], alone[1], self.grid, extrinsics=alone[2]
            )
            said = None if said is None else said[:, 0].unflatten(0, lead)
            return self.tokens(guess[:, 0]).unflatten(0, lead), said
        mask, _ = window.episode_mask(is_first)
        guess, said, _ = self.predictor(
            rep, action, proprio, self.grid, extrinsics=extrinsics, mask=mask
        )
        return self.tokens(guess), said

    def paths(self, state: State, action: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predicted tokens (B, K, H, N, D) and bodies (B, K, H, S) along K plans (B, K, H, A').

        All rows have windows of one size. Keys and values of the frames seen are computed once
        for a row and shared by its plans; those of predicted frames are kept until the window
        slides.
        """
        rows, plans, horizon = action.shape[:3]
        held, most = int(state["count"][0]), self.config.window
        flat = action.flatten(0, 1)  # (B * K, H, A')

        def shared(name: str) -> list[Tensor]:
            past = state[name][:, :held]
            return [step.repeat_interleave(plans, 0) for step in past.unbind(1)]

        frames, done = shared("history"), shared("blocks")[:-1]
        bodies = shared("history.proprio") if "proprio" in self.sizes else None
        past = self._context(state, held - 1)
        found: list[Tensor] = []
        for h in range(horizon):
            done.append(flat[:, h])
            if len(frames) <= most:
                newest, first = 1, len(frames) - 1
            else:
                newest, first, past = most, 0, None
            body = None if bodies is None else torch.stack(bodies[-newest:], 1)
            guess, said, past = self.predictor(
                torch.stack(frames[-newest:], 1), torch.stack(done[-newest:], 1), body,
                self.grid, first=first, past=past,
            )  # fmt: skip
            frames.append(self.tokens(guess[:, -1]))
            found.append(frames[-1])
            if bodies is not None:
                told = None if said is None else said[:, -1]
                bodies.append(self._next_body(bodies[-1], flat[:, h], told))
        lead = (rows, plans)
        reached = torch.stack(found, 1).unflatten(0, lead)
        if bodies is None:
            return reached, None
        return reached, torch.stack(bodies[-horizon:], 1).unflatten(0, lead)

    def _context(self, state: State, count: int) -> list[Past] | None:
        """Keys and values (B, ...) of the first `count` frames seen; None of none."""
        if not count:
            return None
        body = state.get("history.proprio")
        return self.predictor(
            state["history"][:, :count], state["blocks"][:, :count],
            None if body is None else body[:, :count], self.grid,
        )[2]  # fmt: skip
