"""Many rows of one game stepped together, wholly in torch: a million steps take seconds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux_envs.wf.chance import uniforms
from worldflux_envs.wf.game import Game, GameState, where


@dataclass
class Step:
    """What one step of N rows gives; rewards and flags (N,)."""

    obs: dict[str, Tensor]
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    is_first: Tensor


class Rows:
    """N independent rows of `game`; a row whose episode ended begins the next one instead of
    stepping (NEXT_STEP). Its seeds follow from its first one, whatever rows are beside it.
    """

    def __init__(self, game: Game, *, obs: str = "state", size: int = 64) -> None:
        self.game, self.obs, self.size = game, obs, size
        self.state: GameState = {}

    def reset(self, seeds: Tensor) -> dict[str, Tensor]:
        """Begin an episode per seed (N,) int64."""
        self.state = self.begin(seeds)
        self.ended = torch.zeros_like(seeds, dtype=torch.bool)
        return self.game.observe(self.state, self.obs, self.size)

    def begin(self, seeds: Tensor) -> GameState:
        """Fresh states of episodes with these seeds (N,)."""
        state = self.game.reset(uniforms(seeds, self.game.chances))
        return state | {"seed": seeds, "t": torch.zeros_like(seeds)}

    def advance(self, state: GameState, action: Tensor) -> tuple[GameState, Tensor, Tensor, Tensor]:
        """One step by actions (N, ...), no resets: state, reward, terminated, truncated (N,)."""
        after, reward, terminated = self.game.step(state, action)
        after = after | {"seed": state["seed"], "t": state["t"] + 1}
        return after, reward, terminated, (after["t"] >= self.game.horizon) & ~terminated

    def step(self, action: Tensor) -> Step:
        """One step by actions (N, ...); rows that had ended are reset, with reward 0."""
        first = self.ended
        seeds = (uniforms(self.state["seed"], 1)[:, 0] * 2**31).long()
        after, reward, terminated, truncated = self.advance(self.state, action)
        self.state = where(first, self.begin(seeds), after)
        terminated, truncated = terminated & ~first, truncated & ~first
        self.ended = terminated | truncated
        obs = self.game.observe(self.state, self.obs, self.size)
        return Step(obs, reward * ~first, terminated, truncated, first)
