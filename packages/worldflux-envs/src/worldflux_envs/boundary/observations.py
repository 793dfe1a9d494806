"""Any observation space as the contract has it: a Dict of vectors and pictures by key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gymnasium import Space, spaces

from worldflux.errors import EnvError, did_you_mean
from worldflux_envs.boundary.faults import EnvFault
from worldflux_envs.boundary.pictures import picture, picture_axes
from worldflux_envs.boundary.vectors import binary_vector, box_vector, choices_vector

Convert = Callable[[Any], Any]
Path = tuple[Any, ...]

GOAL_KEYS = {"observation": "state", "achieved_goal": "achieved_goal", "desired_goal": "goal"}
HEADS = ("reward", "continue", "value")
"""What models predict beside observations: their predictions share one dict with these names."""


def canonical_observation(
    space: Space[Any], *, rename: Mapping[str, str] | None = None, fresh: bool = False
) -> tuple[spaces.Dict, Convert]:
    """The Dict space for `space`, and the function that checks and turns its observations into it.

    `rename` gives keys other names. With `fresh` the environment gives new arrays at every step,
    which need no copies.
    """
    found, names = _leaves(space), rename or {}
    _check_rename(names, [key for key, *_ in found])
    leaves = [(names.get(key, key), path, leaf) for key, path, leaf in found]
    refuse_heads(key for key, *_ in leaves)
    parts = {key: (path, *_leaf(leaf, key, fresh)) for key, path, leaf in leaves}
    if len(parts) != len(leaves):
        raise EnvError(f"Two observations share one key: {[key for key, _, _ in leaves]}.")
    canonical = spaces.Dict({key: leaf for key, (_, leaf, _) in parts.items()})
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        [(key, (_, _, convert))] = parts.items()
        return canonical, lambda obs: {key: convert(obs)}
    return canonical, _by_key([(key, path, convert) for key, (path, _, convert) in parts.items()])


def _by_key(parts: list[tuple[str, Path, Convert]]) -> Convert:
    """The parts of a Dict or Tuple, each converted; what is missing is named."""
    first = [(key, path[0], convert) for key, path, convert in parts]
    flat = all(len(path) == 1 for _, path, _ in parts)

    def convert_all(obs: Any) -> dict[str, Any]:
        if flat:
            try:
                return {key: convert(obs[name]) for key, name, convert in first}
            except (KeyError, IndexError, TypeError):
                pass  # told by name below
        return {key: convert(_pick(obs, key, path)) for key, path, convert in parts}

    return convert_all


def refuse_heads(keys: Iterable[str], remedy: str = "") -> None:
    """Refuse observations with the name of a prediction, and say how to give another name."""
    for key in keys:
        if key in HEADS:
            remedy = remedy or f"the option rename={{{key!r}: 'last_{key}'}}"
            raise EnvError(
                f"Observation {key!r} has the name of a prediction of world models: give it "
                f"another name by {remedy}."
            )


def _leaves(space: Space[Any]) -> list[tuple[str, Path, Space[Any]]]:
    """(key, path, space) of every leaf: a nested key joins its parents' by underscores."""
    parts: list[tuple[str, Any, Space[Any]]]
    match space:
        case spaces.Dict():
            named = GOAL_KEYS if set(space.spaces) == set(GOAL_KEYS) else {}
            parts = [(named.get(key, str(key)), key, part) for key, part in space.spaces.items()]
        case spaces.Tuple():
            parts = [(str(index), index, part) for index, part in enumerate(space.spaces)]
        case _:
            return [("image" if picture_axes(space) else "state", (), space)]
    found = []
    for name, step, part in parts:
        if not isinstance(part, spaces.Dict | spaces.Tuple):
            found.append((name, (step,), part))
            continue
        found += [(f"{name}_{key}", (step, *path), leaf) for key, path, leaf in _leaves(part)]
    return found


def _leaf(space: Space[Any], key: str, fresh: bool) -> tuple[Space[Any], Convert]:
    match space:
        case spaces.Box():
            axes = picture_axes(space, key)
            if axes is not None:
                return picture(space, axes, key, fresh)
            return box_vector(space, key, fresh)
        case spaces.Discrete() | spaces.MultiDiscrete():
            return choices_vector(space, key)
        case spaces.MultiBinary():
            return binary_vector(space, key)
    raise EnvError(f"Observation {key!r} of {space} has no canonical form: wrap the environment.")


def _pick(obs: Any, key: str, path: Path) -> Any:
    try:
        for step in path:
            obs = obs[step]
    except (KeyError, IndexError, TypeError) as error:
        given = ", ".join(map(repr, obs)) if isinstance(obs, Mapping) else type(obs).__name__
        raise EnvFault(f"observation {key!r} is missing, the environment gave {given}") from error
    return obs


def _check_rename(rename: Mapping[str, str], keys: list[str]) -> None:
    for key in rename:
        if key not in keys:
            raise EnvError(
                f"rename: there is no observation {key!r}.{did_you_mean(key, keys)} "
                f"Observations: {', '.join(keys)}."
            )
