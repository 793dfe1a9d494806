"""Episodes into core's store, in the one time convention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from worldflux.columns import step_columns
from worldflux.episodes import EpisodeWriter
from worldflux.spaces import action_specs, observation_specs
from worldflux_envs.wrappers.layer import Layer


class EpisodeRecorder(Layer):
    """Appends each episode to `folder` when it ends, with its seed and return as facts about it.

    One that is broken off by another `reset` or by `close` ends with its newest step.
    """

    state_attributes = ("_rows", "_seed")

    def __init__(self, env: gymnasium.Env[Any, Any], folder: str | Path) -> None:
        super().__init__(env, folder=str(folder))
        specs = action_specs(env.action_space)
        self._writer = EpisodeWriter(
            folder, step_columns(observation_specs(env.observation_space), specs)
        )
        [spec] = specs.values()
        self._no_action = np.zeros(spec.shape, spec.dtype)
        self._rows: list[dict[str, Any]] = []
        self._seed: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self._finish()
        obs, info = self.env.reset(seed=seed, options=options)
        self._seed = seed
        self._add(obs, 0.0, is_first=True)
        return obs, info

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._rows[-1]["action"] = np.array(action, self._no_action.dtype)
        self._add(obs, reward, is_last=terminated or truncated, is_terminal=terminated)
        if terminated or truncated:
            self._finish()
        return obs, reward, terminated, truncated, info

    def close(self) -> None:
        self._finish()
        self.env.close()

    def _add(self, obs: dict[str, Any], reward: Any, **flags: bool) -> None:
        row: dict[str, Any] = {f"obs.{key}": np.array(value) for key, value in obs.items()}
        row |= {"action": self._no_action, "reward": float(reward)}
        row |= dict.fromkeys(("is_first", "is_last", "is_terminal"), False)
        self._rows.append(row | flags)

    def _finish(self) -> None:
        rows, self._rows = self._rows, []
        if len(rows) < 2:  # a reset that nothing followed is no episode
            return
        rows[-1]["is_last"] = True
        episode = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        score = float(sum(row["reward"] for row in rows))
        self._writer.write(episode, **{"seed": self._seed, "return": score})
