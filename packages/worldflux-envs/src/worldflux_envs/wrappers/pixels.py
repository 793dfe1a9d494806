"""Wrappers for images of a Dict observation, all (C, Y, X)."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs.boundary.observations import refuse_heads
from worldflux_envs.images import FILTERS, Filter, resize
from worldflux_envs.wrappers.layer import Layer

Size = int | tuple[int, int]
# Rec. 601 luma, as ALE's and most replays' grey images.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def as_size(size: Size) -> tuple[int, int]:
    """(rows, columns) from one number or two."""
    rows, columns = (size, size) if isinstance(size, int) else size
    if rows < 1 or columns < 1:
        raise EnvError(f"An image size is one positive number or (rows, columns), got {size}.")
    return rows, columns


class ImageLayer(Layer):
    """Maps each image of a Dict observation; `keys` defaults to every (C, Y, X) one."""

    def __init__(
        self, env: gymnasium.Env[Any, Any], keys: tuple[str, ...] | None = None, **options: Any
    ) -> None:
        super().__init__(env, keys=keys, **options)
        space = env.observation_space
        if not isinstance(space, spaces.Dict):
            raise EnvError(f"{type(self).__name__} needs Dict observations; use ObsDict first.")
        images = tuple(k for k, v in space.spaces.items() if len(v.shape or ()) == 3)
        self._keys = images if keys is None else keys
        if not self._keys or not set(self._keys) <= set(images):
            raise EnvError(
                f"{type(self).__name__} found no image {self._keys or ''}: "
                f"observations are {space}."
            )
        self.configure(**options)
        changed = {key: self.mapped_space(space.spaces[key]) for key in self._keys}
        self.observation_space = spaces.Dict({**space.spaces, **changed})

    def configure(self) -> None:
        """Take the options of the wrapper."""

    def mapped_space(self, space: Any) -> spaces.Space[Any]:
        """The space of an image after `mapped`."""
        raise NotImplementedError

    def mapped(self, key: str, image: np.ndarray) -> np.ndarray:
        """One image (C, Y, X) as this wrapper gives it."""
        raise NotImplementedError

    def _all(self, obs: dict[str, Any]) -> dict[str, Any]:
        return {**obs, **{key: self.mapped(key, obs[key]) for key in self._keys}}

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._all(obs), info

    def step(self, action: Any) -> Any:
        obs, *rest = self.env.step(action)
        return self._all(obs), *rest


class ResizeImage(ImageLayer):
    """Images at `size`, area- or bilinear-filtered, dtype kept."""

    def configure(self, size: Size = 64, method: Filter = "area") -> None:
        if method not in FILTERS:
            raise EnvError(f"There is no filter {method!r}: choose one of {', '.join(FILTERS)}.")
        self._size, self._method = as_size(size), method

    def mapped_space(self, space: Any) -> spaces.Space[Any]:
        shape = (space.shape[0], *self._size)
        return spaces.Box(space.low.min(), space.high.max(), shape, space.dtype)

    def mapped(self, key: str, image: np.ndarray) -> np.ndarray:
        return resize(image, self._size, self._method)


class GrayScale(ImageLayer):
    """Colour images (3, Y, X) as grey ones (1, Y, X), by luma."""

    def mapped_space(self, space: Any) -> spaces.Space[Any]:
        if space.shape[0] != 3:
            raise EnvError(f"GrayScale needs images of 3 channels, got shape {space.shape}.")
        return spaces.Box(space.low.min(), space.high.max(), (1, *space.shape[1:]), space.dtype)

    def mapped(self, key: str, image: np.ndarray) -> np.ndarray:
        grey = np.tensordot(_LUMA, image, axes=1)[None]
        return np.rint(grey).astype(image.dtype) if image.dtype.kind in "iu" else grey


class FrameStack(ImageLayer):
    """The last `amount` images along the channels (amount * C, Y, X), the first one repeated."""

    state_attributes = ("_frames",)

    def configure(self, amount: int = 4) -> None:
        if amount < 1:
            raise EnvError(f"FrameStack needs amount >= 1, got {amount}.")
        self._amount = amount
        self._frames: dict[str, deque[np.ndarray]] = {}

    def mapped_space(self, space: Any) -> spaces.Space[Any]:
        repeats = (self._amount, 1, 1)
        return spaces.Box(
            np.tile(space.low, repeats), np.tile(space.high, repeats), dtype=space.dtype
        )

    def mapped(self, key: str, image: np.ndarray) -> np.ndarray:
        # (C, Y, X) oldest first
        frames = self._frames.setdefault(key, deque([image] * self._amount, self._amount))
        frames.append(image)
        return np.concatenate(frames)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._frames.clear()
        return super().reset(**kwargs)


class RenderImage(Layer):
    """The rendered picture as an image observation under `key`; `only` drops all others."""

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        key: str = "image",
        size: Size = 64,
        method: Filter = "area",
        only: bool = False,
    ) -> None:
        super().__init__(env, key=key, size=size, method=method, only=only)
        if env.render_mode != "rgb_array":
            raise EnvError(
                f"RenderImage needs an environment made with render_mode='rgb_array', "
                f"not {env.render_mode!r}."
            )
        if not isinstance(env.observation_space, spaces.Dict):
            raise EnvError("RenderImage needs Dict observations; use ObsDict first.")
        refuse_heads([key], "`key`")
        self._key, self._only, self._method, self._size = key, only, method, as_size(size)
        image = spaces.Box(0, 255, (3, *self._size), np.uint8)
        others = {} if only else env.observation_space.spaces
        self.observation_space = spaces.Dict({**others, key: image})

    def _rendered(self, obs: dict[str, Any]) -> dict[str, Any]:
        frame = np.asarray(self.env.render())  # (Y, X, C)
        image = resize(frame.transpose(2, 0, 1), self._size, self._method)
        return {self._key: image} if self._only else {**obs, self._key: image}

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._rendered(obs), info

    def step(self, action: Any) -> Any:
        obs, *rest = self.env.step(action)
        return self._rendered(obs), *rest
