"""What really happens, beside the dream: an environment, a recorded episode, or one observation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from worldflux.columns import ACTION, OBS, REWARD, under
from worldflux.core.model import WorldModel
from worldflux.episodes import Episode, rows_of
from worldflux.errors import ConfigError, EnvError
from worldflux.factory import make_env
from worldflux.spaces import action_specs, observation_specs

Array = NDArray[Any]


@dataclass(frozen=True)
class Moment:
    """What arrived together: observations (...) by key, a reward, and whether the episode is over.

    `ended` is an end of the world's own, `over` also a time limit or the end of a recording.
    `picture` (Y, X, 3) uint8 is what the environment draws of itself, where it does.
    """

    obs: dict[str, Array]
    reward: float = 0.0
    ended: bool = False
    over: bool = False
    picture: Array | None = None


class Reality(Protocol):
    """One side of the page: it begins anew from a seed and goes on by actions."""

    def begin(self, seed: int) -> Moment | None:
        """The first moment of an episode; None where there is no reality at all."""

    def step(self, action: Array) -> Moment | None:
        """What `action` led to; None where nobody knows."""

    def recorded(self) -> Array | None:
        """The action that was recorded here, where one was."""

    def close(self) -> None:
        """Give back what it holds."""


class Environment:
    """A real environment; asked to draw itself where the model sees no image."""

    def __init__(
        self, env_id: str, options: dict[str, Any], draws: bool, model: WorldModel
    ) -> None:
        self.env = _made(env_id, options, draws)
        self.draws = draws
        try:
            _require_fits(env_id, self.env, model)
        except ConfigError:
            self.env.close()
            raise

    def begin(self, seed: int) -> Moment:
        obs, _ = self.env.reset(seed=seed)
        return Moment(_copied(obs), picture=self._picture())

    def step(self, action: Array) -> Moment:
        obs, reward, terminated, truncated, _ = self.env.step(action)
        ended = bool(terminated)
        return Moment(_copied(obs), float(reward), ended, ended or bool(truncated), self._picture())

    def recorded(self) -> Array | None:
        return None

    def close(self) -> None:
        self.env.close()

    def _picture(self) -> Array | None:
        """What the environment draws, None where it cannot."""
        if not self.draws:
            return None
        try:
            found = self.env.render()
        except NotImplementedError:
            return None
        whole = isinstance(found, np.ndarray) and found.ndim == 3 and found.shape[-1] == 3
        return found if whole else None


class Recording:
    """A recorded episode: what is known along its own actions, and nothing beside them."""

    def __init__(self, episode: Episode) -> None:
        self.episode, self.rows = episode, rows_of(episode)
        self.keys = under(OBS, episode)
        self.at, self.left = 0, False

    def begin(self, seed: int) -> Moment:
        self.at, self.left = 0, False
        return self._moment()

    def step(self, action: Array) -> Moment | None:
        """The next row, if this is the action that was recorded; then nobody knows any more."""
        recorded = self.recorded()
        if recorded is None or not np.array_equal(recorded, action):
            self.left = True
            return None
        self.at += 1
        return self._moment()

    def recorded(self) -> Array | None:
        if self.left or ACTION not in self.episode or self.at >= self.rows - 1:
            return None
        return np.array(self.episode[ACTION][self.at])

    def close(self) -> None:
        """Nothing is held."""

    def _moment(self) -> Moment:
        row, last = self.at, self.at == self.rows - 1
        reward = float(self.episode[REWARD][row]) if REWARD in self.episode else 0.0
        return Moment(
            {key: np.array(self.episode[name][row]) for key, name in self.keys.items()},
            reward, last and bool(self.episode["is_terminal"][row]), last,
        )  # fmt: skip


class Still:
    """One observation, or none: all that follows is dreamt."""

    def __init__(self, obs: dict[str, Array] | None) -> None:
        self.obs = obs

    def begin(self, seed: int) -> Moment | None:
        return None if self.obs is None else Moment(self.obs)

    def step(self, action: Array) -> None:
        return None

    def recorded(self) -> None:
        return None

    def close(self) -> None:
        """Nothing is held."""


def _require_fits(env_id: str, env: Any, model: WorldModel) -> None:
    """Raise `ConfigError` unless the environment has what the model sees, and takes its actions."""
    found = observation_specs(env.observation_space)
    for key, spec in model.obs_spec.items():
        if key not in found or found[key].shape != spec.shape:
            has = ", ".join(f"{name} {each.shape}" for name, each in found.items())
            raise ConfigError(
                f"{env_id} shows {has}; the model sees {key} {spec.shape}. Give another --env."
            )
    [action] = action_specs(env.action_space).values()
    wanted = model.action_spec.get("action", model.action)
    if wanted is None or (action.shape, action.n) != (wanted.shape, wanted.n):
        taken = "none" if wanted is None else f"{wanted.n or wanted.shape}"
        raise ConfigError(
            f"{env_id} takes actions of {action.n or action.shape}, the model of {taken}. Give "
            "another --env, or --data."
        )


def _made(env_id: str, options: dict[str, Any], draws: bool) -> Any:
    if draws:
        try:
            return make_env(env_id, **{"render_mode": "rgb_array", **options})
        except (EnvError, TypeError):  # this backend does not draw
            return make_env(env_id, **options)
    return make_env(env_id, **options)


def _copied(obs: dict[str, Any]) -> dict[str, Array]:
    return {key: np.array(value) for key, value in obs.items()}
