"""What a JEPA world model must and must not do: its known mistakes, each as a property."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.errors import CapabilityError, ConfigError, ContractError, StorageError
from worldflux.specs import TensorSpec
from worldflux_jepa.jepa_wm import reference
from worldflux_jepa.jepa_wm.agent import JEPAWMAgent
from worldflux_jepa.jepa_wm.config import PRESETS
from worldflux_jepa.jepa_wm.world_model import GOAL_BODY, JEPAWorldModel

IMAGE = {"image": TensorSpec((3, 16, 16), "uint8", low=0, high=255)}
BODY = {**IMAGE, "state": TensorSpec((3,))}
ACTION = {"action": TensorSpec((2,), low=-1.0, high=1.0)}
SIZES: dict[str, Any] = {
    "model.conv": None, "model.encoder.heads": 3, "model.encoder.mlp_ratio": 4.0,
    "model.encoder.width": 12, "model.encoder.depth": 1, "model.encoder.patch": 8,
    "model.predictor.width": 24, "model.predictor.heads": 2, "model.stride": 2,
    "model.cost": "last",
    "agent.batch": 4, "agent.planner.candidates": 8, "agent.planner.elites": 2,
    "agent.planner.iterations": 2,
}  # fmt: skip
SMALL = PRESETS["small"].with_(**SIZES)
FROZEN: dict[str, Any] = {"model.frozen": True, "model.sigreg": 0.0, "model.normalise": True}
TOKENS: dict[str, Any] = {"model.predictor.conditioning": "tokens"}


def agent(obs: Any = IMAGE, **changes: Any) -> JEPAWMAgent:
    base = SMALL
    for group in (FROZEN, TOKENS):
        own = {key: changes.pop(key) for key in group if key in changes}
        base = base.with_(**{"model": {**base.model.to_dict(), **_bare(own)}}) if own else base
    made = JEPAWMAgent(base.with_(**changes), obs, ACTION)
    made.total = {"model": 100}
    _open_gates(made.world_model)
    return made


def _bare(own: dict[str, Any]) -> dict[str, Any]:
    """Keys of `model.*`, nested ones as whole configurations."""
    found: dict[str, Any] = {}
    for key, value in own.items():
        name = key.removeprefix("model.")
        if "." in name:
            found["predictor"] = {**SMALL.model.predictor.to_dict(), name.split(".")[1]: value}
        else:
            found[name] = value
    return found


def _open_gates(model: JEPAWorldModel) -> None:
    for block in model.dynamics_model.predictor.blocks:
        if hasattr(block, "modulation"):
            torch.nn.init.normal_(block.modulation.weight, std=0.3)


def batch(rows: int = 4, steps: int = 4, body: bool = False, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (rows, steps, 3, 16, 16), generator=generator).to(torch.uint8)
    obs = {"image": images}
    if body:
        obs["state"] = torch.randn(rows, steps, 3, generator=generator)
    action = torch.rand(rows, steps, 2, 2, generator=generator) * 2 - 1
    none = torch.zeros(rows, steps, dtype=torch.bool)
    first = none.clone()
    first[:, 0] = True
    return Batch(obs, first, none, none, action=action)


def test_published_sizes() -> None:
    spec = {"image": TensorSpec((3, 256, 256), "uint8", low=0, high=255),
            "state": TensorSpec((7,))}  # fmt: skip
    with torch.device("meta"):
        model = JEPAWorldModel(
            PRESETS["vjepa2-ac"], spec, {"action": TensorSpec((7,), low=-1.0, high=1.0)}
        )
    parameters = list(model.dynamics_model.predictor.parameters())
    assert sum(p.numel() for p in parameters) == 305_220_992
    assert sum(p.numel() for p in parameters if not p.requires_grad) == 7_168
    assert not any(p.requires_grad for p in model.observation_encoder.parameters())
    with torch.device("meta"):
        dino = JEPAWorldModel(PRESETS["dino-wm"], IMAGE | {"image": spec["image"]}, ACTION)
    assert len(dino.dynamics_model.predictor.blocks) == 6


@pytest.mark.parametrize("conditioning", ["adaln", "tokens"])
def test_predictions_do_not_see_the_future(conditioning: str) -> None:
    dynamics = agent(**{"model.predictor.conditioning": conditioning}).world_model.dynamics_model
    rep, action = torch.randn(2, 3, 4, 12), torch.randn(2, 3, 4)
    first = torch.zeros(2, 3, dtype=torch.bool)
    first[:, 0] = True
    plain, _ = dynamics.sequence(rep, action, None, first)
    for t in (1, 2):
        later = torch.arange(3)[:, None, None] >= t
        for other in (
            (torch.where(later, torch.randn_like(rep), rep), action),
            (rep, torch.where(later[..., 0], torch.randn_like(action), action)),
        ):
            found, _ = dynamics.sequence(*other, None, first)
            torch.testing.assert_close(found[:, :t], plain[:, :t])
            assert not torch.allclose(found[:, t], plain[:, t])


def test_predictions_do_not_see_another_episode() -> None:
    dynamics = agent().world_model.dynamics_model
    rep, action = torch.randn(1, 3, 4, 12), torch.randn(1, 3, 4)
    first = torch.tensor([[True, False, True]])
    plain, _ = dynamics.sequence(rep, action, None, first)
    other = torch.cat([torch.randn(1, 2, 4, 12), rep[:, 2:]], 1)
    found, _ = dynamics.sequence(other, action, None, first)
    torch.testing.assert_close(found[:, 2], plain[:, 2])
    together, _ = dynamics.sequence(other, action, None, torch.tensor([[True, False, False]]))
    assert not torch.allclose(together[:, 2], plain[:, 2])


def test_the_rollout_is_fed_with_its_own_predictions() -> None:
    """The last frame is predicted from frame 0 and the prediction of frame 1, not from frame 1."""
    model = agent().world_model.eval()
    losses = [model.loss(given, rand=Rand.seeded(0)).components for given in (batch(), batch())]
    assert torch.equal(losses[0]["rollout"], losses[1]["rollout"])
    rep = model._tokens(batch())["rep"]
    dynamics = model.dynamics_model
    action = model.condition(batch().action[:, :-1].flatten(0, 1)).unflatten(0, (4, 3))
    first = batch().is_first[:, :-1]
    guess, _ = dynamics.sequence(rep[:, :-1], action, None, first)
    fed = torch.stack([rep[:, 0], guess[:, 0]], 1)
    second, _ = dynamics.sequence(fed, action[:, :2], None, first[:, :2])
    errors = [(guess[:, 0] - rep[:, 1]).square(), (second[:, 1] - rep[:, 2]).square()]
    torch.testing.assert_close(losses[0]["rollout"], torch.stack(errors).mean() / 2)


@pytest.mark.parametrize("held", [1, 2, 3])
@pytest.mark.parametrize("conditioning", ["adaln", "tokens"])
def test_all_plans_together_equal_step_by_step(conditioning: str, held: int) -> None:
    changes = {"model.predictor.conditioning": conditioning, "model.rows": 5}
    model = agent(**changes).world_model.eval()
    seen = model.observe_sequence(batch(2, held)).at(-1)
    plans = torch.rand(2, 4, 4, 2, 2) * 2 - 1
    goal = ConditionPayload(goal=torch.randn(2, 4, 12))
    with torch.no_grad():
        scores = model.score(seen, plans, goal)
        state, flat = seen.repeat(4), plans.flatten(0, 1)
        for t in range(4):
            state = model.transition(state, flat[:, t])
    expected = (state["rep"].unflatten(0, (2, 4)) - goal.goal[:, None]).square().sum((-2, -1))
    torch.testing.assert_close(scores, -expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("conditioning", ["adaln", "tokens"])
def test_a_window_of_one_sees_each_frame_alone(conditioning: str) -> None:
    """In one pass, step by step, in the rollout and in plans alike."""
    changes = {"model.predictor.conditioning": conditioning, "model.window": 1}
    model = agent(**changes).world_model.eval()
    given = batch(4, 4)
    whole = model.loss(given, rand=Rand.seeded(0)).components
    rep = model._tokens(given)["rep"]
    action = model.condition(given.action[:, :-1].flatten(0, 1)).unflatten(0, (4, 3))
    slow = model._stepwise(given, model._tokens(given), action, Rand.seeded(0)).components
    torch.testing.assert_close(whole["teacher"], slow["teacher"])
    first = given.is_first[:, :-1]
    guess, _ = model.dynamics_model.sequence(rep[:, :-1], action, None, first)
    second, _ = model.dynamics_model.sequence(guess[:, :1], action[:, 1:2], None, first[:, 1:2])
    errors = [(guess[:, 0] - rep[:, 1]).square(), (second[:, 0] - rep[:, 2]).square()]
    torch.testing.assert_close(whole["rollout"], torch.stack(errors).mean() / 2)
    state, plan = model.observe_sequence(given).at(-1), torch.rand(4, 1, 3, 2, 2)
    with torch.no_grad():
        path, _ = model.dynamics_model.paths(state, plan.flatten(3))
        for t in range(3):
            state = model.transition(state, plan[:, 0, t])
            torch.testing.assert_close(path[:, 0, t], state["rep"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("following", ["add", "predict"])
def test_a_body_is_felt_predicted_and_part_of_the_cost(following: str) -> None:
    changes = {"model.proprio": "state", "model.proprio_next": following,
               "model.proprio_weight": 0.5}  # fmt: skip
    own = agent(BODY, **changes)
    model = own.world_model.eval()
    seen = model.observe_sequence(batch(2, 2, body=True)).at(-1)
    plans = torch.rand(2, 3, 3, 2, 2)
    goal = ConditionPayload(goal=torch.randn(2, 4, 12))
    body = ConditionPayload(goal=goal.goal, extras={GOAL_BODY: torch.randn(2, 3)})
    with torch.no_grad():
        _, bodies = model.dynamics_model.paths(seen, plans.flatten(3))
        state = model.transition(seen, plans[:, 0, 0])
        torch.testing.assert_close(bodies[:, 0, 0], state["proprio"], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model.score(seen, plans, goal), model.score(seen, plans, body))
    if following == "add":
        moved = seen["proprio"][:, :2] + plans[:, 0, 0].sum(1)
        torch.testing.assert_close(state["proprio"][:, :2], moved)
    found = model.loss(batch(body=True)).components
    assert ("proprio" in found) == (following == "predict")


def test_a_frozen_encoder_stays_as_it_is() -> None:
    own = agent(**FROZEN)
    before = {k: v.clone() for k, v in own.world_model.observation_encoder.state_dict().items()}
    own.update(batch(), "model", rand=Rand.seeded(0))
    after = own.world_model.observation_encoder.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not own.whole_batch


def test_targets_of_a_frozen_encoder_are_normalised() -> None:
    model = agent(**FROZEN).world_model
    tokens = model.encode({"image": batch().obs["image"][:, 0]})["rep"]
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(4, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.std(-1, correction=0), torch.ones(4, 4), atol=1e-2, rtol=0)


def test_a_trained_encoder_must_be_kept_from_collapsing() -> None:
    with pytest.raises(ConfigError, match=r"frozen=false\) needs sigreg > 0"):
        SMALL.with_(**{"model.sigreg": 0.0})
    with pytest.raises(ConfigError, match="set normalise=false"):
        SMALL.with_(**{"model.normalise": True})


def test_the_small_preset_plans_with_what_its_norms_have_learnt() -> None:
    """Its convolutions give four tokens; a plan's candidates do not change how they are seen."""
    own = JEPAWMAgent(PRESETS["small"], {"image": TensorSpec((3, 32, 32), "uint8", 0, 255)}, ACTION)
    images = torch.randint(0, 256, (5, 3, 32, 32)).to(torch.uint8)
    model = own.world_model.train()
    norms = own.training_plan().phases[0].follows
    assert len(norms) == 3 and all(name in own.state_dict() for name in norms)
    state = own.observe({"image": images}, None, torch.ones(5, dtype=torch.bool))
    alone = own.observe({"image": images[:1]}, None, torch.ones(1, dtype=torch.bool))
    assert state["rep"].shape == (5, 4, 8) and model.training
    torch.testing.assert_close(state["rep"][:1], alone["rep"])
    plans, goal = torch.zeros(1, 2, 3, 5, 2), ConditionPayload(goal=torch.zeros(1, 4, 8))
    with pytest.raises(ContractError, match="A JEPA world model was asked .* while training"):
        model.score(alone, plans, goal)
    assert model.eval().score(alone, plans, goal).shape == (1, 2)
    with pytest.raises(ConfigError, match="convolutions of ours have learnt nothing yet"):
        PRESETS["small"].with_(**{"model.frozen": True, "model.sigreg": 0.0})


def test_plans_need_a_goal_and_goals_come_from_observations() -> None:
    own = agent().eval()
    state = own.world_model.encode({"image": batch().obs["image"][:, 0]})
    with pytest.raises(ContractError, match="give conditions.goal, tokens"):
        own.world_model.score(state, torch.zeros(4, 2, 3, 2, 2))
    obs = {"image": batch().obs["image"][:, 0], "goal": batch(seed=1).obs["image"][:, 0]}
    payload, _ = own.act(obs, None, torch.ones(4, dtype=torch.bool), rand=Rand.seeded(0))
    assert payload.tensor is not None and payload.tensor.shape == (4, 2)
    goal = own.conditions(obs)
    assert goal is not None and goal.goal is not None
    expected = own.world_model.encode({"image": obs["goal"]})["rep"]
    torch.testing.assert_close(goal.goal, expected)


@pytest.mark.parametrize(
    ("obs", "action", "changes", "text"),
    [
        ({"state": TensorSpec((5,))}, ACTION, {}, "A JEPA world model sees one image"),
        (IMAGE, {}, {}, "need a continuous action, got none"),
        (IMAGE, ACTION, {"model.proprio": "state"}, "is no vector among the observations"),
    ],
)
def test_spaces_it_cannot_use(obs: Any, action: Any, changes: Any, text: str) -> None:
    with pytest.raises(CapabilityError, match=text):
        JEPAWMAgent(SMALL.with_(**changes), obs, action)


def test_a_published_predictor_is_read(tmp_path: Path) -> None:
    model = agent(BODY, **{"model.proprio": "state", "model.predictor.conditioning": "tokens"})
    predictor = model.world_model.dynamics_model.predictor
    names = {ours: theirs for theirs, ours in reference.NAMES.items()}
    weights: dict[str, Tensor] = {}
    for name, value in predictor.state_dict().items():
        start = next(own for own in names if name.startswith(own))
        weights[f"module.{names[start]}{name.removeprefix(start)}"] = value
    torch.save({"predictor": weights}, tmp_path / "ac.pt")
    found = reference.read_checkpoint(tmp_path / "ac.pt")
    config = reference.inferred_config(found, heads=2)
    assert (config.width, config.depth, config.mlp_ratio) == (24, 2, 2.0)
    reference.load_weights(predictor, found)
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(StorageError, match="holds no V-JEPA 2-AC predictor"):
        reference.read_checkpoint(tmp_path / "other.pt")
