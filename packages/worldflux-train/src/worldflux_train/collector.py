"""Steps environments with a snapshot of the agent, in a thread of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldflux import distributed
from worldflux.columns import OBS, STORED
from worldflux.core.agent import Agent
from worldflux.core.rand import Rand, randint, uniform
from worldflux.core.state import State
from worldflux.specs import TensorSpec
from worldflux_train.acting_stream import ActingStream
from worldflux_train.parts import generator_of, read_part, under, write_part
from worldflux_train.stepping import Stepper

Rows = dict[str, NDArray[Any] | Tensor]
FILE = "collector"


@dataclass
class Chunk:
    """What one round collected: a message of values on the host that refers to nothing else.

    `rows` hold (lanes, ...) per vector step and come from the environments `lanes`, whose actions
    were chosen with the weights of `version`; `steps` counts the actions.
    """

    lanes: tuple[int, ...]
    version: int
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
        self.stream = ActingStream(device)
        self.state: State | None = None
        self.forgets: bool | None = None
        self.columns = tuple(agent.columns)
        self.warned = False
        self.action_spec = next(iter(agent.action_spec.values()))
        self.version: int | None = 0
        """Updates that were done when the weights were handed over; None: they are not known."""
        self.prepared = False
        """The coming round's weights were handed over before updates that come after them."""

    @torch.no_grad()
    def follow(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Take over `weights` (names of the agent's `state_dict`), `version` updates old.

        Nothing is copied where that version is held already.
        """
        if version != self.version:
            _copy(weights, self.agent.state_dict())
            self.stream.weights_written()
            self.version = version

    @contextmanager
    def borrowed(self, weights: Mapping[str, Tensor]) -> Iterator[Agent]:
        """The acting agent with `weights` in place, which inside `with` plays elsewhere."""
        ours = self.agent.state_dict()
        before = {name: ours[name].clone() for name in weights}
        _copy(weights, ours)
        try:
            yield self.agent
        finally:
            _copy(before, ours)
            self.stream.weights_written()

    @torch.no_grad()
    def collect(self, vector_steps: int, step: int, prefill: int = 0) -> Chunk:
        """`vector_steps` steps of every environment; random actions before step `prefill`.

        Steps are those of all ranks together, each of which is taken to be as far as this one.
        """
        assert self.version is not None, "follow() comes first"
        self.prepared = False
        chunk = Chunk(tuple(range(self.stepper.num_envs)), self.version)
        with self.stream.acting():
            for _ in range(vector_steps):
                taken = chunk.steps * distributed.world_size()
                self._step(chunk, step, random=step + taken < prefill)
        return chunk

    def save(self, folder: Path) -> None:
        """Write the acting state, the generator and the environments.

        The weights are written only where the learner's own are newer than the coming round's.
        """
        tensors = {"generator": generator_of(self.rand).get_state()}
        if self.state is not None:
            tensors |= {f"state/{key}": value for key, value in self.state.tensors.items()}
        if self.prepared:
            tensors |= {f"weights/{key}": value for key, value in self.agent.state_dict().items()}
        meta = None if self.state is None else self.state.meta
        about = {"meta": meta, "version": self.version if self.prepared else None}
        write_part(folder, FILE, tensors, about)
        self.stepper.save(folder)

    def load(self, folder: Path) -> None:
        """Take over what was saved; weights that were not are still to be handed over."""
        tensors, saved = read_part(folder, FILE)
        generator_of(self.rand).set_state(tensors["generator"])
        self.state = None
        if saved["meta"] is not None:
            found = State(under("state/", tensors), dict(saved["meta"]))
            with self.stream.acting():  # which frees it at the next step
                self.state = found.to(self.device)
        self.version = saved["version"]
        self.prepared = self.version is not None
        _copy(under("weights/", tensors), self.agent.state_dict())
        self.stream.weights_written()
        self.stepper.load(folder)

    def _step(self, chunk: Chunk, step: int, random: bool) -> None:
        obs, is_first = self.stepper.tensors(self.device)
        stored: Mapping[str, Tensor] = {}
        if random and self._forgets():
            self.state = None  # what it held belongs to steps before these
            action = random_action(self.action_spec, len(is_first), self.rand)
        else:
            action, stored = self._act(obs, is_first, random)
        action = action.cpu()
        chunk.rows.append(self._rows(action, stored))
        chunk.steps += int((~self.stepper.now.is_last).sum())
        self.stepper.step(action.numpy())
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
            **{f"{STORED}{key}": value.cpu() for key, value in stored.items()},
        }
        return {name: rows[name] for name in self.columns if name in rows}

    def _count_episodes(self, chunk: Chunk, step: int) -> None:
        for i in np.flatnonzero(self.stepper.now.is_last):
            chunk.episodes.append(
                {
                    "step": step + chunk.steps * distributed.world_size(),
                    "episode/return": float(self.stepper.returns[i]),
                    "episode/length": int(self.stepper.lengths[i]),
                    "episode/env": int(i),
                }
            )


@torch.no_grad()
def _copy(weights: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        into[name].copy_(tensor)


def random_action(spec: TensorSpec, rows: int, rand: Rand) -> Tensor:
    """Uniform actions (rows, ...): [-1, 1], or any of the choices."""
    if not spec.discrete:
        return rand.draw("action", (rows, *spec.shape), uniform) * 2 - 1
    parts = [
        rand.draw(f"action{i}", (rows,), randint(count)) for i, count in enumerate(spec.counts)
    ]
    return torch.stack(parts, -1).reshape(rows, *spec.shape)
