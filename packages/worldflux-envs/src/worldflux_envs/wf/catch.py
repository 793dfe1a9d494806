"""Catch: a ball falls through a grid, a paddle at the bottom must be under it."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux_envs.wf.draw import GOLD, NIGHT, TEAL, Canvas
from worldflux_envs.wf.game import Game, GameState

ROWS, COLUMNS = 10, 5


class Catch(Game):
    """Left, stay, right; +1 for a catch, -1 for a miss (bsuite's `catch`, Osband et al. 2020)."""

    name = "catch"
    horizon = ROWS
    chances = 2
    features = 3
    choices = 3
    labels = ("left", "stay", "right")

    def reset(self, chance: Tensor) -> GameState:
        column = (chance * COLUMNS).long()
        return {"ball": column[:, 0], "row": torch.zeros_like(column[:, 0]), "paddle": column[:, 1]}

    def step(self, state: GameState, action: Tensor) -> tuple[GameState, Tensor, Tensor]:
        paddle = (state["paddle"] + action - 1).clamp(0, COLUMNS - 1)
        row = state["row"] + 1
        landed = row == ROWS - 1
        caught = torch.where(paddle == state["ball"], 1.0, -1.0)
        return {"ball": state["ball"], "row": row, "paddle": paddle}, caught * landed, landed

    def vector(self, state: GameState) -> Tensor:
        parts = (
            state["ball"] / (COLUMNS - 1),
            state["row"] / (ROWS - 1),
            state["paddle"] / (COLUMNS - 1),
        )
        return torch.stack(parts, -1) * 2 - 1

    def picture(self, state: GameState, size: int) -> Tensor:
        ball = torch.stack([(state["ball"] + 0.5) / COLUMNS, (state["row"] + 0.5) / ROWS], -1)
        x = (state["paddle"] + 0.5) / COLUMNS
        paddle = torch.stack([x, torch.full_like(x, 1 - 0.5 / ROWS)], -1)
        canvas = Canvas(len(x), size, NIGHT, x.device).gradient((44, 52, 84))
        canvas.box(paddle, (0.1, 0.035), TEAL, 0.03)
        return canvas.disc(ball, 0.05, GOLD).done()

    def oracle(self, state: GameState) -> Tensor:
        return torch.sign(state["ball"] - state["paddle"]) + 1
