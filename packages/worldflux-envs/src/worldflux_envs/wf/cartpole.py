"""Cart-pole: Gymnasium's CartPole-v1, equation for equation."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux_envs.wf.draw import GRAY, RED, SNOW, Canvas
from worldflux_envs.wf.game import Game, GameState

GRAVITY, MASS_CART, MASS_POLE, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
MASS, POLE_MOMENT = MASS_CART + MASS_POLE, MASS_POLE * HALF_LENGTH
X_LIMIT, ANGLE_LIMIT = 2.4, 12 * 2 * torch.pi / 360


class CartPole(Game):
    """Push left or right; 1 per step until the pole falls (Barto, Sutton and Anderson 1983)."""

    name = "cartpole"
    horizon = 500
    chances = 4
    features = 4
    choices = 2
    labels = ("left", "right")

    def reset(self, chance: Tensor) -> GameState:
        return {"s": chance * 0.1 - 0.05}

    def step(self, state: GameState, action: Tensor) -> tuple[GameState, Tensor, Tensor]:
        x, velocity, angle, spin = state["s"].unbind(-1)
        force = torch.where(action == 1, FORCE, -FORCE)
        cos, sin = angle.cos(), angle.sin()
        push = (force + POLE_MOMENT * spin.square() * sin) / MASS
        pole = HALF_LENGTH * (4.0 / 3.0 - MASS_POLE * cos.square() / MASS)
        turn = (GRAVITY * sin - cos * push) / pole
        accelerate = push - POLE_MOMENT * turn * cos / MASS
        after = torch.stack(
            [
                x + TAU * velocity,
                velocity + TAU * accelerate,
                angle + TAU * spin,
                spin + TAU * turn,
            ],
            -1,
        )
        fallen = (after[:, 0].abs() > X_LIMIT) | (after[:, 2].abs() > ANGLE_LIMIT)
        return {"s": after}, torch.ones_like(x), fallen

    def vector(self, state: GameState) -> Tensor:
        return state["s"]

    def picture(self, state: GameState, size: int) -> Tensor:
        x, _, angle, _ = state["s"].unbind(-1)
        cart = torch.stack([0.5 + 0.42 * x / X_LIMIT, torch.full_like(x, 0.72)], -1)
        tip = cart + 0.45 * torch.stack([angle.sin(), -angle.cos()], -1)
        rail = torch.tensor([[0.02, 0.77], [0.98, 0.77]], device=x.device).double()
        canvas = Canvas(len(x), size, SNOW, x.device).gradient((200, 214, 232))
        canvas.line(rail[:1].expand(len(x), 2), rail[1:].expand(len(x), 2), 0.012, GRAY)
        canvas.box(cart, (0.09, 0.05), (44, 62, 80), 0.02).line(cart, tip, 0.035, RED)
        return canvas.disc(cart, 0.022, (255, 202, 40)).done()

    def oracle(self, state: GameState) -> Tensor:
        # The sign of a stabilising linear feedback (found by LQR on the linearised equations).
        gain = torch.tensor([0.6, 1.2, 18.0, 3.3], dtype=torch.float64, device=state["s"].device)
        return ((state["s"] @ gain) > 0).long()
