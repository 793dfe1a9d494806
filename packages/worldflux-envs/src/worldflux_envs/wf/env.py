"""One row of a game as a `gymnasium.Env`, and many as a vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from worldflux_envs.resume import as_single, pack, unpack
from worldflux_envs.vector.base import Command, EpisodicVectorEnv, Failure, Reply
from worldflux_envs.vector.buffers import plain
from worldflux_envs.wf.game import GameState
from worldflux_envs.wf.games import game as by_name
from worldflux_envs.wf.rows import Rows

FPS = 20


class WfEnv(gymnasium.Env[Any, Any]):
    """`obs` is "state", "pixels" or "both"; `size` that of the images."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012 - gymnasium's

    def __init__(
        self, task: str, *, obs: str = "state", size: int = 64, render_mode: str | None = None
    ) -> None:
        self.game = by_name(task)
        self.rows = Rows(self.game, obs=obs, size=size)
        self.render_mode = render_mode
        self.observation_space = self.game.observation_space(obs, size)
        self.action_space = self.game.action_space()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**31)) if seed is None else seed
        return _row(self.rows.reset(torch.tensor([chosen]))), self.info()

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        rows = self.rows
        rows.state, reward, terminated, truncated = rows.advance(
            rows.state, torch.as_tensor(np.asarray(action))[None]
        )
        obs = _row(self.game.observe(rows.state, rows.obs, rows.size))
        return obs, float(reward[0]), bool(terminated[0]), bool(truncated[0]), self.info()

    def observation(self) -> dict[str, np.ndarray]:
        """What is observed in the present state."""
        return _row(self.game.observe(self.rows.state, self.rows.obs, self.rows.size))

    def set_goal(self, state: dict[str, np.ndarray]) -> None:
        """Make it the goal to be where the state (of `get_state`) is; nothing else changes."""
        at = {key: torch.from_numpy(np.array(x)) for key, x in state.items()}
        self.rows.state = self.game.aimed(self.rows.state, at)

    def info(self) -> dict[str, Any]:
        """ "position", where the player is in the picture, (x, y) in [0, 1]."""
        found = self.game.position(self.rows.state)
        return {} if found is None else {"position": found[0].numpy().astype(np.float32)}

    def render(self) -> np.ndarray:
        """The picture (256, 256, 3) uint8."""
        return self.game.picture(self.rows.state, 256)[0].permute(1, 2, 0).numpy()

    def oracle(self) -> Any:
        """A good action, from the true state."""
        action = self.game.oracle(self.rows.state)[0].numpy()
        return int(action) if action.ndim == 0 else action

    def get_state(self) -> dict[str, np.ndarray]:
        """The running episode (see `worldflux_envs.resume`)."""
        return {key: value.numpy() for key, value in self.rows.state.items()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from what `get_state` gave."""
        self.rows.state = {key: torch.from_numpy(np.array(x)) for key, x in state.items()}


class WfVec(EpisodicVectorEnv):
    """`num_envs` rows stepped as one batch."""

    def __init__(
        self, task: str, num_envs: int, *, obs: str = "state", size: int = 64,
        copy: bool = True, seed: int | None = None, render_mode: str | None = None,
    ) -> None:  # fmt: skip
        self.game = by_name(task)
        self.rows = Rows(self.game, obs=obs, size=size)
        super().__init__(
            num_envs, self.game.observation_space(obs, size), self.game.action_space(),
            name=f"wf/{task}", metadata=WfEnv.metadata, render_mode=render_mode, copy=copy,
            seed=seed,
        )  # fmt: skip
        self.buffers = plain(self.single_observation_space, num_envs)  # type: ignore[arg-type]
        self.rows.state = self.rows.begin(torch.zeros(num_envs, dtype=torch.int64))

    def execute(self, indices: Sequence[int], commands: Sequence[Command]) -> list[Reply | Failure]:
        replies: dict[int, Reply] = {}
        by_kind: dict[str, list[tuple[int, Any]]] = {}
        for i, (kind, value) in zip(indices, commands, strict=True):
            by_kind.setdefault(kind, []).append((i, value))
        for kind, group in by_kind.items():
            where, values = [i for i, _ in group], [value for _, value in group]
            replies |= getattr(self, f"_{kind}")(where, values)
        observed = self.game.observe(self._part(list(indices)), self.rows.obs, self.rows.size)
        for key, buffer in self.buffers.items():
            buffer[list(indices)] = observed[key].numpy()
        return [replies[i] for i in indices]

    def render(self) -> tuple[np.ndarray, ...]:
        """The picture (256, 256, 3) uint8 of every row."""
        return tuple(self.game.picture(self.rows.state, 256).permute(0, 2, 3, 1).numpy())

    def oracle(self) -> np.ndarray:
        """Good actions of every row, from the true states."""
        return self.game.oracle(self.rows.state).numpy()

    def _reset(self, where: list[int], values: list[Any]) -> dict[int, Reply]:
        seeds = torch.tensor([seed for seed, _ in values])
        self._put(where, self.rows.begin(seeds))
        return {i: (0.0, False, False, {}) for i in where}

    def _step(self, where: list[int], values: list[Any]) -> dict[int, Reply]:
        action = torch.from_numpy(np.stack(values))
        after, *found = self.rows.advance(self._part(where), action)
        self._put(where, after)
        reward, terminated, truncated = (value.tolist() for value in found)
        return {i: (reward[n], terminated[n], truncated[n], {}) for n, i in enumerate(where)}

    def _get_state(self, where: list[int], values: list[Any]) -> dict[int, Reply]:
        parts = {i: {k: v.numpy() for k, v in self._part([i]).items()} for i in where}
        return {i: (0.0, False, False, {"state": as_single(pack(x))}) for i, x in parts.items()}

    def _set_state(self, where: list[int], values: list[Any]) -> dict[int, Reply]:
        for i, (_, state) in zip(where, values, strict=True):
            saved = unpack(state["env"])
            self._put([i], {key: torch.from_numpy(x) for key, x in saved.items()})
        return {i: (0.0, False, False, {}) for i in where}

    def _part(self, where: list[int]) -> GameState:
        return {key: value[where] for key, value in self.rows.state.items()}

    def _put(self, where: list[int], part: GameState) -> None:
        for key, value in part.items():
            self.rows.state[key][where] = value


def _row(obs: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {key: value[0].numpy() for key, value in obs.items()}
