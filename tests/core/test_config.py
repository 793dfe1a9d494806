"""Configurations: strict keys, validated changes, JSON both ways."""

from __future__ import annotations

import pytest
from pydantic import PositiveInt

from worldflux.config import Config, dotted
from worldflux.errors import ConfigError
from worldflux.planning.config import CEMConfig, MPPIConfig, PlanningAgentConfig


class Inner(Config):
    width: PositiveInt = 8
    """Units per layer."""
    name: str = "mlp"


class Outer(Config):
    inner: Inner = Inner()
    rate: float = 0.5


def test_dotted_keys_reach_sub_configs():
    changed = Outer().with_(**{"inner.width": 16, "rate": 1})
    assert (changed.inner.width, changed.rate) == (16, 1.0)
    assert changed.inner.name == "mlp"


def test_a_mapping_for_a_sub_config_is_merged():
    assert Outer(inner=Inner(name="cnn")).with_(inner={"width": 3}).inner == Inner(
        name="cnn", width=3
    )


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"rtae": 1}, r"Outer has no key 'rtae'. Did you mean 'rate'\? Keys: inner, rate."),
        ({"inner.widht": 1}, "Inner has no key 'widht'. Did you mean 'width'?"),
        ({"inner.width": 0}, r"Inner.width: Input should be greater than 0, got 0."),
        ({"rate.x": 1}, "Outer.rate is 0.5, a plain value: it has no key 'x'."),
    ],
)
def test_bad_overrides_say_what_is_wrong(overrides, text):
    with pytest.raises(ConfigError, match=text.replace("?", r"\?") if "\\?" not in text else text):
        Outer().with_(**overrides)


def test_another_kind_keeps_what_both_kinds_have():
    own = PlanningAgentConfig(planner=CEMConfig(horizon=5, candidates=64, elites=8))
    other = own.with_(**{"planner.temperature": 0.2, "planner.kind": "mppi"}).planner
    assert isinstance(other, MPPIConfig) and other.temperature == 0.2
    assert (other.horizon, other.candidates, other.elites) == (5, 64, 8)
    assert own.with_(planner={"kind": "cem", "momentum": 0.1}).planner.momentum == 0.1
    with pytest.raises(ConfigError, match="planner.kind is 'mpi'. Did you mean 'mppi'"):
        own.with_(**{"planner.kind": "mpi"})
    with pytest.raises(ConfigError, match="CEMConfig has no key 'temperature'"):
        own.with_(**{"planner.temperature": 0.2})


def test_construction_names_the_nearest_key_in_a_sub_config():
    with pytest.raises(ConfigError, match="Inner has no key 'nmae'. Did you mean 'name'"):
        Outer.from_dict({"inner": {"nmae": "x"}})


def test_json_round_trip_and_unknown_key():
    config = Outer(inner=Inner(width=4))
    assert Outer.from_json(config.to_json()) == config
    assert Outer.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="Outer has no key 'extra'"):
        Outer.from_json('{"extra": 1}')


def test_a_field_of_one_room_needs_no_dots():
    assert dotted(Outer(), {"width": 4, "inner.name": "x", "rate": 2.0, "other": 1}) == {
        "inner.width": 4,
        "inner.name": "x",
        "rate": 2.0,
        "other": 1,
    }


def test_a_field_of_several_rooms_is_not_guessed():
    class Two(Config):
        left: Inner = Inner()
        right: Inner = Inner()

    with pytest.raises(
        ConfigError, match=r"'width' could be left\.width and right\.width: write which one\."
    ):
        dotted(Two(), {"width": 4})


def test_configs_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Outer().rate = 2


def test_yaml_both_ways() -> None:
    from worldflux.testing.dummies import TinyConfig

    config = TinyConfig(width=16, lr=0.5)
    assert TinyConfig.from_yaml(config.to_yaml()) == config
    assert TinyConfig.from_yaml("lr: 1e-4").lr == 1e-4  # which YAML itself reads as text
    with pytest.raises(ConfigError, match="The YAML of a TinyConfig must hold keys and values, it"):
        TinyConfig.from_yaml("[1]")
    with pytest.raises(ConfigError, match="no key 'widht'. Did you mean 'width'"):
        TinyConfig.from_yaml("widht: 3")
