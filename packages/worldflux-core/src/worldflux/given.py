"""Environments that are given as objects, or as functions that make them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any, Protocol

from worldflux.errors import ConfigError, EnvError
from worldflux.references import load_class
from worldflux.registry import envs
from worldflux.specs import EnvSpec


class Steps(Protocol):
    """An environment as an object: of Gymnasium, dm_env or Brax."""

    def reset(self, *args: Any, **kwargs: Any) -> Any:
        """Begin an episode."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Act."""


EnvLike = str | Callable[..., Any] | Steps
"""An environment's id, a function that makes one, or one."""
BACKEND = "given"
_GIVEN: dict[str, Any] = {}


def backend_of(env: Any) -> str:
    """The backend that takes this object or function; `ConfigError` where it is neither."""
    packages = {cls.__module__.partition(".")[0] for cls in type(env).__mro__}
    if "brax" in packages:
        return "brax"
    if "dm_control" in packages:
        return "dmc"
    if "dm_env" in packages:
        return "dm-env"
    if "gymnasium" in packages or callable(env):
        return "gym"
    raise ConfigError(
        f"An environment is an id such as 'gym/CartPole-v1', an environment of Gymnasium, dm_env "
        f"or Brax, or a function that makes one; got {type(env).__name__}."
    )


def name_of(env: Any) -> str:
    """What an object or function is called, as the task of an id."""
    spec_id = getattr(getattr(env, "spec", None), "id", None)
    own = spec_id or getattr(env, "__qualname__", None) or type(env).__name__
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", str(own)).strip("-.") or "environment"


def give(env: Any, name: str | None = None) -> str:
    """An id for `env` in this process, such as `given/MyEnv`: what a run's configuration holds.

    A function is called for every environment that a run makes; of an object of Gymnasium or
    dm_env each is a copy. The same object gets the same id again.
    """
    backend_of(env)
    wanted = name or name_of(env)
    task, number = wanted, 1
    while task in _GIVEN and _GIVEN[task] is not env:
        if name is not None:
            raise ConfigError(f"{BACKEND}/{name} is another environment. Give this another name.")
        number += 1
        task = f"{wanted}-{number}"
    _GIVEN[task] = env
    if BACKEND not in envs.local:
        envs.add(_SPEC)
    return f"{BACKEND}/{task}"


def forget(task: str) -> None:
    """Take an id back."""
    _GIVEN.pop(task, None)


def _found(task: str) -> Any:
    if task not in _GIVEN:
        raise EnvError(
            f"{BACKEND}/{task} was an object of the process that used it. Give it again, under "
            f"the same name: worldflux.register(make, name={task!r})."
        )
    return _GIVEN[task]


def _make(task: str, **options: Any) -> Any:
    env = _found(task)
    spec = envs.get(backend_of(env))
    return load_class(spec.make)(_fresh(task, env), **options)


def _make_vec(task: str, num_envs: int = 1, **options: Any) -> Any:
    env = _found(task)
    spec = envs.get(backend_of(env))
    one = env if callable(env) or backend_of(env) == "brax" else lambda: _fresh(task, env)
    if spec.make_vec is None:
        raise EnvError(f"{BACKEND}/{task}: its backend {spec.backend!r} makes no vectors of it.")
    return load_class(spec.make_vec)(one, num_envs, **options)


def _fresh(task: str, env: Any) -> Any:
    if callable(env) or backend_of(env) == "brax":  # Brax keeps no state in its environments
        return env
    try:
        return copy.deepcopy(env)
    except (TypeError, AttributeError, RuntimeError, ValueError, copy.Error) as error:
        raise EnvError(
            f"{BACKEND}/{task} cannot be copied ({type(error).__name__}: {error}), and a run needs "
            "more than one. Give a function that makes it."
        ) from error


_SPEC = EnvSpec(
    backend=BACKEND,
    make=_make,
    make_vec=_make_vec,
    tasks=lambda: sorted(_GIVEN),
    description="environments that were given as objects or functions",
    options={"...": "those of Gymnasium, dmc or brax environments"},
)
