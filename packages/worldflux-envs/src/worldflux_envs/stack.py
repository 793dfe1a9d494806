"""The wrappers every backend puts around its raw environments, chosen by the same options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import gymnasium
from gymnasium import spaces
from gymnasium.wrappers import FilterObservation

from worldflux.errors import EnvError, did_you_mean
from worldflux_envs.images import Filter
from worldflux_envs.wrappers import (
    ActionRepeat,
    Contract,
    FrameStack,
    GrayScale,
    RenderImage,
    ResizeImage,
    TimeLimit,
)
from worldflux_envs.wrappers.pixels import Size

Obs = Literal["state", "pixels", "both"]
OBS: tuple[str, ...] = get_args(Obs)
FRAMES = "frames_per_step"
"""Key of an environment's metadata: the frames of its own repeat in each of the agent's steps."""


def check_obs(obs: str) -> Obs:
    """`obs` if it is a kind of observation, else an error that names them."""
    if obs not in OBS:
        raise EnvError(f"obs={obs!r} is not one of {', '.join(OBS)}.{did_you_mean(obs, OBS)}")
    return obs  # type: ignore[return-value]


def frames_per_step(env: gymnasium.Env[Any, Any]) -> int:
    """How many frames of its own an environment takes for one step (Atari's frame skip)."""
    skip = getattr(env.unwrapped, "_frameskip", 1)  # as ALE's own environments call it
    return int(env.metadata.get(FRAMES, skip if isinstance(skip, int) else 1))


def used_size(size: Any, obs: str, default: Any = None) -> Any:
    """`size`, or the default for None; an error where there are no images it could be of."""
    if size is not None and obs == "state":
        raise EnvError(
            f"size={size!r} is the size of images, and this environment observes none: leave it "
            "out, or add obs='pixels'."
        )
    return default if size is None else size


def contract_env(
    env: gymnasium.Env[Any, Any],
    *,
    obs: Obs = "state",
    size: Size | None = None,
    resize: Filter = "area",
    gray: bool = False,
    frame_stack: int = 1,
    action_repeat: int = 1,
    max_episode_steps: int | None = None,
    rename: Mapping[str, str] | None = None,
    seed: int | None = None,
) -> gymnasium.Env[Any, Any]:
    """`env` behind the environment contract."""
    check_obs(obs)
    frames = frames_per_step(env)
    if action_repeat != 1:
        env = ActionRepeat(env, action_repeat)
    if max_episode_steps is not None:
        env = TimeLimit(env, max_episode_steps)
    env = Contract(env, rename=rename)
    env.metadata = {**env.metadata, FRAMES: frames}
    if obs != "state" and not _images(env):
        rendered = 64 if size is None else size
        env = RenderImage(env, size=rendered, method=resize, only=obs == "pixels")
    elif size is not None:
        used_size(size, "pixels" if _images(env) else "state")
        env = ResizeImage(env, size=size, method=resize)
    if obs == "pixels":
        env = _only_images(env)
    if gray:
        env = GrayScale(env)
    if frame_stack != 1:
        env = FrameStack(env, amount=frame_stack)
    if seed is not None:
        env.reset(seed=seed)
    return env


def _images(env: gymnasium.Env[Any, Any]) -> list[str]:
    space = env.observation_space
    assert isinstance(space, spaces.Dict), space
    return [key for key, part in space.spaces.items() if len(part.shape or ()) == 3]


def _only_images(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    images = _images(env)
    if len(images) == len(env.observation_space.spaces):  # type: ignore[attr-defined]
        return env
    return FilterObservation(env, images)
