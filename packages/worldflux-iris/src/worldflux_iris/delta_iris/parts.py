"""Encoder and decoder slots: the State holds the frame itself, and numbers to read."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from worldflux.core.interfaces import Decoder, ObservationEncoder
from worldflux.core.output import ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.nn.pixels import unit
from worldflux_iris.spaces import KEY


class Frames(ObservationEncoder):
    """A frame as bytes: tokens are of changes, which take two of them."""

    def forward(self, obs: dict[str, Tensor]) -> State:
        frame = obs[KEY]
        if frame.is_floating_point():
            frame = (frame.clamp(0, 1) * 255).round().to(torch.uint8)
        return State({"frame": frame})


class FrameReader(Decoder):
    """A State to predictions: its frame, means of its logits; what was drawn in `aux`."""

    def __init__(self, reward_mean: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.reward_mean = reward_mean

    def forward(
        self,
        state: State,
        keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> ModelOutput:
        found = {}
        if keys is None or KEY in keys:
            found[KEY] = unit(state["frame"])
        if keys is None or "reward" in keys:
            found["reward"] = self.reward_mean(state["reward_logits"])
        if keys is None or "continue" in keys:
            found["continue"] = state["end_logits"].float().softmax(-1)[..., 0]
        aux = {key: state[key] for key in ("reward", "ended") if key in state}
        return ModelOutput(found, aux=aux)
