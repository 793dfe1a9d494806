"""The room `slots.*`: a run with a part of the caller's, in code, commands and config.yaml."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from worldflux import State
from worldflux.errors import ConfigError
from worldflux.runs import Run
from worldflux.trust import TrustError
from worldflux_train import api
from worldflux_train.config import resolve
from worldflux_train.nested import parse_overrides

TRUST = ("my_parts",)


class Wide(nn.Module):
    """More features than the tiny encoder has."""

    def __init__(self, model: Any, units: int = 48) -> None:
        super().__init__()
        self.net = nn.Linear(model.obs_spec["state"].size, units)

    def forward(self, obs: dict[str, torch.Tensor]) -> State:
        return State({"embed": torch.tanh(self.net(obs["state"].float()))})


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> str:
    """`my_parts:Wide`, importable by name."""
    module: Any = type(sys)("my_parts")
    module.Wide = Wide
    monkeypatch.setitem(sys.modules, "my_parts", module)
    return "my_parts:Wide"


def test_a_run_with_a_part_trains_saves_and_resumes_bit_for_bit(
    tiny: Any, tmp_path: Path, parts: str, assert_same_run: Any
) -> None:
    config = tiny(overrides={"slots.observation_encoder": {"class": parts, "units": 5}})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = api.train(config, whole)
    api.train(config.with_steps(55), cut)
    with pytest.raises(TrustError, match="my_parts"):
        api.resume(cut)
    api.resume(cut, steps=config.train.steps, trust=TRUST)
    assert_same_run(whole, cut, done.step)
    agent = api.load_agent(cut, trust=TRUST)
    assert agent.world_model.features["embed"].shape == (5,)
    assert agent.world_model.slot_overrides == {"observation_encoder": {"class": parts, "units": 5}}
    assert "units: 5" in Run.open(cut).config_path.read_text()


@pytest.mark.parametrize("text", ["{class: my_parts:Wide, units: 7}", "my_parts:Wide"])
def test_the_command_line_names_a_part(tiny: Any, text: str) -> None:
    found = tiny(overrides=parse_overrides([f"slots.observation_encoder={text}"]))
    assert found.slots["observation_encoder"]["class"] == "my_parts:Wide"
    again = resolve(config=found.to_dict())
    assert again == found


def test_classes_become_names_and_modules_are_refused(tiny: Any) -> None:
    found = tiny(overrides={"slots.observation_encoder": Wide})
    assert found.slots == {"observation_encoder": {"class": f"{__name__}:Wide"}}
    with pytest.raises(ConfigError, match="is built already: a run builds its parts itself"):
        tiny(overrides={"slots.observation_encoder": nn.Linear(1, 1)})
    with pytest.raises(ConfigError, match="no slot 'encoder'. Did you mean"):
        tiny(overrides={"slots.encoder": "a:B"})


def test_own_options_are_added_and_an_own_class_replaces(tiny: Any) -> None:
    base = tiny(overrides={"slots.observation_encoder": {"class": "a:B", "depth": 2}}).to_dict()
    added = resolve(config=base, overrides={"slots.observation_encoder.depth": 3})
    assert added.slots["observation_encoder"] == {"class": "a:B", "depth": 3}
    other = resolve(config=base, overrides={"slots.observation_encoder": {"class": "c:D"}})
    assert other.slots["observation_encoder"] == {"class": "c:D"}
    plain = {**base, "slots": {"observation_encoder": "a:B"}}
    both = resolve(config=plain, overrides={"slots.observation_encoder.depth": 3})
    assert both.slots["observation_encoder"] == {"class": "a:B", "depth": 3}


def test_a_run_without_parts_has_no_such_room(tiny: Any) -> None:
    assert "slots" not in tiny().to_dict()
