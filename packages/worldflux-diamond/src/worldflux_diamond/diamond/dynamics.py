"""DIAMOND's dynamics: a window of frames, the denoiser, and the model of rewards and ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import DynamicsModel
from worldflux.core.rand import Rand, gumbel, normal
from worldflux.core.state import State
from worldflux_diamond.diamond.denoiser import Denoiser, UNetNetwork
from worldflux_diamond.diamond.reward_end import ENDS, SIGNS, RewardEnd
from worldflux_diamond.diamond.windows import ages, all_windows

if TYPE_CHECKING:
    from worldflux_diamond.diamond.world_model import DiamondWorldModel

_SURE = 10.0
"""Logit of what is certain: nothing is gained before the first action, and nothing has ended."""


class DiamondDynamics(DynamicsModel):
    """State: the last K frames and their actions, `seen` of which are real, and a memory.

    "frames" (B, K, C, Y, X) in [-1, 1], "actions" (B, K, A), of which the last is the one taken at
    the last frame: zero until it is known. "reward.h" and "reward.c" (B, D) are the memory of
    rewards and ends, "reward_logits" (B, 3) and "end_logits" (B, 2) what it says of the step that
    led here, "reward" and "ended" (B,) what was sampled of it (zero for an observed step).
    """

    recurrent = True

    def __init__(self, model: DiamondWorldModel) -> None:
        super().__init__()
        c = model.config.model
        self.history, self.memory = c.denoiser.history, c.reward_end.lstm
        self.image, self.action_size = model.image_spec.shape, model.features["action"].size
        self.denoiser = Denoiser(c.denoiser, self.network(model))
        self.reward_end = RewardEnd(c.reward_end, self.image, self.action_size, c.whiten)

    def network(self, model: DiamondWorldModel) -> nn.Module:
        """The network inside the denoiser; a dynamics with another one overrides this."""
        return UNetNetwork(model.config.model.denoiser, self.image[0], self.action_size)

    def initial(self, batch_size: int, device: torch.device) -> State:
        sizes = {
            "frames": (self.history, *self.image),
            "actions": (self.history, self.action_size),
            "seen": (),
            "reward.h": (self.memory,),
            "reward.c": (self.memory,),
            "reward": (),
            "ended": (),
        }
        zeros = {k: torch.zeros(batch_size, *size, device=device) for k, size in sizes.items()}
        reward, end = certain(device)
        logits = {"reward_logits": reward, "end_logits": end}
        return State({**zeros, **{k: x.expand(batch_size, -1).clone() for k, x in logits.items()}})

    def acted(self, state: State, action: Tensor) -> Tensor:
        """The window's actions (B, K, A), with the one (B, A) that is taken at the last frame."""
        return torch.cat([state["actions"][:, :-1], action[:, None]], 1)

    def noise(self, state: State, deterministic: bool = False, rand: Rand | None = None) -> Tensor:
        """What a frame is made out of (B, C, Y, X): the draw "noise", or zeros."""
        shape, device = (state.batch_size, *self.image), state.device
        if deterministic:
            return torch.zeros(shape, device=device)
        return (rand or Rand()).draw("noise", shape, normal, device=device)

    def transition(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        """A sampled frame, reward and end. Draws: "noise", "churn", "reward" and "end" (gumbel)."""
        rand, actions = rand or Rand(), self.acted(state, action)
        noise = self.noise(state, deterministic, rand)
        frame = self.denoiser.sample(noise, state["frames"], actions, rand)[-1]
        frame = frame.to(state["frames"].dtype)
        going_on = torch.zeros_like(state["seen"], dtype=torch.bool)
        after = self._advanced(state, actions[:, -1:], frame[:, None], going_on[:, None]).at(0)
        chosen = {}
        for name, logits in (("reward", "reward_logits"), ("end", "end_logits")):
            scores = after[logits]
            if not deterministic:
                noise = rand.draw(name, tuple(scores.shape), gumbel, device=scores.device)
                scores = scores + noise
            chosen[name] = scores.argmax(-1).float()
        return after.with_({"reward": chosen["reward"] - 1, "ended": chosen["end"]})

    def stages(
        self, state: State, action: Tensor, *, rand: Rand | None = None
    ) -> Mapping[str, Tensor]:
        """What the noise becomes, step by step: "denoising" (S, B, C, Y, X) in [0, 1]."""
        noise = self.noise(state, rand=rand)
        path = self.denoiser.sample(noise, state["frames"], self.acted(state, action), rand)
        return {"denoising": ((torch.stack(path) + 1) / 2).clamp(0, 1)}

    def observe(
        self,
        state: State,
        action: Tensor,
        features: State,
        is_first: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        frame = features["frame"][:, None]
        return self._advanced(state, action[:, None], frame, is_first[:, None]).at(0)

    def observe_sequence(
        self,
        state: State,
        action: Tensor,
        features: State,
        is_first: Tensor,
        *,
        rand: Rand | None = None,
    ) -> State:
        return self._advanced(state, action, features["frame"], is_first)

    def _advanced(self, state: State, action: Tensor, frame: Tensor, is_first: Tensor) -> State:
        """States (B, T, ...) whose last frames are `frame` (B, T, C, Y, X).

        Actions (B, T, A) led to them. A pair of frames reaches the memory where both are real and
        of one episode.
        """
        age = ages(is_first, state["seen"])  # (B, T)
        before = torch.cat([state["frames"][:, -1:], frame[:, :-1]], 1)
        pairs = [x.flatten(0, 1) for x in (before, frame, action)]
        told = self.reward_end.features(*pairs).unflatten(0, is_first.shape)
        h, c = self.reward_end.remember(
            told, (state["reward.h"], state["reward.c"]), age > 1, is_first
        )
        taken = torch.cat([state["actions"][:, :-1], action[:, :1]], 1)  # (B, K, A)
        led = torch.cat([action[:, 1:], torch.zeros_like(action[:, :1])], 1)
        actions = all_windows(taken, led, age)
        open_ = torch.arange(self.history, device=age.device) == self.history - 1
        actions = torch.where(open_[:, None], 0, actions)  # what is done at the last is not known
        logits = {}
        for name, found, sure in zip(
            ("reward_logits", "end_logits"),
            self.reward_end.classes(h),
            certain(age.device),
            strict=True,
        ):
            logits[name] = torch.where(age[..., None] > 1, found.float(), sure)
        zeros = torch.zeros(is_first.shape, device=age.device)
        return State(
            {
                "frames": all_windows(state["frames"], frame, age),
                "actions": actions,
                "seen": age.clamp(max=self.history).float(),
                "reward.h": h,
                "reward.c": c,
                "reward": zeros,
                "ended": zeros.clone(),
                **logits,
            },
            dict(state.meta),
        )


def certain(device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits (3,) of no reward and (2,) of going on."""
    reward, end = torch.zeros(SIGNS, device=device), torch.zeros(ENDS, device=device)
    reward[1] = end[0] = _SURE
    return reward, end
