"""A folder that `save_pretrained` wrote, as it is found: sealed, inside itself, of the right types.

Nothing in it is believed. Its seal is checked before anything else is parsed, and each file is
hashed once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from worldflux import atomic
from worldflux.errors import StorageError
from worldflux.saving import CONFIG, FORMAT, IDENTITY, WEIGHTS
from worldflux.slots import SLOTS
from worldflux.specs import TensorSpec

MOST_JSON_BYTES = 16 * 2**20
"""Configurations and identities have a few thousand bytes."""
MOST_AXES = 64
_DTYPES = frozenset(
    {"bool", "bfloat16"}
    | {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
    | {f"float{bits}" for bits in (16, 32, 64)}
)


@dataclass(frozen=True)
class SavedFolder:
    """An intact folder: where it is, who wrote it, and for which spaces."""

    path: Path
    identity: Mapping[str, Any]
    obs_spec: dict[str, TensorSpec]
    action_spec: dict[str, TensorSpec]

    @classmethod
    def open(cls, path: str | Path) -> SavedFolder:
        """Check the seal, then read the identity; `StorageError` says what is wrong."""
        folder = Path(path)
        if not (folder / IDENTITY).exists():
            raise StorageError(
                f"{folder} holds no {IDENTITY}: it was not written by save_pretrained. "
                "Give the folder or hub id of a saved model."
            )
        listed = atomic.check_seal(folder, required=(WEIGHTS, CONFIG, IDENTITY))["files"]
        for name in (CONFIG, IDENTITY):
            if listed[name]["bytes"] > MOST_JSON_BYTES:
                raise StorageError(
                    f"{folder / name} has {listed[name]['bytes']} bytes, at most {MOST_JSON_BYTES} "
                    "are read. Get an undamaged copy."
                )
        identity = read_identity(folder)
        spaces = (_specs(folder, identity[key]) for key in ("obs_spec", "action_spec"))
        return cls(folder, identity, *spaces)

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.path / WEIGHTS

    def config_text(self) -> str:
        """The configuration as JSON."""
        return atomic.read_text(self.path / CONFIG)


class _Part(BaseModel):
    """A part of the caller's: its class, and whatever options it was built with."""

    model_config = ConfigDict(strict=True, extra="allow")

    cls: str = Field(alias="class")


class _Identity(BaseModel):
    """What `worldflux.json` must hold; fields that another version adds are passed over."""

    model_config = ConfigDict(strict=True)

    kind: Literal["world_model", "agent"]
    family: str | None
    preset: str | None
    cls: str = Field(alias="class")
    worldflux: str
    torch: str
    fingerprint: str
    parameters: NonNegativeInt
    obs_spec: dict[str, TensorSpec]
    action_spec: dict[str, TensorSpec]
    slots: dict[Literal[SLOTS], _Part]  # type: ignore[valid-type]


def read_identity(folder: Path) -> dict[str, Any]:
    """The content of a saved folder's `worldflux.json`, its types checked."""
    identity = atomic.read_json(folder / IDENTITY)
    if type(identity.get("format")) is not int or identity["format"] != FORMAT:
        raise StorageError(
            f"{folder / IDENTITY} has format {identity.get('format')!r:.80}; this worldflux reads "
            f"{FORMAT}. Upgrade worldflux-core."
        )
    try:
        _Identity.model_validate_json(json.dumps(identity))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StorageError(
            f"{folder / IDENTITY} is damaged: {where:.120}: {first['msg']}, got "
            f"{first.get('input')!r:.80}. Get an undamaged copy."
        ) from error
    return identity


def _specs(folder: Path, plain: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorSpec]:
    for key, spec in plain.items():
        if unknown := sorted(spec.keys() - {field.name for field in fields(TensorSpec)}):
            raise StorageError(
                f"{folder / IDENTITY} is damaged: {key!r:.80} has {unknown[0]!r:.80}, which no "
                "TensorSpec has. Upgrade worldflux-core, or get an undamaged copy."
            )
        if len(spec["shape"]) > MOST_AXES or spec.get("dtype", "float32") not in _DTYPES:
            raise StorageError(
                f"{folder / IDENTITY} is damaged: {key!r:.80} has {len(spec['shape'])} axes of "
                f"{spec.get('dtype')!r:.80}, which no array has. Get an undamaged copy."
            )
    return {
        key: TensorSpec(**{name: _frozen(value) for name, value in spec.items()})
        for key, spec in plain.items()
    }


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
