"""The rollout: step by step, and then all frames decoded in one pass where one pass has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worldflux.core.interfaces import Policy, RolloutExecutor
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rollout import decoded, unroll
from worldflux.core.state import State
from worldflux.core.trajectory import Trajectory
from worldflux_genie.tokenizer import FrameDecoder

if TYPE_CHECKING:
    from worldflux.core.model import WorldModel


class VideoRollout(RolloutExecutor):
    """As `AutoregressiveRollout`; the last State remembers the frames of those before it."""

    def forward(
        self,
        model: WorldModel,
        state: State,
        actions: Tensor | Policy | None,
        conditions: ConditionPayload | None = None,
        **options: Any,
    ) -> Trajectory:
        decode = bool(options.pop("decode", False))
        states, chosen = unroll(model, state, actions, conditions, **options)
        decoder = model.decoder_module
        if not decode or not isinstance(decoder, FrameDecoder) or _forgot(states):
            return decoded(model, states, chosen, conditions, images=decode)
        video = decoder.of_tokens(states[-1]["tokens"])  # (B, T, C, Y, X)
        first = states[0]["length"] - 1
        steps = torch.arange(len(states), device=video.device)[:, None] + first  # (H + 1, B)
        frames = video[torch.arange(video.shape[0], device=video.device), steps]
        return Trajectory(states=states, actions=chosen, observations={decoder.key: frames})


def _forgot(states: list[State]) -> bool:
    """Whether the last State lacks a frame of the first: some row was full on the way."""
    first, last = states[0]["length"], states[-1]["length"]
    return not bool((last == first + len(states) - 1).all() & (first > 0).all())
