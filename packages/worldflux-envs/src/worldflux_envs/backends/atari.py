"""Backend `atari`: the Arcade Learning Environment, vectorised by its own engine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

hookimpl = pluggy.HookimplMarker("worldflux")
_SCREEN = {"size", "resize", "gray", "frame_stack", "max_pool", "fire_reset"}
OPTIONS = {
    "obs": "'pixels' (the screen) or 'ram' (the console's 128 bytes, as a vector in [0, 1])",
    "size": "image size, one number or (rows, columns); default 64",
    "resize": "filter of the image size: 'area' (the engine's own) or 'bilinear' (as Pillow's)",
    "gray": "grey images instead of RGB",
    "frame_stack": "number of images stacked along the channels (black before the first)",
    "frame_skip": "frames each action is held for; default 4",
    "max_pool": "the maximum of the last two frames; default True",
    "noops": "up to so many no-op frames at the start; default 30",
    "sticky": "probability of repeating the last action, each frame; default 0.25",
    "fire_reset": "press fire at the start",
    "full_action_space": "all 18 actions",
    "life_loss": "a lost life ends the episode, while the game goes on in the next one",
    "clip_rewards": "rewards clipped to [-1, 1]",
    "evaluation": "True: life_loss and clip_rewards are off, whatever they say",
    "max_episode_steps": "truncate episodes after so many of the agent's steps (27,000)",
}


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `atari` backend."""
    from worldflux_envs.options import VECTOR

    return [
        EnvSpec(
            backend="atari",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            tasks=f"{__name__}:tasks",
            description="Atari 2600 games with the standard preprocessing",
            aliases=("ale",),
            requires=("ale_py",),
            install='pip install "worldflux-envs[atari]"',
            vector=VECTOR,
            options=OPTIONS,
            evaluation={"evaluation": True},
        )
    ]


def make(task: str, *, render_mode: str | None = None, **options: Any) -> gymnasium.Env[Any, Any]:
    """The game `Pong`, `ms_pacman` or `ALE/MsPacman-v5`."""
    from worldflux_envs.ale import AtariEnv
    from worldflux_envs.wrappers import Contract

    seed = options.pop("seed", None)
    if options.get("obs") == "ram":
        return _ram(task, render_mode, seed, options)
    env = Contract(AtariEnv(task, render_mode=render_mode, **_engine(options)))
    if seed is not None:
        env.reset(seed=seed)
    return env


def make_vec(task: str, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` games in ALE's threads, or as `mode` says."""
    from worldflux_envs.vector import make_vec as vectorise

    # Only single environments render.
    in_the_way = ["render_mode"] if options.get("render_mode") else []
    in_the_way += ["obs=ram"] if options.get("obs") == "ram" else []
    native = None if in_the_way else _native
    # One row for each thread: making and resetting games takes longer than the trial itself.
    trial = os.cpu_count() or 1
    return vectorise(
        make, task, num_envs, name="atari", native=native, trial=trial, not_native=in_the_way,
        **options,
    )  # fmt: skip


def _ram(
    task: str, render_mode: str | None, seed: int | None, options: dict[str, Any]
) -> gymnasium.Env[Any, Any]:
    from worldflux.errors import EnvError
    from worldflux_envs.ale_ram import RamEnv
    from worldflux_envs.wrappers import Contract

    screen = sorted(set(options) & _SCREEN)
    if screen:
        raise EnvError(f"atari/{task} with obs='ram' has no screen: leave {', '.join(screen)} out.")
    own = _engine({key: value for key, value in options.items() if key != "obs"})
    env = Contract(RamEnv(task, render_mode=render_mode, **own))
    if seed is not None:
        env.reset(seed=seed)
    return env


def tasks() -> list[str]:
    """The games ALE has a ROM of, in the spelling of its ids."""
    from ale_py import roms

    return sorted(name.title().replace("_", "") for name in roms.get_all_rom_ids())


def _native(task: str, num_envs: int, **options: Any) -> VectorEnv[Any, Any, Any]:
    from worldflux_envs.ale import NativeAtari

    seed, copy = options.pop("seed"), options.pop("copy")
    return NativeAtari(task, num_envs, seed=seed, copy=copy, **_engine(options))


def _engine(options: dict[str, Any]) -> dict[str, Any]:
    """The options in the engine's terms."""
    from worldflux.errors import EnvError, did_you_mean
    from worldflux_envs.wrappers.pixels import as_size

    for name in options:
        if name not in OPTIONS:
            raise EnvError(f"atari takes no option {name!r}.{did_you_mean(name, OPTIONS)}")
    if options.pop("obs", "pixels") not in ("pixels", "state"):
        raise EnvError("atari observations are images, or 'ram': give obs='pixels' or 'ram'.")
    if (size := options.pop("size", None)) is not None:
        options["size"] = as_size(size)
    if (steps := options.pop("max_episode_steps", None)) is not None:
        options["max_frames"] = steps * options.get("frame_skip", 4)
    if options.pop("evaluation", False):
        options |= {"life_loss": False, "clip_rewards": False}
    return options
