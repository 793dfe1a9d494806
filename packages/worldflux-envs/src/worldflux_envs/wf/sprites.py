"""Sprites: a procedurally drawn platform game, for world models that must find its actions."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux_envs.wf.chance import uniforms
from worldflux_envs.wf.draw import BLUE, GOLD, RED, TEAL, Canvas, Color
from worldflux_envs.wf.game import Game, GameState

STAY, LEFT, RIGHT, JUMP = range(4)
LEVELS, WIDTH = 3, 0.17  # platforms above the floor, and their half width
FLOOR, RISE = 0.9, 0.22  # y of the floor's surface (y points down), and between levels
SPEED, GRAVITY, LEAP, REACH = 0.03, 0.006, 0.058, 0.07
BODY = 0.045
SKIES: tuple[Color, ...] = ((38, 50, 88), (56, 38, 84), (24, 62, 74))


class Sprites(Game):
    """Stay, left, right, jump between platforms one can jump through; 1 for every coin."""

    name = "sprites"
    horizon = 200
    chances = LEVELS + 2
    features = 6 + LEVELS
    choices = 4
    labels = ("stay", "left", "right", "jump")

    def reset(self, chance: Tensor) -> GameState:
        rows = len(chance)
        floor = torch.full((rows,), FLOOR - BODY, dtype=chance.dtype, device=chance.device)
        state = {
            "platform": _platforms(chance[:, :LEVELS]),
            "x": 0.1 + 0.8 * chance[:, LEVELS],
            "y": floor,
            "fall": torch.zeros_like(floor),
            "coins": torch.zeros(rows, dtype=torch.int64, device=chance.device),
            # The level's own stream, for coins that appear later.
            "stream": (chance[:, LEVELS + 1] * 2**52).long(),
        }
        return state | _coin(state)

    def step(self, state: GameState, action: Tensor) -> tuple[GameState, Tensor, Tensor]:
        walk = (action == RIGHT).double() - (action == LEFT).double()
        x = (state["x"] + SPEED * walk).clamp(BODY, 1 - BODY)
        grounded = _surface(state["platform"], state["x"], state["y"]) <= state["y"] + 1e-6
        fall = torch.where(grounded & (action == JUMP), -LEAP, state["fall"] + GRAVITY)
        fall = torch.where(grounded & (action != JUMP), GRAVITY, fall)
        y = state["y"] + fall
        surface = _surface(state["platform"], x, state["y"])
        landed = (fall > 0) & (y >= surface)
        y, fall = torch.where(landed, surface, y), torch.where(landed, 0.0, fall)
        after = {**state, "x": x, "y": y, "fall": fall}
        got = (x - state["coin_x"]).abs().maximum((y - state["coin_y"]).abs()) < REACH
        after["coins"] = state["coins"] + got
        after |= _coin(after)
        return after, got.double(), torch.zeros_like(got)

    def vector(self, state: GameState) -> Tensor:
        keys = ("x", "y", "fall", "coin_x", "coin_y", "coins")
        scale = (1.0, 1.0, 10.0, 1.0, 1.0, 0.1)
        parts = [state[key] * by for key, by in zip(keys, scale, strict=True)]
        return torch.cat([torch.stack(parts, -1), state["platform"]], -1)

    def picture(self, state: GameState, size: int) -> Tensor:
        x, y = state["x"], state["y"]
        canvas = Canvas(len(x), size, SKIES[0], x.device).gradient(SKIES[1])
        moon = torch.tensor([[0.82, 0.14]], device=x.device).expand(len(x), 2)
        canvas.disc(moon, 0.07, (245, 240, 220))
        ground = torch.tensor([[0.5, (1 + FLOOR) / 2]], device=x.device).expand(len(x), 2)
        canvas.box(ground, (0.5, (1 - FLOOR) / 2), (46, 125, 90))
        for level in range(LEVELS):
            top = torch.full_like(x, FLOOR - RISE * (level + 1) + 0.02)
            place = torch.stack([state["platform"][:, level], top], -1)
            canvas.box(place, (WIDTH, 0.02), TEAL, 0.015)
        coin = torch.stack([state["coin_x"], state["coin_y"]], -1)
        canvas.disc(coin, 0.032, GOLD).disc(coin, 0.016, (255, 238, 170))
        body = torch.stack([x, y], -1)
        canvas.box(body, (BODY * 0.8, BODY), RED, 0.02)
        eye = torch.tensor([[0.0, -0.015]], device=x.device)
        return canvas.disc(body + eye, 0.016, (255, 255, 255)).disc(body + eye, 0.007, BLUE).done()

    def oracle(self, state: GameState) -> Tensor:
        x, y = state["x"], state["y"]
        level = ((FLOOR - BODY - y) / RISE).round().long()  # 0 is the floor
        coin = ((FLOOR - BODY - state["coin_y"]) / RISE).round().long()
        upward = level < coin
        above = state["platform"].gather(1, level.clamp(0, LEVELS - 1)[:, None])[:, 0]
        here = state["platform"].gather(1, (level - 1).clamp(0, LEVELS - 1)[:, None])[:, 0]
        edge = torch.where(here > 0.5, here - WIDTH - 0.06, here + WIDTH + 0.06)
        target = torch.where(upward, above, torch.where(level > coin, edge, state["coin_x"]))
        side = torch.where(target > x + SPEED, RIGHT, torch.where(target < x - SPEED, LEFT, STAY))
        under = upward & ((above - x).abs() < WIDTH * 0.8)
        grounded = _surface(state["platform"], x, y) <= y + 1e-6
        return torch.where(under & grounded, JUMP, side)


def _platforms(chance: Tensor) -> Tensor:
    """Centres (N, LEVELS), lowest first; each overlaps the one below, so that all are in reach."""
    centers = [WIDTH + (1 - 2 * WIDTH) * chance[:, 0]]
    for level in range(1, LEVELS):
        aside = (0.4 + 0.8 * (chance[:, level] * 2 % 1)) * WIDTH
        below = centers[-1]
        rightward = (chance[:, level] < 0.5) & (below + aside < 1 - WIDTH) | (below - aside < WIDTH)
        centers.append(torch.where(rightward, below + aside, below - aside))
    return torch.stack(centers, 1)


def _surface(platform: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """y (N,) at which a body at x stands on the highest surface that is not above it."""
    best = torch.full_like(y, FLOOR - BODY)
    for level in range(LEVELS):
        top = FLOOR - RISE * (level + 1) - BODY
        over = (x - platform[:, level]).abs() < WIDTH + BODY / 2
        best = torch.where(over & (y <= top + 1e-6), torch.full_like(y, top), best)
    return best


def _coin(state: GameState) -> GameState:
    """Where the coin number `coins` of this level lies: on a platform, or on the floor."""
    chance = uniforms(state["stream"], 2, state["coins"] * 2)
    level = (chance[:, 0] * (LEVELS + 1)).long()  # 0 is the floor
    on = state["platform"].gather(1, (level - 1).clamp_min(0)[:, None])[:, 0]
    beside = (chance[:, 1] * 2 - 1) * WIDTH * 0.8
    x = torch.where(level == 0, 0.1 + 0.8 * chance[:, 1], on + beside)
    return {"coin_x": x, "coin_y": FLOOR - BODY - RISE * level.double()}
