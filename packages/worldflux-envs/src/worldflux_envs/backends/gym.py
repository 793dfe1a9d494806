"""Backend `gym`: any Gymnasium id, entry point, callable or environment object."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.errors import EnvError
from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

hookimpl = pluggy.HookimplMarker("worldflux")
INSTALL = 'pip install "worldflux-envs[gym]"'


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `gym` backend."""
    from worldflux_envs.options import CONTRACT, VECTOR

    return [
        EnvSpec(
            backend="gym",
            make=f"{__name__}:make",
            make_vec=f"{__name__}:make_vec",
            tasks=f"{__name__}:tasks",
            description="any Gymnasium environment: vectors, its own images, or rendered pixels",
            aliases=("gymnasium",),
            requires=("gymnasium",),
            install=INSTALL,
            vector=VECTOR,
            options={
                "camera": "name or number of the camera to render with (MuJoCo tasks)",
                **CONTRACT,
                "...": "anything else goes to the environment's constructor",
            },
        )
    ]


def make(task: Any, **options: Any) -> gymnasium.Env[Any, Any]:
    """The environment `task` (an id, `module:Id`, `module:Class`, object or callable)."""
    from worldflux_envs.gl_thread import draw_in_one_thread
    from worldflux_envs.headless import choose_gl
    from worldflux_envs.options import split
    from worldflux_envs.stack import check_obs, contract_env

    contract, rest = split(options)
    if check_obs(contract.get("obs", "state")) != "state":
        rest.setdefault("render_mode", "rgb_array")
    if rest.get("render_mode"):
        choose_gl(rendering=False)  # for the MuJoCo tasks among them
    if (camera := rest.pop("camera", None)) is not None:
        rest["camera_name" if isinstance(camera, str) else "camera_id"] = camera
    if isinstance(task, str) and ":" not in task and contract.get("max_episode_steps"):
        # In place of the id's own limit, which counts the simulator's steps.
        steps = contract.pop("max_episode_steps") * contract.get("action_repeat", 1)
        rest["max_episode_steps"] = steps
    env = _raw(task, rest)
    draw_in_one_thread(env)
    return contract_env(env, **contract)


def make_vec(task: Any, num_envs: int = 1, **options: Any) -> VectorEnv[Any, Any, Any]:
    """`num_envs` of them; `mode`, `workers`, `timeout` as in `worldflux_envs.vector.make_vec`."""
    from worldflux_envs.vector import make_vec as vectorise

    return vectorise(_shippable(task), task, num_envs, name="gym", **options)


def _shippable(task: Any) -> Callable[..., gymnasium.Env[Any, Any]]:
    """`make` as a worker process needs it: with the registration of an id it would not know."""
    import gymnasium

    spec = gymnasium.registry.get(task) if isinstance(task, str) else None
    if spec is None or str(spec.entry_point).startswith("gymnasium."):
        return make
    entry = spec.entry_point
    # The object itself: a script's own module has another name, or none, in a worker.
    build = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    return partial(_registered, replace(spec, entry_point=None), build)


def _registered(spec: Any, build: Any, task: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """`make` of an id that is registered here first, if it is not."""
    import gymnasium

    gymnasium.registry.setdefault(spec.id, replace(spec, entry_point=build))
    return make(task, **options)


def tasks() -> list[str]:
    """The ids Gymnasium knows, newest versions, without the ones other backends list."""
    import gymnasium

    return sorted(
        spec.id
        for spec in gymnasium.registry.values()
        if spec.namespace is None
        and isinstance(spec.entry_point, str)
        and spec.entry_point.startswith("gymnasium.envs.")
    )


def _raw(task: Any, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    import gymnasium

    if isinstance(task, gymnasium.Env):
        options = {k: v for k, v in options.items() if k != "render_mode"}
        if options:
            raise EnvError(f"An environment object is made already; it takes no {sorted(options)}.")
        return task
    if callable(task):
        return _constructed(task, options)
    entry = _entry_point(task)
    if entry is not None:
        return _constructed(entry, options)
    try:
        # The checker costs a third of CartPole's step; `worldflux.testing.check_env` is for that.
        return gymnasium.make(task, disable_env_checker=True, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        raise EnvError(f"gym/{task} needs a package: {error} Install: {INSTALL}") from error
    except (gymnasium.error.Error, TypeError, ModuleNotFoundError) as error:
        raise EnvError(f"gym/{task} cannot be made with {options}: {error}") from error


def _constructed(
    build: Callable[..., gymnasium.Env[Any, Any]], options: dict[str, Any]
) -> gymnasium.Env[Any, Any]:
    import gymnasium

    options = _accepted(build, options)
    env = build(**options)
    if "dm_env" in {cls.__module__.partition(".")[0] for cls in type(env).__mro__}:
        from worldflux_envs.dm_any import as_gymnasium

        return as_gymnasium(env)
    if not isinstance(env, gymnasium.Env):
        raise EnvError(f"{build!r} gave a {type(env).__name__}, not a gymnasium.Env.")
    return env


def _accepted(build: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options for `build`; an error that says what to do where it cannot take one of them."""
    try:
        inspect.signature(build).bind(**options)
    except TypeError as error:
        name = getattr(build, "__qualname__", repr(build))
        refused = [key for key in options if f"'{key}'" in str(error)]
        if refused == ["render_mode"]:
            raise EnvError(
                f"{name} takes no render_mode, which pictures need: let it take one, or make its "
                "environment with render_mode='rgb_array' and leave obs out."
            ) from None
        raise EnvError(f"{name} cannot be called with {options}: {error}.") from None
    except ValueError:  # some built-in functions do not say what they take
        pass
    return options


def _entry_point(task: str) -> Callable[..., Any] | None:
    """The environment class a `module:Name` means, None if it is a Gymnasium id.

    Anything else is refused before it is called: an id may come from someone else's file.
    """
    import gymnasium

    module, colon, name = task.partition(":")
    if not colon:
        return None
    try:
        # Importing may register the id, which then has precedence.
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise EnvError(f"gym/{task}: no module {module!r} to import ({error}).") from error
    if name in gymnasium.registry or found is None:
        return None
    if not (isinstance(found, type) and issubclass(found, gymnasium.Env)):
        raise EnvError(
            f"gym/{task} is a {type(found).__name__}, not a subclass of gymnasium.Env, and was not "
            f"called. Register a function that makes environments: gymnasium.register('{name}', "
            "entry_point=the_function)."
        )
    return found
