"""Steps environments with a snapshot of the agent, in a thread of its own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldflux.columns import OBS, STORED
from worldflux.core.agent import Agent
from worldflux.core.rand import Rand, randint, uniform
from worldflux.core.state import State
from worldflux.specs import TensorSpec
from worldflux_train.stepping import Stepper

Rows = dict[str, NDArray[Any] | Tensor]


@dataclass
class Chunk:
    """What one round collected: rows (num_envs, ...) per vector step, and finished episodes."""

    rows: list[Rows] = field(default_factory=list)
    steps: int = 0
    episodes: list[dict[str, Any]] = field(default_factory=list)


class Collector:
    """One row per environment and vector step: the observation, what came with it, the action.

    The terminal observation is a row of its own (its action means nothing and is not counted as
    a step); the next row is the reset. Everything random comes from `rand`.
    """

    def __init__(self, agent: Agent, stepper: Stepper, rand: Rand, device: torch.device) -> None:
        self.agent = agent.requires_grad_(False)
        self.stepper = stepper
        self.rand = rand
        self.device = device
        self.state: State | None = None
        self.forgets: bool | None = None
        self.columns = tuple(agent.columns)
        self.warned = False
        self.action_spec = next(iter(agent.action_spec.values()))

    @torch.no_grad()
    def follow(self, agent: Agent) -> None:
        """Take over the weights of `agent` as they are now."""
        ours, theirs = self.agent.state_dict(), agent.state_dict()
        for name, tensor in theirs.items():
            ours[name].copy_(tensor)

    @torch.no_grad()
    def collect(self, vector_steps: int, step: int, prefill: int = 0) -> Chunk:
        """`vector_steps` steps of every environment; random actions before agent step `prefill`."""
        chunk = Chunk()
        for _ in range(vector_steps):
            self._step(chunk, step, random=step + chunk.steps < prefill)
        return chunk

    def _step(self, chunk: Chunk, step: int, random: bool) -> None:
        obs, is_first = self.stepper.tensors(self.device)
        stored: Mapping[str, Tensor] = {}
        if random and self._forgets():
            self.state = None  # what it held belongs to steps before these
            action = random_action(self.action_spec, len(is_first), self.rand)
        else:
            action, stored = self._act(obs, is_first, random)
        chunk.rows.append(self._rows(action, stored))
        chunk.steps += int((~self.stepper.now.is_last).sum())
        self.stepper.step(action.cpu().numpy())
        self._count_episodes(chunk, step)
        if not self.warned and bool(self.stepper.now.is_terminal.any()):
            self._warn_of_termination()

    def _warn_of_termination(self) -> None:
        """Say once that an episode has terminated, where the agent ignores that."""
        self.warned = True
        advice = self.agent.ignores_terminations
        if advice:
            name = type(self.agent).__name__
            warnings.warn(
                f"An episode has terminated, which {name} ignores. {advice}", stacklevel=2
            )

    def _forgets(self) -> bool:
        """Whether random steps leave nothing behind that acting or learning needs later."""
        if self.forgets is None:
            self.forgets = not self.agent.replay_spec and not self.agent.remembers
        return self.forgets

    def _act(
        self, obs: Mapping[str, Tensor], is_first: Tensor, random: bool
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The agent's action, or a random one it is told of, and what replay keeps of its state."""
        action: Tensor | None
        if random:
            state = self.agent.observe(obs, self.state, is_first, rand=self.rand)
            action = random_action(self.action_spec, len(is_first), self.rand)
            state = self.agent.took(state, action)  # its next state is conditioned on it
        else:
            payload, state = self.agent.act(obs, self.state, is_first, "train", rand=self.rand)
            action = payload.primary()
            assert action is not None, type(self.agent)
        self.state = state
        return action, self.agent.replay_values(state)

    def _rows(self, action: Tensor, stored: Mapping[str, Tensor]) -> Rows:
        now = self.stepper.now
        rows: Rows = {
            **{f"{OBS}{key}": value for key, value in now.obs.items()},
            "action": action,
            "reward": now.reward,
            "is_first": now.is_first,
            "is_last": now.is_last,
            "is_terminal": now.is_terminal,
            **{f"{STORED}{key}": value for key, value in stored.items()},
        }
        return {name: rows[name] for name in self.columns if name in rows}

    def _count_episodes(self, chunk: Chunk, step: int) -> None:
        for i in np.flatnonzero(self.stepper.now.is_last):
            chunk.episodes.append(
                {
                    "step": step + chunk.steps,
                    "episode/return": float(self.stepper.returns[i]),
                    "episode/length": int(self.stepper.lengths[i]),
                    "episode/env": int(i),
                }
            )


def random_action(spec: TensorSpec, rows: int, rand: Rand) -> Tensor:
    """Uniform actions (rows, ...): [-1, 1], or any of the choices."""
    if not spec.discrete:
        return rand.draw("action", (rows, *spec.shape), uniform) * 2 - 1
    parts = [
        rand.draw(f"action{i}", (rows,), randint(count)) for i, count in enumerate(spec.counts)
    ]
    return torch.stack(parts, -1).reshape(rows, *spec.shape)
