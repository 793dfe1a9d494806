"""Evaluation: whole episodes in environments of their own, with a generator of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worldflux.core.agent import Agent
from worldflux.core.state import State
from worldflux_train.seeding import derived, generator
from worldflux_train.stepping import Stepper

MOST_ENVS = 16


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths of the evaluated episodes."""

    returns: list[float]
    lengths: list[int]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    def row(self) -> dict[str, Any]:
        """As a row of metrics."""
        return {
            "eval/return": self.mean,
            "eval/return_std": float(np.std(self.returns)),
            "eval/return_min": min(self.returns),
            "eval/return_max": max(self.returns),
            "eval/length": float(np.mean(self.lengths)),
            "eval/episodes": len(self.returns),
        }


@torch.no_grad()
def evaluate(
    agent: Agent,
    make_envs: Callable[[int], Any],
    episodes: int,
    seed: int,
    device: torch.device,
) -> Evaluation:
    """`episodes` episodes with mode "eval". Each environment plays a fixed share of them, so
    that short episodes are not over-represented."""
    envs = make_envs(min(episodes, MOST_ENVS))
    try:
        return _play(agent, envs, episodes, seed, device)
    finally:
        envs.close()


def _play(agent: Agent, envs: Any, episodes: int, seed: int, device: torch.device) -> Evaluation:
    count = envs.num_envs
    stepper = Stepper(envs, [derived(seed, "evaluated environment", i) for i in range(count)])
    random = generator(seed, "evaluator", device=device)
    quota = [episodes // count + (i < episodes % count) for i in range(count)]
    done: list[list[tuple[float, int]]] = [[] for _ in range(count)]
    state: State | None = None
    while any(len(found) < share for found, share in zip(done, quota, strict=True)):
        obs, first = stepper.tensors(device)
        payload, state = agent.act(obs, state, first, "eval", generator=random)
        action = payload.primary()
        assert action is not None, type(agent)
        stepper.step(action.cpu().numpy())
        for i in np.flatnonzero(stepper.now.is_last):
            if len(done[i]) < quota[i]:
                done[i].append((float(stepper.returns[i]), int(stepper.lengths[i])))
    played = [episode for found in done for episode in found]
    return Evaluation([ret for ret, _ in played], [length for _, length in played])
