"""Pendulum: Gymnasium's Pendulum-v1, equation for equation, with torque scaled to [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux_envs.wf.draw import BLUE, GOLD, RED, SNOW, Canvas
from worldflux_envs.wf.game import Game, GameState

MAX_SPIN, MAX_TORQUE, DT, GRAVITY = 8.0, 2.0, 0.05, 10.0


class Pendulum(Game):
    """Swing up and hold; cost = angle^2 + 0.1 spin^2 + 0.001 torque^2. Angle 0 is up."""

    name = "pendulum"
    horizon = 200
    chances = 2
    features = 3

    def reset(self, chance: Tensor) -> GameState:
        return {"angle": (chance[:, 0] * 2 - 1) * torch.pi, "spin": chance[:, 1] * 2 - 1}

    def step(self, state: GameState, action: Tensor) -> tuple[GameState, Tensor, Tensor]:
        angle, spin = state["angle"], state["spin"]
        torque = action[:, 0].double().clamp(-1, 1) * MAX_TORQUE
        cost = wrapped(angle).square() + 0.1 * spin.square() + 0.001 * torque.square()
        spin = spin + (1.5 * GRAVITY * angle.sin() + 3.0 * torque) * DT
        spin = spin.clamp(-MAX_SPIN, MAX_SPIN)
        never = torch.zeros_like(spin, dtype=torch.bool)
        return {"angle": angle + spin * DT, "spin": spin}, -cost, never

    def vector(self, state: GameState) -> Tensor:
        return torch.stack([state["angle"].cos(), state["angle"].sin(), state["spin"]], -1)

    def picture(self, state: GameState, size: int) -> Tensor:
        angle = state["angle"]
        middle = torch.full((len(angle), 2), 0.5, device=angle.device)
        tip = middle + 0.36 * torch.stack([angle.sin(), -angle.cos()], -1)
        canvas = Canvas(len(angle), size, SNOW, angle.device).gradient((205, 222, 214))
        canvas.disc(middle, 0.44, (226, 232, 240)).line(middle, tip, 0.09, RED)
        return canvas.disc(tip, 0.075, GOLD).disc(middle, 0.035, BLUE).done()

    def oracle(self, state: GameState) -> Tensor:
        angle, spin = wrapped(state["angle"]), state["spin"]
        energy = spin.square() / 6 + 5 * angle.cos() - 5  # 0 is the energy of standing still, up
        swing = -torch.sign(spin + 1e-9) * torch.sign(energy)
        hold = -(8.0 * angle + 1.6 * spin) / MAX_TORQUE
        near = angle.abs() < 0.6
        return torch.where(near, hold, swing).clamp(-1, 1)[:, None].float()


def wrapped(angle: Tensor) -> Tensor:
    """The angle in [-pi, pi), elementwise."""
    return (angle + torch.pi) % (2 * torch.pi) - torch.pi
