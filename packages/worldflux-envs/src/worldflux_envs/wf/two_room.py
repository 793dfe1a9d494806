"""Two rooms: a point walks through the door of a wall to a goal, given as an observation."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from worldflux_envs.wf.draw import GRAY, RED, SNOW, Canvas
from worldflux_envs.wf.game import Game, GameState

STEP, RADIUS, WALL, DOOR = 0.04, 0.05, 0.03, 0.1
LOW, HIGH = 0.06, 0.94


class TwoRoom(Game):
    """Continuous steps in the unit square; 1 and the end on reaching the goal, else 0."""

    name = "two-room"
    horizon = 100
    chances = 5
    features = 3
    controls = 2
    has_goal = True

    def reset(self, chance: Tensor) -> GameState:
        door = 0.2 + 0.6 * chance[:, 0]
        left = torch.tensor([0.06, 0.06], dtype=chance.dtype, device=chance.device)
        size = torch.tensor([0.36, 0.88], dtype=chance.dtype, device=chance.device)
        start = left + size * chance[:, 1:3]
        goal = left + size * chance[:, 3:5]
        goal = torch.stack([1 - goal[:, 0], goal[:, 1]], -1)  # in the other room
        return {"point": start, "target": goal, "door": door}

    def step(self, state: GameState, action: Tensor) -> tuple[GameState, Tensor, Tensor]:
        before, door = state["point"], state["door"]
        move = STEP * action.double().clamp(-1, 1)
        after = (before + move).clamp(LOW, HIGH)
        # Walk the two axes one after the other, so that one slides along the wall.
        y = torch.where(_blocked(before[:, 0], after[:, 1], door), before[:, 1], after[:, 1])
        x = torch.where(_blocked(after[:, 0], y, door), before[:, 0], after[:, 0])
        point = torch.stack([x, y], -1)
        reached = (point - state["target"]).norm(dim=-1) < RADIUS
        return {**state, "point": point}, reached.double(), reached

    def vector(self, state: GameState) -> Tensor:
        return torch.cat([state["point"], state["door"][:, None]], -1) * 2 - 1

    def goal(self, state: GameState) -> GameState:
        return {**state, "point": state["target"]}

    def aimed(self, state: GameState, at: GameState) -> GameState:
        return {**state, "target": at["point"]}

    def position(self, state: GameState) -> Tensor | None:
        return state["point"]

    def picture(self, state: GameState, size: int) -> Tensor:
        door = state["door"]
        canvas = Canvas(len(door), size, SNOW, door.device)
        middle = torch.full_like(door, 0.5)
        for top, bottom in (
            (torch.zeros_like(door), door - DOOR),
            (door + DOOR, torch.ones_like(door)),
        ):
            start, end = torch.stack([middle, top], -1), torch.stack([middle, bottom], -1)
            canvas.line(start, end, 2 * WALL, GRAY)
        corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], device=door.device)
        for start, end in itertools.pairwise(corners):
            canvas.line(start.expand(len(door), 2), end.expand(len(door), 2), 0.06, GRAY)
        return canvas.disc(state["point"], RADIUS, RED).done()

    def oracle(self, state: GameState) -> Tensor:
        point, goal = state["point"], state["target"]
        door = torch.stack([torch.full_like(state["door"], 0.5), state["door"]], -1)
        through = point[:, 0] > 0.5 - WALL
        aligned = (point[:, 1] - state["door"]).abs() < DOOR / 2
        entrance = door - torch.tensor([0.12, 0.0], dtype=door.dtype, device=door.device)
        beyond = door + torch.tensor([0.12, 0.0], dtype=door.dtype, device=door.device)
        leaving = (point[:, 0] < 0.5 + WALL) & through
        target = torch.where(aligned[:, None], beyond, entrance)
        target = torch.where((through & ~leaving)[:, None], goal, target)
        target = torch.where(leaving[:, None], beyond, target)
        return ((target - point) / STEP).clamp(-1, 1).float()


def _blocked(x: Tensor, y: Tensor, door: Tensor) -> Tensor:
    """Whether (x, y) lies in the wall."""
    return ((x - 0.5).abs() < WALL + 0.005) & ((y - door).abs() > DOOR - 0.01)
