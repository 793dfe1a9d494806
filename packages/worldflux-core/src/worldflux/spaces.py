"""Observation and action specs: the shorthand for common cases, and from Gymnasium spaces.

Spaces are recognised by their attributes, so this module needs no Gymnasium.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worldflux.errors import ConfigError
from worldflux.specs import TensorSpec

Specs = dict[str, TensorSpec]
DEFAULT_OBS_SHAPE = (3, 64, 64)
DEFAULT_ACTION_DIM = 6


def resolve_obs_spec(
    obs_spec: Mapping[str, TensorSpec] | None = None, obs_shape: Sequence[int] | None = None
) -> Specs:
    """The observation specs of `obs_spec`, or of the shorthand `obs_shape`.

    Three sizes are an image (C, Y, X) under `"image"`, one is a vector under `"state"`.
    """
    if obs_spec is not None:
        if obs_shape is not None:
            raise ConfigError("Give obs_spec or its shorthand obs_shape, not both.")
        return _checked("obs_spec", obs_spec)
    shape = tuple(DEFAULT_OBS_SHAPE if obs_shape is None else obs_shape)
    if len(shape) == 3:
        return {"image": image_spec(shape)}
    if len(shape) == 1:
        return {"state": TensorSpec(shape)}
    raise ConfigError(
        f"obs_shape={shape} is neither an image (C, Y, X) nor a vector (D,). "
        "Describe anything else with obs_spec={key: TensorSpec(...)}."
    )


def resolve_action_spec(
    action_spec: Mapping[str, TensorSpec] | None = None,
    action_dim: int | None = None,
    discrete: bool | None = None,
) -> Specs:
    """The action specs of `action_spec`, or of the shorthand: `action_dim` numbers or choices.

    An empty `action_spec` says that there are no actions.
    """
    if action_spec is not None:
        if action_dim is not None or discrete is not None:
            raise ConfigError("Give action_spec or its shorthand action_dim, discrete, not both.")
        return _checked("action_spec", action_spec) if action_spec else {}
    size = DEFAULT_ACTION_DIM if action_dim is None else action_dim
    if size < 1:
        raise ConfigError(f"action_dim must be at least 1, got {size}.")
    if discrete:
        return {"action": TensorSpec((), "int64", n=size)}
    return {"action": TensorSpec((size,), low=-1.0, high=1.0)}


def assumed(observations: object, actions: object) -> tuple[str, ...]:
    """Which of the two spaces are the defaults because the caller gave none of them (None)."""
    return tuple(
        name for name, given in (("obs", observations), ("action", actions)) if given is None
    )


def image_spec(shape: Sequence[int]) -> TensorSpec:
    """A uint8 image (C, Y, X)."""
    return TensorSpec(tuple(shape), "uint8", low=0, high=255)


def observation_specs(space: Any) -> Specs:
    """Specs of an environment's observation space; a bare space goes under `image` or `state`."""
    if isinstance(parts := getattr(space, "spaces", None), Mapping):
        return {str(key): _spec(part, f"observation {key!r}") for key, part in parts.items()}
    spec = _spec(space, "observation")
    return {"image" if spec.image else "state": spec}


def action_specs(space: Any) -> Specs:
    """Specs of an environment's action space; a bare space goes under `action`."""
    if isinstance(parts := getattr(space, "spaces", None), Mapping):
        return {str(key): _spec(part, f"action {key!r}") for key, part in parts.items()}
    return {"action": _spec(space, "action")}


def _spec(space: Any, where: str) -> TensorSpec:
    if getattr(space, "nvec", None) is not None:  # MultiDiscrete
        _start_at_zero(space, where)
        counts = tuple(int(n) for n in space.nvec.reshape(-1))
        return TensorSpec((len(counts),), "int64", n=counts)
    if hasattr(space, "low") and hasattr(space, "high"):  # Box
        shape = tuple(int(size) for size in space.shape)
        return TensorSpec(shape, str(space.dtype), _bound(space.low), _bound(space.high))
    if isinstance(count := getattr(space, "n", None), int) and space.shape == (count,):
        return TensorSpec((count,), "int64", n=(2,) * count)  # MultiBinary
    if count is not None and space.shape == ():  # Discrete
        _start_at_zero(space, where)
        return TensorSpec((), "int64", n=int(count), labels=getattr(space, "labels", None))
    raise ConfigError(
        f"The {where} space {space} has no TensorSpec. Supported are Box, Discrete, "
        "MultiDiscrete, MultiBinary and one level of Dict: wrap the environment."
    )


def _start_at_zero(space: Any, where: str) -> None:
    if (start := getattr(space, "start", None)) is None:
        return
    if any(first != 0 for first in (start.reshape(-1) if hasattr(start, "reshape") else [start])):
        raise ConfigError(f"The {where} space {space} starts at {start}; indices start at 0.")


def _bound(values: Any) -> float | tuple[Any, ...]:
    """One number where all agree, else nested tuples."""
    flat = values.reshape(-1)
    if flat.size and (flat == flat[0]).all():
        return float(flat[0])
    nested: tuple[Any, ...] = _nested(values.tolist())
    return nested


def _nested(value: Any) -> Any:
    return tuple(map(_nested, value)) if isinstance(value, list) else float(value)


def _checked(name: str, specs: Mapping[str, TensorSpec]) -> Specs:
    wrong = {key: value for key, value in specs.items() if not isinstance(value, TensorSpec)}
    if wrong or (not specs and name != "action_spec"):  # video and images have no actions
        raise ConfigError(f"{name} must map keys to TensorSpec, got {wrong or specs}.")
    return dict(specs)
