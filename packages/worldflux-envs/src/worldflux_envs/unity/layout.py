"""What a behaviour observes and does, in the terms of the environment contract."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from worldflux.errors import EnvError
from worldflux_envs.images import resize
from worldflux_envs.stack import used_size

_CHANNELS = (1, 3, 4)


class Layout:
    """Spaces of a `BehaviorSpec`, and the conversions.

    Vectors are joined under "state" (goal signals under "goal"), the first image is "image", other
    images and all that is neither have their sensor's name. Observations of three axes are images
    if they have 1, 3 or 4 channels. Where a behaviour has continuous and discrete actions, one
    vector in [-1, 1] holds both: first the continuous ones, then one number for each branch, whose
    choices divide the interval evenly.
    """

    def __init__(self, spec: Any, *, obs: str = "state", size: tuple[int, int] | None = None):
        self.continuous = int(spec.action_spec.continuous_size)
        self.branches = np.array(spec.action_spec.discrete_branches, np.int64)
        self.action_space = self._actions()
        self._size = size
        self._sources: dict[str, list[int]] = {}
        for index, part in enumerate(spec.observation_specs):
            self._sources.setdefault(self._key(index, part), []).append(index)
        self._shapes = [tuple(part.shape) for part in spec.observation_specs]
        self.images = [key for key, at in self._sources.items() if _is_image(self._shapes[at[0]])]
        if obs != "state" and not self.images:
            raise EnvError(
                f"obs={obs!r} needs images, and this behaviour has no visual observation: add a "
                "camera sensor to its agent in Unity, or use obs='state'."
            )
        if not self.images:
            used_size(size, "state")
        self.keys = self.images if obs == "pixels" else list(self._sources)
        self.observation_space = spaces.Dict({key: self._space(key) for key in self.keys})

    def observed(self, parts: list[np.ndarray]) -> dict[str, np.ndarray]:
        """One agent's observation from ML-Agents' arrays of it."""
        return {key: self._value(key, parts) for key in self.keys}

    def told(self, action: Any) -> tuple[np.ndarray, np.ndarray]:
        """(continuous, discrete) of one action."""
        if not len(self.branches):
            return np.clip(np.asarray(action, np.float32).reshape(-1), -1, 1), _none(np.int32)
        if not self.continuous:
            return _none(np.float32), np.asarray(action, np.int32).reshape(-1)
        both = np.clip(np.asarray(action, np.float32).reshape(-1), -1, 1)
        unit = (both[self.continuous :] + 1) / 2
        choices = np.minimum((unit * self.branches).astype(np.int32), self.branches - 1)
        return both[: self.continuous], choices.astype(np.int32)

    def idle(self) -> tuple[np.ndarray, np.ndarray]:
        """(continuous, discrete) zeros."""
        return np.zeros(self.continuous, np.float32), np.zeros(len(self.branches), np.int32)

    def _actions(self) -> Space[Any]:
        if self.continuous or not len(self.branches):
            size = self.continuous + len(self.branches)
            return spaces.Box(-1.0, 1.0, (size,), np.float32)
        if len(self.branches) == 1:
            return spaces.Discrete(int(self.branches[0]))
        return spaces.MultiDiscrete(self.branches)

    def _key(self, index: int, part: Any) -> str:
        rank = len(part.shape)
        if rank == 1:
            return "goal" if part.observation_type.name == "GOAL_SIGNAL" else "state"
        if _is_image(part.shape) and "image" not in self._sources:
            return "image"
        name = re.sub(r"\W+", "_", part.name).strip("_").lower() or f"observation_{index}"
        return f"{name}_{index}" if name in {*self._sources, "state", "goal", "image"} else name

    def _space(self, key: str) -> Space[Any]:
        shapes = [self._shapes[index] for index in self._sources[key]]
        if key in self.images:
            rows, columns, channels = shapes[0]
            return spaces.Box(0, 255, (channels, *(self._size or (rows, columns))), np.uint8)
        width = sum(int(np.prod(shape)) for shape in shapes)
        return spaces.Box(-np.inf, np.inf, (width,), np.float32)

    def _value(self, key: str, parts: list[np.ndarray]) -> np.ndarray:
        found = [parts[index] for index in self._sources[key]]
        if key not in self.images:
            return np.concatenate([part.reshape(-1) for part in found]).astype(np.float32)
        image = np.rint(np.clip(found[0], 0, 1) * 255).astype(np.uint8).transpose(2, 0, 1)
        return image.copy() if self._size is None else resize(image, self._size)


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] in _CHANNELS


def _none(dtype: Any) -> np.ndarray:
    return np.zeros(0, dtype)
