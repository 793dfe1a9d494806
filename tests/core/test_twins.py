"""Every mistake that the published checks must refuse, with the sentence that names it.

The classes stand beside the tests of the checks that find them; here the whole suite meets them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from worldflux.specs import CheckSettings, ModelSpec
from worldflux.testing import check_agent, check_world_model
from worldflux.testing.dummies import TinyConfig, TinyModel
from worldflux.testing.family import SPACES, check_family_learns

TWINS = [
    (
        "idle second phase",
        "agent.IdleSecondPhase",
        "phase 'policy' is idle: 3 updates",
    ),
    ("stale weights under bf16", "agent.StaleWeights", "uses stale weights under bf16: 'reward'"),
    ("cache that leaks", "model.WritesIntoItsState", "transition writes into the State it starts"),
    ("cache in the module", "model.KeepsACacheInTheModule", "depends on the steps made before it"),
    ("future in the encoder", "model.SeesTheFuture", "observe_sequence sees the future"),
    ("future in the loss", "world.FutureSeen", "a later observation in the State that the loss"),
    ("reward one step early", "world.RewardEarlier", "reward of one step earlier: .* off by one"),
    ("reward one step late", "world.RewardLater", "the reward is not: it is off by one in `loss`"),
    ("reward's sign", "world.RewardSign", "reward has the wrong sign in `loss`"),
    ("reward ignores the State", "model.BlindReward", "prediction 'reward' ignores the State"),
    ("action off by one", "world.ActionLater", "action is off by one in `loss`"),
    ("action zeroed", "world.ActionZeroed", "action is zeroed or left out in `loss`"),
    ("action ignored", "model.IgnoresActions", "transition ignores the action"),
    ("continue constant", "model.ConstantContinue", r"'continue' ignores the State: .* as 1\)"),
    ("continue flipped", "world.ContinueFlipped", "continue target is flipped in `loss`"),
    ("loss across episodes", "model.LossCrossesEpisodes", "reaches across an episode boundary"),
    ("encoder mixes rows", "model.MixesRowsInEncoder", r"\(observation_encoder\) mixes rows"),
    ("dynamics mixes rows", "model.MixesRowsInDynamics", r"\(dynamics_model\) mixes rows"),
    (
        "decoder mixes rows",
        "model.MixesRowsInDecoder",
        r"\(decoder_module\) mixes rows",
    ),
    ("model seeds torch", "model.SeedsInConstructor", "the constructor calls torch.manual_seed"),
    ("agent seeds torch", "agent.SeedsInConstructor", "the constructor calls torch.manual_seed"),
    ("agent ignores what it sees", "agent.BlindAgent", "ignores its observation: 9 different ones"),
    (
        "frozen parts move",
        "agent.MovesFrozenParts",
        "phase 'all' moves frozen parameters",
    ),
]
FILES = {
    "agent": "test_conformance_agent.py",
    "model": "test_conformance_model.py",
    "world": "test_known_world.py",
}


@pytest.fixture(scope="module")
def modules() -> dict[str, ModuleType]:
    found = {}
    for name, file in FILES.items():
        spec = importlib.util.spec_from_file_location(f"twins_{name}", Path(__file__).parent / file)
        assert spec is not None and spec.loader is not None
        found[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    return found


def learns(module, cls):
    """The last of `check_family`'s checks, on a family whose agent trains the model `cls`."""

    class Agent(module.Twin):
        def __init__(self, config, obs_spec, action_spec):
            super().__init__(cls, obs_spec, action_spec)

    home = ModuleType("twins_family")
    home.Agent, home.Model = Agent, TinyModel
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "twins_family", home)
        spec = ModelSpec(
            family="twin",
            config=TinyConfig,
            presets={"a": TinyConfig()},
            default_preset="a",
            model="twins_family:Model",
            agent="twins_family:Agent",
            capabilities=TinyModel.capabilities,
            check=CheckSettings(updates=120),
        )
        patch.setattr("worldflux.registry.models.get", lambda *_: spec)
        check_family_learns(spec)


@pytest.mark.parametrize(
    ("twin", "sentence"), [row[1:] for row in TWINS], ids=[row[0] for row in TWINS]
)
def test_a_broken_twin_is_refused_by_name(modules, twin, sentence):
    kind, name = twin.split(".")
    cls = getattr(modules[kind], name)
    with pytest.raises(AssertionError, match=sentence):
        if kind == "world":
            learns(modules[kind], cls)
        else:
            suite = check_agent if kind == "agent" else check_world_model
            suite(lambda: cls(TinyConfig(), *SPACES[0][1:]))
