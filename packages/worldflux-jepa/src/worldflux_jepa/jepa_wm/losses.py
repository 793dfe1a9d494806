"""What a JEPA world model minimises: errors of tokens predicted from true and from own frames."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux_jepa.jepa_wm.dynamics import TokenDynamics


def token_error(guess: Tensor, wanted: Tensor, exponent: float) -> Tensor:
    """mean |error| ** exponent / exponent of tokens (B, T, N, D), for each frame (B, T)."""
    return (guess - wanted).abs().pow(exponent).mean((-2, -1)) / exponent


def rolled_out(
    dynamics: TokenDynamics, rep: Tensor, action: Tensor, proprio: Tensor | None,
    is_first: Tensor, guess: Tensor, steps: int, extrinsics: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Frames 1 to `steps` (B, steps, N, D), each predicted from frame 0 and the ones before.

    The first is teacher-forced, `guess` (B, T, N, D) at frame 0; the last sees frame 0 and its own
    predictions of all others, or as many as the window holds. States are the true ones.
    """
    seen = [rep[:, 0], guess[:, 0]]
    for t in range(2, steps + 1):
        own = slice(max(0, t - dynamics.config.window), t)
        body, pose = (None if x is None else x[:, own] for x in (proprio, extrinsics))
        after, _ = dynamics.sequence(
            torch.stack(seen[own], 1), action[:, own], body, is_first[:, own], pose
        )
        seen.append(after[:, -1])
    return torch.stack(seen[1:], 1)
