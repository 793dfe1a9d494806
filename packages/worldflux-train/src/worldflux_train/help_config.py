"""`worldflux train --help-config`: every key of all rooms, with value, range and meaning."""

from __future__ import annotations

from collections.abc import Iterator

from worldflux.config_help import keys_of
from worldflux.errors import ConfigError
from worldflux.factory import get_env_spec, get_model_spec, parse_env_id, preset_of
from worldflux.ids import ModelId
from worldflux.slot_help import slots_of
from worldflux_train.config import TrainConfig


def explained(model_id: str | None, env_id: str | None) -> Iterator[str]:
    """One text per key: those of `train.*`, and those of the model and environment, if given."""
    yield (
        "Rooms: model.*, agent.* and slots.* (of the model), train.*, env.* (of the environment).\n"
    )
    if model_id is None:
        yield "model.*, agent.*, slots.*: depend on the model: worldflux train ID --help-config"
    else:
        spec = get_model_spec(model_id)
        preset = preset_of(spec, ModelId.parse(model_id).preset)[1]
        flat = not {"model", "agent"} <= set(spec.config.model_fields)
        yield from map(str, keys_of(preset, "model." if flat else ""))
        yield from map(str, slots_of(model_id))
    yield from map(str, keys_of(TrainConfig(), "train."))
    yield from _environment(env_id)


def _environment(env_id: str | None) -> Iterator[str]:
    if env_id is None:
        yield "env.*: depends on the environment: add --env BACKEND/TASK"
        return
    parse_env_id(env_id)
    spec = get_env_spec(env_id)
    if not spec.options:
        raise ConfigError(f"The backend {spec.backend!r} does not say which options it takes.")
    for name, about in {**spec.options, **spec.vector}.items():
        yield f"env.{name}\n    {about}"
