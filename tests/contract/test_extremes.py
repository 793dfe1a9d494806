"""Every family with each field at its extremes is built, or a sentence says why not."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch

from worldflux import create_agent, create_world_model, get_model_spec, list_models
from worldflux.config import Config
from worldflux.errors import CapabilityError, ConfigError, ContractError
from worldflux.factory import load_class
from worldflux.specs import CheckSettings
from worldflux.testing.family import accepted
from worldflux.testing.family import kinds as spaces_of

FAMILIES = sorted({get_model_spec(name).family for name in list_models()})
INTEGERS, NUMBERS = (0, 1, 2, 3, 7, 101), (0.0, 1e-8, 0.5, 1.0, 1e4)
LISTS: tuple[tuple[int, ...], ...] = ((), (1,), (2, 3), (1, 2, 3, 4, 5, 6, 7, 8))


def kinds(annotation: Any) -> Iterator[Any]:
    """The plain types of a field."""
    if hasattr(annotation, "__metadata__"):
        yield from kinds(annotation.__origin__)
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from kinds(part)
    else:
        yield annotation


def extremes(annotation: Any) -> Iterator[Any]:
    """Least, small and large values that such a field might take."""
    for kind in kinds(annotation):
        if kind is int:
            yield from INTEGERS
        elif kind is float:
            yield from NUMBERS
        elif kind is bool:
            yield from (True, False)
        elif get_origin(kind) is Literal:
            yield from get_args(kind)
        elif get_origin(kind) is tuple:
            yield from LISTS


def changes(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a configuration and its sub-configurations with each of its extremes."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from changes(value, f"{prefix}{name}.")
        else:
            yield from ((f"{prefix}{name}", extreme) for extreme in extremes(field.annotation))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_each_field_at_its_extremes_builds_or_says_why_not(family: str) -> None:
    spec = get_model_spec(family)
    check = spec.check or CheckSettings()
    base = spec.presets[check.preset or spec.default_preset].with_(**check.overrides)
    owner, (_, obs, action) = (
        load_class(spec.agent or spec.model),
        accepted(spec, spaces_of(check.image))[0],
    )
    built, broken = 0, []
    for key, value in changes(base):
        try:
            config = base.with_(**{key: value})
            with torch.device("meta"):
                owner(config, obs, action)
            built += 1
        except (ConfigError, ContractError, CapabilityError) as error:
            assert len(str(error)) > 30, (key, value, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is listed
            broken.append(f"{key}={value!r}: {type(error).__name__}: {error!s:.100}")
    assert built > 5 and not broken, "\n".join(broken)


def test_what_dreamerv3_cannot_be_built_with_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="imag_last=1 leaves the critic no pair of replayed"):
        create_agent("dreamerv3:size1m", obs_shape=(3,), action_dim=1, imag_last=1)
    narrow = {"depth": 4, "mults": (2, 3), "deter": 64}
    with (
        torch.device("meta"),
        pytest.raises(ConfigError, match="decoder_blocks=8 does not divide the 12 channels"),
    ):
        create_world_model("dreamerv3:size1m", obs_shape=(3, 32, 32), action_dim=1, **narrow)
