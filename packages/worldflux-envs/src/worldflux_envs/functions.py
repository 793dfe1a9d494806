"""An environment from plain functions: `FunctionEnv(start=..., transition=..., ...)`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium import spaces
from numpy.random import Generator

from worldflux.errors import EnvError


class FunctionEnv(gymnasium.Env[Any, Any]):
    """A Gymnasium environment whose rules are functions of a state, which may be any object.

    `start(rng)` gives the state that an episode begins in, `transition(state, action, rng)` the
    next one; all chance comes from `rng` (a `numpy.random.Generator`), so that a seed is an
    episode. `reward(state, action, after)` is a number (default 0), `end(state)` whether the
    episode is over (default never), `observe(state)` what is seen (default the state itself), and
    `render(state)` a picture, uint8 (Y, X, 3). States are copied: a function may change its
    argument. A run resumes in mid-episode where the state can be saved.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        start: Callable[[Generator], Any],
        transition: Callable[[Any, Any, Generator], Any],
        reward: Callable[[Any, Any, Any], float] | None = None,
        end: Callable[[Any], bool] | None = None,
        observe: Callable[[Any], Any] | None = None,
        render: Callable[[Any], Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.metadata = {"render_modes": ["rgb_array"] if render else [], "render_fps": 20}
        if render_mode is not None and render is None:
            raise EnvError("An environment of functions without `render` draws no pictures.")
        self.observation_space, self.action_space = observation_space, action_space
        self.render_mode = render_mode
        self._start, self._transition, self._reward = start, transition, reward
        self._end, self._observe, self._draw = end, observe, render
        self.state: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self._start(self.np_random)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        before = self.state
        self.state = self._transition(copy.deepcopy(before), action, self.np_random)
        reward = 0.0 if self._reward is None else float(self._reward(before, action, self.state))
        over = False if self._end is None else bool(self._end(self.state))
        return self._seen(), reward, over, False, {}

    def render(self) -> Any:
        return None if self._draw is None else self._draw(self.state)

    def get_state(self) -> dict[str, Any]:
        """The running episode: its state, and the generator's."""
        return {"state": self.state, "random": self.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` gave."""
        self.state = state["state"]
        self.np_random.bit_generator.state = state["random"]

    def _seen(self) -> Any:
        return self.state if self._observe is None else self._observe(self.state)
