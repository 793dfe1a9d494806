"""Backend `unity`: Unity ML-Agents players and the editor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

hookimpl = pluggy.HookimplMarker("worldflux")
_LAUNCH = {
    "worker_id": "listen on base_port + worker_id instead of on any free port",
    "base_port": "first port to try (with worker_id: 5005; for the editor: 5004)",
    "timeout_wait": "seconds the player has to start and to answer; default 60",
    "no_graphics": "start the player without graphics, and so without camera images",
    "time_scale": "how much faster than real time it runs; default 20",
    "width": "width of its window (with height)",
    "height": "height of its window (with width)",
    "quality_level": "Unity's rendering quality, 0 to 5",
    "target_frame_rate": "frames per second it tries to draw, -1 for as many as it can",
    "capture_frame_rate": "frames per second of simulated time, whatever the real time",
    "args": "more command line arguments for the player",
    "log_folder": "folder the player writes its log into",
    "num_areas": "number of training areas the player makes of its scene",
    "parameters": "environment parameters, a dict of floats",
    "side_channels": "a function without arguments that makes a list of ML-Agents side channels",
    "seed_parameter": "environment parameter that gets the seed of each reset; default 'seed'",
    "restart": "start the player anew for each episode, with its seed: it repeats, slowly",
}


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `unity` backend."""
    from worldflux_envs.options import CONTRACT, VECTOR

    return [
        EnvSpec(
            backend="unity",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            description="Unity ML-Agents: unity/<path of a player> or unity/editor",
            aliases=("mlagents", "unity-mlagents"),
            requires=("mlagents_envs",),
            install='pip install "worldflux-envs[unity]"',
            vector=VECTOR,
            runs_code=f"{__name__}:runs_code",
            options={
                **CONTRACT,
                **_LAUNCH,
                "behavior": "the behaviour to control, if there are several; others stand still",
            },
        )
    ]


def runs_code(task: str) -> str | None:
    """What program an id alone would start."""
    return None if task == "editor" else f"starts the program {task}"


def make(
    task: str,
    *,
    obs: str = "state",
    behavior: str | None = None,
    render_mode: str | None = None,
    **options: Any,
) -> gymnasium.Env[Any, Any]:
    """The one agent of the player at `task`."""
    from worldflux_envs.stack import check_obs, contract_env

    launch, contract = _launch(task, options)
    from worldflux_envs.unity.env import UnityEnv

    env = UnityEnv(launch, behavior=behavior, obs=check_obs(obs), render_mode=render_mode)
    return contract_env(env, **contract)


def make_vec(task: str, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` agents of one player, or of several players that have as many together.

    Options that need wrappers make it one player for each environment, with one agent.
    """
    from worldflux_envs.vector import make_vec as vectorise

    own = {"obs", "size", "behavior", "render_mode", *_LAUNCH}
    batched = set(options) <= own | {"seed", "mode", "copy", "workers", "timeout"}
    native = _native if batched else None
    # A trial would start players of its own.
    return vectorise(make, task, num_envs, name="unity", native=native, trial=0, **options)


def _native(
    task: str, num_envs: int, *, obs: str = "state", size: Any = None, **options: Any
) -> VectorEnv[Any, Any, Any]:
    from worldflux_envs.stack import check_obs
    from worldflux_envs.wrappers.pixels import as_size

    rest = {name: options.pop(name) for name in tuple(options) if name not in _LAUNCH}
    launch, _ = _launch(task, options)
    from worldflux_envs.unity.env import UnityVec

    shape = None if size is None else as_size(size)
    return UnityVec(launch, num_envs, obs=check_obs(obs), size=shape, **rest)


def _launch(task: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """How to start the player, and the options of the contract."""
    from worldflux.errors import EnvError, did_you_mean
    from worldflux_envs.options import CONTRACT
    from worldflux_envs.unity.coexistence import make_importable

    known = {*CONTRACT, *_LAUNCH, "behavior"}
    for name in options:
        if name not in known:
            raise EnvError(f"unity takes no option {name!r}.{did_you_mean(name, known)}")
    make_importable()
    from worldflux_envs.unity.player import Launch

    launch = Launch(task, **{k: v for k, v in options.items() if k in _LAUNCH})
    return launch, {k: v for k, v in options.items() if k in CONTRACT}
