"""The grammar of ids."""

from __future__ import annotations

import pytest

from worldflux.errors import ConfigError
from worldflux.ids import EnvId, ModelId, normalize

MODELS = {
    "ring": ModelId("ring"),
    "ring:small": ModelId("ring", "small"),
    "worldflux-ring::ring": ModelId("ring", None, "worldflux-ring"),
    "WorldFlux_Ring::Ring_World:Large_2": ModelId("ring-world", "Large_2", "worldflux-ring"),
    " dreamer_v3 : size12m ": ModelId("dreamer-v3", "size12m"),
}
ENVS = {
    "gym/CartPole-v1": EnvId("gym", "CartPole-v1"),
    "GYM/CartPole_v1": EnvId("gym", "CartPole_v1"),
    "wm/runs/cartpole": EnvId("wm", "runs/cartpole"),
    "wm//tmp/run": EnvId("wm", "/tmp/run"),
    "worldflux_envs::gym/package.module:Class": EnvId(
        "gym", "package.module:Class", "worldflux-envs"
    ),
    "gym/odd::task": EnvId("gym", "odd::task"),
}


@pytest.mark.parametrize(("text", "parsed"), MODELS.items())
def test_model_ids(text: str, parsed: ModelId) -> None:
    assert ModelId.parse(text) == parsed
    assert ModelId.parse(str(parsed)) == parsed


@pytest.mark.parametrize(("text", "parsed"), ENVS.items())
def test_env_ids(text: str, parsed: EnvId) -> None:
    assert EnvId.parse(text) == parsed
    assert EnvId.parse(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["", "::ring", "a b", "ring/small", ":small", "-ring"])
def test_bad_model_ids_say_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a valid name\. Write \S+"):
        ModelId.parse(text)


@pytest.mark.parametrize("text", ["ring:", "ring:a b", "ring: ", "a::b::c"])
def test_bad_presets_say_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match=r"no valid preset after ':'\. Write .*'dreamerv3:size12"):
        ModelId.parse(text)


@pytest.mark.parametrize("text", ["CartPole-v1", "gym/", ""])
def test_env_ids_without_a_task_say_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match=r"names no task\. Write .*'gym/CartPole-v1'"):
        EnvId.parse(text)


def test_env_ids_without_a_backend() -> None:
    with pytest.raises(ConfigError, match="'' is not a valid name"):
        EnvId.parse("/task")


def test_names_are_compared_without_case_and_underscores() -> None:
    assert normalize(" Ring_World ") == "ring-world"
