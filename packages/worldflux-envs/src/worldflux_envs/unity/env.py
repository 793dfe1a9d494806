"""Unity agents as one Gymnasium environment, or as a vector environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs.seeding import entropy_seed
from worldflux_envs.unity.agents import Agents
from worldflux_envs.unity.player import EDITOR, Launch
from worldflux_envs.vector.base import Command, EpisodicVectorEnv, Failure, Reply
from worldflux_envs.vector.buffers import plain

METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}


class UnityEnv(gymnasium.Env[dict[str, np.ndarray], Any]):
    """A player with one agent of the behaviour; `options` as in `Agents`."""

    metadata = METADATA

    def __init__(self, launch: Launch, *, render_mode: str | None = None, **options: Any) -> None:
        self.agents = Agents(launch, **options)
        self.player, self.render_mode = self.agents.player, render_mode
        count = len(self.agents.rows)
        if count != 1:
            self.close()
            raise EnvError(
                f"unity/{self.player.name} has {count} agents of {self.agents.behavior}: they are "
                f"a vector environment, make_vec_env(..., num_envs={count})."
            )
        self.observation_space: spaces.Space[Any] = self.agents.layout.observation_space
        self.action_space = self.agents.layout.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode; `options` are environment parameters."""
        super().reset(seed=seed)
        if self.player.alive:
            self.player.set_parameters(**(options or {}))
        self.agents.begin(int(self.np_random.integers(2**31)) if seed is None else seed)
        return self._seen()

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        [result] = self.agents.advance({0: action}, set()).values()
        obs, info = self._seen()
        return obs, *result, info

    def render(self) -> np.ndarray:
        """What the agent's first camera sees, (Y, X, C) uint8."""
        return _picture(self.agents, 0)

    def close(self) -> None:
        self.player.close()

    def _seen(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        [row] = self.agents.rows
        return row.observed, row.info


class UnityVec(EpisodicVectorEnv):
    """`num_envs` agents: those of one player, or of as many players as it takes."""

    restarts_rows = False

    def __init__(
        self, launch: Launch, num_envs: int, *, copy: bool = True, seed: int | None = None,
        render_mode: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        first = 0 if seed is None else seed
        self.groups = [Agents(launch, seed=first, **options)]
        self.each = len(self.groups[0].rows)
        self._pool: ThreadPoolExecutor | None = None
        count, rest = divmod(num_envs, self.each)
        name = self.groups[0].player.name
        if rest or (count > 1 and launch.path == EDITOR):
            self.groups[0].player.close()
            raise EnvError(
                f"unity/{name} has {self.each} agents of {self.groups[0].behavior}: num_envs must "
                f"be {self.each}{'' if launch.path == EDITOR else ' or a multiple'}, "
                f"not {num_envs}."
            )
        if count > 1:
            self._pool = ThreadPoolExecutor(count)
            self._join(
                lambda n: Agents(_another(launch, n), seed=first + n, **options), range(1, count)
            )
        layout = self.groups[0].layout
        super().__init__(
            num_envs, layout.observation_space, layout.action_space, name=f"unity/{name}",
            metadata=METADATA, render_mode=render_mode, copy=copy, seed=seed,
        )  # fmt: skip
        self.buffers = plain(layout.observation_space, num_envs)

    def execute(self, indices: Sequence[int], commands: Sequence[Command]) -> list[Reply | Failure]:
        by_group: dict[int, dict[int, Command]] = {}
        for i, command in zip(indices, commands, strict=True):
            by_group.setdefault(i // self.each, {})[i % self.each] = command
        run = map if self._pool is None else self._pool.map
        found = list(run(self._told, by_group, by_group.values()))
        replies: dict[int, Reply | Failure] = {}
        for group, part in zip(by_group, found, strict=True):
            replies |= {group * self.each + row: reply for row, reply in part.items()}
        return [replies[i] for i in indices]

    def set_parameters(self, **values: float) -> None:
        """Environment parameters of all players, sent with their next step."""
        for group in self.groups:
            group.player.set_parameters(**values)

    def render(self) -> tuple[np.ndarray, ...]:
        """What the first camera of each agent sees."""
        return tuple(_picture(self.groups[i // self.each], i % self.each)
                     for i in range(self.num_envs))  # fmt: skip

    def close_extras(self, **kwargs: Any) -> None:
        for group in self.groups:
            group.player.close()
        if self._pool is not None:
            self._pool.shutdown()

    def _told(self, group: int, commands: dict[int, Command]) -> dict[int, Reply | Failure]:
        """Carry out the commands of one player's rows; its failure is that of all of them."""
        agents = self.groups[group]
        if any(kind == "get_state" for kind, _ in commands.values()):
            return {row: (0.0, False, False, {"state": None}) for row in commands}
        actions = {row: value for row, (kind, value) in commands.items() if kind == "step"}
        begun = {row: value for row, (kind, value) in commands.items() if kind != "step"}
        results: dict[int, tuple[float, bool, bool]] = dict.fromkeys(begun, (0.0, False, False))
        try:
            all_anew = not actions and (len(begun) == self.each or not agents.ready(begun))
            if all_anew or not agents.player.alive:
                agents.begin(next(iter(begun.values()))[0] if begun else entropy_seed())
            else:
                results |= agents.advance(actions, set(begun))
        except EnvError as error:
            return dict.fromkeys(commands, Failure(str(error)))
        for row in commands:
            for key, buffer in self.buffers.items():
                buffer[group * self.each + row] = agents.rows[row].observed[key]
        return {row: (*results[row], dict(agents.rows[row].info)) for row in commands}

    def _join(self, start: Callable[[int], Agents], numbers: Sequence[int]) -> None:
        """Start the other players at once; if one fails, none is left."""
        assert self._pool is not None
        futures = [self._pool.submit(start, n) for n in numbers]
        failures = []
        for future in futures:
            error = future.exception()
            if error is None:
                self.groups.append(future.result())
            else:
                failures.append(error)
        if failures:
            self.close_extras()
            raise failures[0]


def _another(launch: Launch, n: int) -> Launch:
    return launch if launch.worker_id is None else replace(launch, worker_id=launch.worker_id + n)


def _picture(agents: Agents, row: int) -> np.ndarray:
    observed = agents.rows[row].observed
    if "image" not in observed:
        raise EnvError(
            f"unity/{agents.player.name}: {agents.behavior} observes no image, so there is nothing "
            "to render: add a camera sensor to the agent in Unity."
        )
    return observed["image"].transpose(1, 2, 0).copy()
