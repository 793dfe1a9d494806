"""Every key of a run's configuration, in all rooms: for `--help-config` and for the Tab key."""

from __future__ import annotations

from collections.abc import Iterator

from worldflux.config_help import Key, keys_of
from worldflux.errors import ConfigError
from worldflux.factory import get_env_spec, get_model_spec, parse_env_id, preset_of
from worldflux.ids import ModelId
from worldflux.slots import SLOTS
from worldflux_train.config import DataConfig, TrainConfig


def explained(model_id: str | None, env_id: str | None) -> Iterator[str]:
    """One text per key: those of `train.*`, and those of the model and environment, if given."""
    yield (
        "Rooms: model.*, agent.* and slots.* (of the model), train.*, data.*, "
        "env.* (of the environment).\n"
    )
    if model_id is None:
        yield "model.*, agent.*, slots.*: depend on the model: worldflux train ID --help-config"
    else:
        from worldflux.slot_help import slots_of

        yield from map(str, _of_model(model_id))
        yield from map(str, slots_of(model_id))
    yield from map(str, keys_of(TrainConfig(), "train."))
    yield from map(str, keys_of(DataConfig(), "data."))
    if env_id is None:
        yield "env.*: depends on the environment: add --env BACKEND/TASK"
        return
    of_env = [*_of_env(env_id)]
    if not of_env:
        raise ConfigError(f"The backend of {env_id!r} does not say which options it takes.")
    yield from (f"{key.name}\n    {key.about}" for key in of_env)


def keys_of_run(model_id: str | None, env_id: str | None) -> Iterator[Key]:
    """Every key of `train.*` and `data.*`, and of the model and environment, if given; no torch."""
    yield from keys_of(TrainConfig(), "train.")
    yield from keys_of(DataConfig(), "data.")
    if env_id is not None:
        yield from _of_env(env_id)
    if model_id is not None:
        yield from _of_model(model_id)
    for slot in SLOTS:
        yield Key(f"slots.{slot}", "module:Class", "text", "A part of yours.")


def _of_model(model_id: str) -> Iterator[Key]:
    spec = get_model_spec(model_id)
    preset = preset_of(spec, ModelId.parse(model_id).preset)[1]
    flat = not {"model", "agent"} <= set(spec.config.model_fields)
    return keys_of(preset, "model." if flat else "")


def _of_env(env_id: str) -> Iterator[Key]:
    parse_env_id(env_id)
    spec = get_env_spec(env_id)
    for name, about in {**spec.options, **spec.vector}.items():
        if spec.options:
            yield Key(f"env.{name}", "", "", about)
