"""The environment state interface: a running episode as JSON, so that a run resumes bit for bit.

An environment takes part by defining `get_state() -> dict` and `set_state(state) -> None`, where
the dict is made of JSON values and numpy arrays and holds everything the next step depends on
except `np_random`, which is saved here. `set_state` is called after `reset(seed=...)` with the
episode's seed. A wrapper takes part by `state_attributes`, the names of what it remembers.
Environments that define neither are resumed by replaying the episode's actions.
"""

from __future__ import annotations

import base64
from collections import deque
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding

from worldflux_envs.simulation import get_simulation, set_simulation

Json = Any

# What Gymnasium's own wrappers remember from step to step, by class name.
GYMNASIUM_WRAPPERS: dict[str, tuple[str, ...]] = {
    "FilterObservation": (),
    "OrderEnforcing": ("_has_reset",),
    "PassiveEnvChecker": ("checked_reset", "checked_step", "checked_render"),
    "TimeLimit": ("_elapsed_steps",),
}
# Their instance attributes are the whole state (screens and other objects only draw).
PLAIN_MODULES = ("gymnasium.envs.classic_control.", "gymnasium.envs.toy_text.")


def get_state(env: gymnasium.Env[Any, Any]) -> dict[str, Json] | None:
    """The state of `env` and its wrappers as JSON values, or None if a part cannot give its own."""
    parts = []
    while isinstance(env, gymnasium.Wrapper):
        names = _wrapper_attributes(env)
        if names is None:
            return None
        parts.append({name: pack(getattr(env, name)) for name in names})
        env = env.env
    state = _base_state(env)
    if state is None:
        return None
    # Through __dict__: reading the property would seed a generator that was never asked for.
    generator = env.__dict__.get("_np_random")
    return {
        "wrappers": parts,
        "env": pack(state),
        "np_random": None if generator is None else pack(generator.bit_generator.state),
    }


def set_state(env: gymnasium.Env[Any, Any], state: dict[str, Json]) -> None:
    """Put `env`, reset with the episode's seed before, into a state that `get_state` gave."""
    for part in state["wrappers"]:
        for name, value in part.items():
            setattr(env, name, unpack(value))
        env = env.env  # type: ignore[attr-defined]
    if state["np_random"] is not None:
        generator, _ = seeding.np_random(0)
        generator.bit_generator.state = unpack(state["np_random"])
        env.np_random = generator
    values = unpack(state["env"])
    if _plain(env):
        vars(env).update(values)
    elif _mujoco(env):
        set_simulation(env.model, env.data, values)  # type: ignore[attr-defined]
    else:
        env.set_state(values)  # type: ignore[attr-defined]


def as_single(state: Json) -> dict[str, Json]:
    """A native row's packed state in the form a single environment, one wrapper around it, has.

    So an episode saved in one mode goes on in another.
    """
    return {"wrappers": [{}], "env": state, "np_random": None}


def _wrapper_attributes(wrapper: gymnasium.Wrapper[Any, Any, Any, Any]) -> tuple[str, ...] | None:
    own = getattr(type(wrapper), "state_attributes", None)
    if own is not None:
        return tuple(own)
    if type(wrapper).__module__.startswith("gymnasium."):
        return GYMNASIUM_WRAPPERS.get(type(wrapper).__name__)
    return None


def _base_state(env: gymnasium.Env[Any, Any]) -> dict[str, Any] | None:
    if _plain(env):
        return {k: v for k, v in vars(env).items() if k != "_np_random" and _is_data(v)}
    if _mujoco(env):
        return get_simulation(env.model, env.data)  # type: ignore[attr-defined]
    if hasattr(env, "get_state") and hasattr(env, "set_state"):
        return env.get_state()
    return None


def _plain(env: gymnasium.Env[Any, Any]) -> bool:
    return type(env).__module__.startswith(PLAIN_MODULES)


def _mujoco(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether `env` is one of Gymnasium's own MuJoCo tasks."""
    return type(env).__module__.startswith("gymnasium.envs.mujoco.")


def _is_data(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_data(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic)


def pack(value: Any) -> Json:
    """`value` as JSON values; arrays exact, tuples, deques and numpy scalars kept apart."""
    match value:
        case np.ndarray():
            raw = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
            return {"$array": raw, "dtype": value.dtype.str, "shape": list(value.shape)}
        case np.generic():
            return {"$scalar": pack(np.asarray(value))}
        case dict():
            return {str(key): pack(item) for key, item in value.items()}
        case tuple():
            return {"$tuple": [pack(item) for item in value]}
        case deque():
            return {"$deque": [pack(item) for item in value], "maxlen": value.maxlen}
        case list():
            return [pack(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"A state holds a {type(value).__name__}, which has no JSON form: {value!r}.")


def unpack(value: Json) -> Any:
    """The value `pack` was given; arrays are writable and own their memory."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        raw = np.frombuffer(base64.b64decode(value["$array"]), np.dtype(value["dtype"]))
        return raw.reshape(value["shape"]).copy()
    if "$scalar" in value:
        return unpack(value["$scalar"])[()]
    if "$tuple" in value:
        return tuple(unpack(item) for item in value["$tuple"])
    if "$deque" in value:
        return deque((unpack(item) for item in value["$deque"]), value["maxlen"])
    return {key: unpack(item) for key, item in value.items()}
