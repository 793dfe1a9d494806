"""Models and agents by id: presets, overrides, slots and the environments' fallback."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import worldflux
from worldflux.config import Config
from worldflux.core.actions import VectorActions
from worldflux.errors import ConfigError, PluginLoadError, UnknownIdError
from worldflux.factory import load_class, preset_of
from worldflux.registry import MODEL_PACKAGES, models
from worldflux.specs import TensorSpec

SMALL: dict[str, Any] = {"obs_shape": (2,), "action_dim": 1, "units": 4}


class Doubled(VectorActions):
    """A conditioner with a weight of its own, built from the model it sits in."""

    def __init__(self, model: Any) -> None:
        super().__init__(next(iter(model.action_spec.values())))
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, action: Any, conditions: Any = None) -> torch.Tensor:
        return self.factor * super().forward(action, conditions)


def test_an_id_alone_is_enough() -> None:
    model = worldflux.create_world_model("ring")
    assert model.obs_spec == {"image": TensorSpec((3, 64, 64), "uint8", 0, 255)}
    assert model.action_spec["action"].shape == (6,)
    assert model.provenance == {"family": "ring", "preset": "small"}


def test_presets_and_overrides_reach_the_configuration() -> None:
    config = worldflux.create_config("Ring:LARGE", **{"agent.planner.horizon": 3})
    assert worldflux.create_config("ring:large", **{"planner.horizon": 3}) == config
    assert (config.model.units, config.agent.planner.horizon) == (256, 3)  # type: ignore[attr-defined]
    model = worldflux.create_world_model("ring:large", **SMALL | {"agent.lr": 0.1})
    assert (model.config.model.units, model.config.agent.lr) == (4, 0.1)  # type: ignore[attr-defined]
    given = worldflux.create_world_model("ring", config=config, units=5)
    assert given.config == config.with_(**{"model.units": 5})


def test_the_agent_owns_a_model_of_the_same_spaces() -> None:
    agent = worldflux.create_agent("ring", obs_shape=(2,), action_dim=3, discrete=True)
    assert agent.world_model.action_spec == {"action": TensorSpec((), "int64", n=3)}
    assert agent.provenance == {"family": "ring", "preset": "small"}


REFUSED = [
    ("ring:lrge", {}, UnknownIdError, "'ring' has no preset 'lrge'. Did you mean 'large'? "
     "Presets: small, large."),
    ("ring", {"unts": 3}, ConfigError, "'ring' has no option 'unts'. Did you mean 'units'?"),
    ("ring", {"obs_shap": (2,)}, ConfigError, "no option 'obs_shap'. Did you mean 'obs_shape'?"),
    ("ring", {"slots": {"dynamic_model": None}}, ConfigError, "no slot 'dynamic_model'. Did you "
     "mean 'dynamics_model'? Slots: observation_encoder,"),
    ("ring", {"decoder_module": "a:B"}, ConfigError, "'decoder_module' is a slot: write slots="),
    ("ring", {"agent.lrr": 1}, ConfigError, "PlanningAgentConfig has no key 'lrr'."),
    ("ring", {"units": 0}, ConfigError, "ModelConfig.units: Input should be greater than 0, got 0"),
    ("ring", {"config": Config()}, ConfigError, "config is a Config, 'ring' takes a RingConfig."),
    ("ring", {"slots": {"dynamics_model": "no_such:Class"}}, ConfigError, "slots.dynamics_model="
     "'no_such:Class' "
     "cannot be imported: No module named 'no_such'. Write 'package.module:Class'."),
    ("ring", {"slots": {"dynamics_model": "math:pi"}}, ConfigError, "'math:pi' is a float, "
     "not a class."),
    ("ring", {"slots": {"dynamics_model": {"units": 3}}}, ConfigError, "names no class"),
    ("ring", {"slots": {"dynamics_model": 3}}, ConfigError, "write 'package.module:Class'"),
    ("ring", {"slots": {"dynamics_model": {"class": "math:sin", "x": nn}}}, ConfigError,
     "options must be plain data"),
]  # fmt: skip


@pytest.mark.parametrize(("model_id", "options", "kind", "message"), REFUSED)
def test_refusals(model_id: str, options: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        worldflux.create_world_model(model_id, **options)
    assert message in str(caught.value)


NAME = f"{Doubled.__module__}:Doubled"


@pytest.mark.parametrize("given", [NAME, Doubled, {"class": NAME}, {"class": Doubled}])
def test_slots_are_filled_while_the_model_is_built(given: Any) -> None:
    model = worldflux.create_world_model("ring", **SMALL, slots={"action_conditioner": given})
    assert isinstance(model.action_conditioner, Doubled)
    assert model.slot_overrides == {"action_conditioner": {"class": NAME}}
    assert model.condition(torch.ones(1, 1)).item() == 2.0


def test_a_finished_module_fills_a_slot_of_one_model() -> None:
    part = Doubled(worldflux.create_world_model("ring", **SMALL))
    model = worldflux.create_world_model("ring", **SMALL, slots={"action_conditioner": part})
    assert model.action_conditioner is part


def test_the_agents_optimiser_is_made_of_what_is_there() -> None:
    agent = worldflux.create_agent("ring", **SMALL, slots={"action_conditioner": Doubled})
    trained = [p for group in agent.optimizers["model"].param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in agent.world_model.parameters()}
    assert any(p is agent.world_model.action_conditioner.factor for p in trained)  # type: ignore[union-attr]


def test_preset_of_none_is_the_default() -> None:
    assert preset_of(models.get("ring"), None)[0] == "small"


def test_unknown_families_name_the_nearest_and_the_pip_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MODEL_PACKAGES, "storm", "worldflux-storm")  # one that is not installed
    with pytest.raises(UnknownIdError) as caught:
        worldflux.get_model_spec("rng")
    assert "No model family 'rng'. Did you mean 'ring'? Installed: " in str(caught.value)
    with pytest.raises(UnknownIdError, match="'storm'. Try: pip install worldflux-storm. Inst"):
        worldflux.get_model_spec("storm")
    with pytest.raises(UnknownIdError, match="Did you mean 'storm'. Try: pip install worldflux-s"):
        worldflux.get_model_spec("storn")
    with pytest.raises(UnknownIdError, match="No model family 'ring' of the distribution 'other'"):
        worldflux.get_model_spec("other::ring")


def test_load_class_wraps_what_the_plugin_breaks() -> None:
    assert load_class("worldflux.ids:ModelId.parse")("ring").family == "ring"
    for reference in ("no_such:Class", "math:no_such", "not a reference"):
        with pytest.raises(PluginLoadError, match=r"cannot be loaded: \w+Error.*\n.*Traceback"):
            load_class(reference)


def test_backends_are_listed_with_what_they_lack() -> None:
    backends = {backend.name: backend for backend in worldflux.list_env_backends()}
    assert backends["gym"].problem is None
    assert backends["gym"].distribution == "worldflux-envs"
    assert len(backends) == len(worldflux.list_env_backends())
    assert "gym/CartPole-v1" in worldflux.list_envs("gym")
    assert worldflux.get_env_spec("gym/CartPole-v1") == worldflux.get_env_spec("GYM")


def test_environments_by_id() -> None:
    env = worldflux.make_env("gym/CartPole-v1")
    obs, _ = env.reset(seed=0)
    assert set(obs) == {"state"}
    env.close()
    vector = worldflux.make_vec_env("gym/CartPole-v1", 2)
    assert vector.num_envs == 2
    vector.close()
    with pytest.raises(ConfigError, match="num_envs must be at least 1, got 0"):
        worldflux.make_vec_env("gym/CartPole-v1", 0)


def test_a_task_without_its_backend_is_answered_with_both() -> None:
    with pytest.raises(ConfigError, match=r"names no task\. .* Did you mean 'gym/CartPole-v1'\?"):
        worldflux.make_env("CartPole-v1")
    with pytest.raises(ConfigError, match=r"Did you mean 'gym/CartPole-v1'\?"):
        worldflux.make_env("cartpole-v1")


def test_what_others_call_a_key_is_answered_with_ours() -> None:
    with pytest.raises(ConfigError, match=r"no option 'learning_rate'\. Did you mean 'lr'\?"):
        worldflux.create_world_model("ring", learning_rate=1e-3)
    with pytest.raises(ConfigError, match=r"no key 'learning_rate'\. Did you mean 'lr'\?"):
        worldflux.create_config("ring", **{"agent.learning_rate": 1e-3})
