"""What LeWorldModel must and must not do: its known mistakes, each as a property that can fail."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.strides import check_strides
from worldflux.errors import CapabilityError, ContractError
from worldflux.specs import TensorSpec
from worldflux_jepa.goals import distance_to_goal
from worldflux_jepa.lewm.agent import LeWMAgent
from worldflux_jepa.lewm.config import PRESETS
from worldflux_jepa.lewm.predictor import Dropout
from worldflux_jepa.lewm.world_model import LeWorldModel
from worldflux_jepa.projected import Convolutions, strongest
from worldflux_jepa.sigreg import sigreg

IMAGE = {"image": TensorSpec((3, 16, 16), "uint8", low=0, high=255)}
ACTION = {"action": TensorSpec((2,), low=-1.0, high=1.0)}
SMALL = PRESETS["mini"].with_(
    **{
        "model.conv": (4, 8), "model.history": 3, "model.embed": 12, "model.projector": 16,
        "model.stride": 2, "model.cost": "last",
        "model.predictor.depth": 2, "model.predictor.head_size": 8, "model.predictor.mlp": 16,
        "model.directions": 16, "agent.batch": 6,
        "agent.planner.candidates": 8, "agent.planner.elites": 2, "agent.planner.iterations": 2,
    }
)  # fmt: skip


def agent(**changes: Any) -> LeWMAgent:
    made = LeWMAgent(SMALL.with_(**changes), IMAGE, ACTION)
    made.total = {"model": 100}
    return made


def images(*lead: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*lead, 3, 16, 16), generator=generator).to(torch.uint8)


def batch(rows: int = 6, steps: int = 4, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    action = torch.rand(rows, steps, 2, 2, generator=generator) * 2 - 1
    none = torch.zeros(rows, steps, dtype=torch.bool)
    first = none.clone()
    first[:, 0] = True
    return Batch({"image": images(rows, steps, seed=seed)}, first, none, none, action=action)


def test_published_sizes() -> None:
    spec = {"image": TensorSpec((3, 224, 224), "uint8", low=0, high=255)}
    with torch.device("meta"):
        model = LeWorldModel(PRESETS["base"], spec, ACTION)
    count = {
        "predictor": model.dynamics_model.predictor,
        "action": model.action_conditioner,
        "pred_proj": model.dynamics_model.projector,
        "projector": model.observation_encoder.projector,
    }
    found = {name: sum(p.numel() for p in part.parameters()) for name, part in count.items()}
    assert found == {"predictor": 10_791_360, "action": 156_206, "pred_proj": 792_768,
                     "projector": 792_768}  # fmt: skip
    assert 17.9e6 < model.parameter_count() < 18.1e6


def test_sigreg_is_calibrated_and_says_what_is_no_normal() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, 128, 192, generator=generator)
    directions = torch.randn(192, 1024, generator=generator)
    assert sigreg(z, directions) == pytest.approx(1.06, abs=0.03)
    assert sigreg(torch.zeros_like(z), directions) == pytest.approx(51.46, abs=0.1)
    assert sigreg(3 * z, directions) == pytest.approx(67.6, abs=0.5)
    alike = z[..., :1].expand_as(z)
    assert sigreg(alike, directions) > 10 and sigreg(z + 1, directions) > 10


def test_sigreg_does_not_mix_time_steps() -> None:
    """Over all steps together a step that never varies could hide behind the others."""
    z = torch.randn(2, 64, 8)
    constant = torch.stack([z[0] * 2**0.5, torch.zeros(64, 8)])
    directions = torch.randn(8, 64)
    assert sigreg(constant, directions) > 5 * sigreg(z, directions)


def test_gradients_reach_the_target_and_there_is_no_slow_copy() -> None:
    model = agent().world_model
    rep = model.embedded(batch()).detach().requires_grad_()
    model.embedded = lambda given: rep  # type: ignore[method-assign]
    loss = model.loss(batch(), rand=Rand.seeded(0)).components["prediction"]
    [gradient] = torch.autograd.grad(loss, rep)
    assert bool((gradient[:, -1].abs().sum(-1) > 0).all())
    assert all(p.requires_grad for p in model.parameters())


def test_predictions_do_not_see_the_future_or_other_episodes() -> None:
    model = agent().world_model.eval()
    rep, action = torch.randn(2, 3, 12), torch.randn(2, 3, 12)
    first = torch.tensor([[True, False, False], [True, False, True]])
    _open_gates(model)
    plain = model.dynamics_model.sequence(rep, action, first)
    for t in (1, 2):
        later = torch.where(torch.arange(3)[:, None] >= t, torch.randn(2, 3, 12), rep)
        found = model.dynamics_model.sequence(later, action, first)
        torch.testing.assert_close(found[:, :t], plain[:, :t])
        assert not torch.allclose(found[:, t], plain[:, t])
    other = torch.cat([torch.randn(2, 2, 12), rep[:, 2:]], 1)
    found = model.dynamics_model.sequence(other, action, first)
    torch.testing.assert_close(found[1, 2], plain[1, 2])
    assert not torch.allclose(found[0, 2], plain[0, 2])


def _open_gates(model: LeWorldModel) -> None:
    for block in model.dynamics_model.predictor.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.3)


def test_long_sequences_give_what_their_windows_give() -> None:
    model = agent().world_model.eval()
    _open_gates(model)
    long = batch(3, 7)
    rep = model.embedded(long)
    action = model.condition(long.action[:, :-1].flatten(0, 1)).unflatten(0, (3, 6))
    guesses = model._guesses(long, rep, action, None)
    seen = model.observe_sequence(long)
    after = model.transition(seen.at(4), long.action[:, 4])
    torch.testing.assert_close(guesses[:, 4], after["rep"])
    short = replace(long, is_first=torch.zeros(3, 7, dtype=torch.bool))
    cut = Batch({"image": long.obs["image"][:, 2:6]}, short.is_first[:, 2:6], *[
        short.is_last[:, 2:6]] * 2, action=long.action[:, 2:6])  # fmt: skip
    window = model._guesses(cut, rep[:, 2:6], action[:, 2:5], None)
    torch.testing.assert_close(guesses[:, 4], window[:, 2])


@pytest.mark.parametrize("held", [1, 2, 3])
def test_all_plans_together_equal_step_by_step(held: int) -> None:
    """The context's keys and values, shared by all candidates, change nothing."""
    model = agent(**{"model.rows": 5}).world_model.eval()
    _open_gates(model)
    seen = model.observe_sequence(batch(2, held)).at(-1)
    plans = torch.rand(2, 4, 5, 2, 2) * 2 - 1
    goal = ConditionPayload(goal=torch.randn(2, 12))
    scores = model.score(seen, plans, goal)
    state, flat = seen.repeat(4), plans.flatten(0, 1)
    for t in range(5):
        state = model.transition(state, flat[:, t])
    expected = -(state["rep"].unflatten(0, (2, 4)) - goal.goal[:, None]).square().sum(-1)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


def test_rows_with_windows_of_other_sizes_are_planned_for_too() -> None:
    model = agent().world_model.eval()
    _open_gates(model)
    both = model.observe_sequence(batch(2, 3))
    mixed = both.at(2).where(torch.tensor([True, False]), both.at(0))
    plans, goal = torch.rand(2, 3, 4, 2, 2), torch.randn(2, 12)
    scores = model.score(mixed, plans, ConditionPayload(goal=goal))
    for row in range(2):
        alone = mixed.rows(slice(row, row + 1))
        own = ConditionPayload(goal=goal[row : row + 1])
        torch.testing.assert_close(scores[row], model.score(alone, plans[row : row + 1], own)[0])


def test_the_context_is_encoded_once_for_a_plan() -> None:
    own = agent().eval()
    seen: list[int] = []
    encoder = own.world_model.observation_encoder
    encoder.register_forward_hook(lambda module, given, out: seen.append(len(out["rep"])))
    obs = {"image": images(2), "goal": images(2, seed=1)}
    own.act(obs, None, torch.ones(2, dtype=torch.bool), rand=Rand.seeded(0))
    assert seen == [2, 2]  # the observation and the goal, whatever the number of candidates


def test_planning_while_training_is_refused() -> None:
    """Batch norm would take the statistics of the candidates."""
    model = agent().world_model.eval()
    state, goal = model.encode({"image": images(1)}), ConditionPayload(goal=torch.zeros(1, 12))
    with pytest.raises(ContractError, match=r"while training: batch norm .* Call eval\(\)"):
        model.train().score(state, torch.zeros(1, 2, 3, 2, 2), goal)
    with pytest.raises(ContractError, match="give conditions.goal"):
        model.eval().score(state, torch.zeros(1, 2, 3, 2, 2))


def test_embeddings_do_not_depend_on_the_batch_when_planning() -> None:
    model = agent().world_model.eval()
    one, more = model.encode({"image": images(1)}), model.encode({"image": images(5)})
    torch.testing.assert_close(one["rep"][0], more["rep"][0])


def episodes(scale: float = 0.5) -> EpisodeSource:
    own, rng, found = agent(), np.random.default_rng(0), []
    for _ in range(6):
        index = np.arange(20)
        action = (scale * rng.normal(size=(20, 2)) + 0.1).astype(np.float32)
        action[-1] = 0
        found.append(
            {
                "obs.image": rng.integers(0, 255, (20, 3, 16, 16)).astype(np.uint8),
                "action": action, "reward": np.zeros(20, np.float32),
                "is_first": index == 0, "is_last": index == 19,
                "is_terminal": np.zeros(20, bool),
            }
        )  # fmt: skip
    return EpisodeSource(found, own.columns)


def test_actions_are_normalised_by_the_data_in_planning_too() -> None:
    own, source = agent(), episodes()
    own.begin("model", source)
    blocks = own.world_model.action_conditioner
    statistics = source.statistics("action")
    torch.testing.assert_close(blocks.std, torch.as_tensor(statistics.std).float())
    assert {"world_model.action_conditioner.mean", "world_model.action_conditioner.std"} <= set(
        own.state_dict()
    )
    plain = blocks(torch.zeros(1, 2, 2))
    blocks.mean.add_(1)
    assert not torch.allclose(plain, blocks(torch.zeros(1, 2, 2)))


def test_a_small_thing_that_moves_is_seen_before_large_ones_that_stay() -> None:
    """Each pixel is normalised by its own statistics, which the model keeps."""
    pictures = torch.full((200, 3, 16, 16), 240, dtype=torch.uint8)
    pictures[:, :, 8:] = 90  # a wall, the same in all
    pictures[torch.arange(200), :, torch.randint(8, (200,)), torch.randint(16, (200,))] = 80
    trunk = Convolutions((4,), "image", IMAGE["image"])
    trunk.fit(pictures)
    seen: list[Tensor] = []
    trunk.layers[0].register_forward_hook(lambda m, given, out: seen.append(given[0]))
    trunk({"image": pictures})
    assert seen[0][:, :, 8:].abs().max() < 1e-5 and seen[0][:, :, :8].abs().max() > 3
    assert {"mean", "std"} <= set(trunk.state_dict())


def test_the_strongest_place_of_a_map() -> None:
    maps = torch.zeros(2, 1, 5, 9)
    maps[0, 0, 4, 0], maps[1, 0, 2, 8] = 50, 50
    torch.testing.assert_close(strongest(maps), torch.tensor([[-1.0, 1.0], [1.0, 0.0]]))


def test_a_block_keeps_the_order_of_its_actions() -> None:
    blocks = agent().world_model.action_conditioner
    block = torch.randn(1, 2, 2)
    torch.testing.assert_close(blocks(block), blocks(block.flatten(1)))
    assert not torch.allclose(blocks(block), blocks(block.flip(1)))


def test_one_frame_skip_for_training_and_planning() -> None:
    own = agent()
    check_strides(own)
    own.stride = 3
    with pytest.raises(ContractError, match="Strides disagree: LeWorldModel.stride 2, LeWMAgent"):
        check_strides(own)


def test_an_update_learns_and_a_goal_is_no_observation() -> None:
    own = LeWMAgent(SMALL, {**IMAGE, "goal": IMAGE["image"]}, ACTION)
    own.total = {"model": 100}
    assert list(own.obs_spec) == ["image"] and "obs.goal" not in own.columns
    source, phase = episodes(), own.training_plan().phases[0]
    found = [
        own.update(source.read(source.choose(phase, i)), "model", rand=Rand.seeded(i)).metrics
        for i in range(2)
    ]
    assert {"loss/prediction", "loss/sigreg", "rep/std", "rep/rank"} <= found[0].keys()
    told = own.eval().evaluate(source, Rand.seeded(0), limit=2).metrics
    assert told["sigreg"] > 0 and "rep_std" in told


def test_without_sigreg_a_collapse_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    own = agent(**{"model.sigreg": 0.0, "agent.lr": 0.0001})
    last = own.world_model.observation_encoder.projector.net[-1]
    torch.nn.init.zeros_(last.weight)
    own.steps["model"] = 49
    with caplog.at_level(logging.WARNING):
        own.update(batch(), "model", rand=Rand.seeded(0))
    assert "the representation collapsed" in caplog.text


def test_dropout_is_drawn_and_off_in_planning() -> None:
    drop = Dropout(Rand.seeded(0), 0.5)
    found = drop(torch.ones(200, 5), "x")
    assert set(found.unique().tolist()) == {0.0, 2.0}
    own = agent(**{"model.predictor.dropout": 0.5})
    _open_gates(own.world_model)
    losses = [own.world_model.train().loss(batch(), rand=Rand.seeded(s)).loss for s in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(*[own.world_model.eval().loss(batch(), rand=Rand.seeded(0)).loss] * 2)


@pytest.mark.parametrize(
    ("obs", "action", "text"),
    [
        ({"state": TensorSpec((5,))}, ACTION, "LeWM sees one image"),
        (IMAGE, {}, "LeWM needs a continuous action, got none"),
        (IMAGE, {"action": TensorSpec((), "int64", n=3)}, "LeWM needs a continuous action"),
    ],
)
def test_spaces_it_cannot_use(obs: Any, action: Any, text: str) -> None:
    with pytest.raises(CapabilityError, match=text):
        LeWMAgent(SMALL, obs, action)


def test_costs_of_paths() -> None:
    path, goal = torch.randn(2, 3, 4, 5), torch.randn(2, 5)
    apart = path - goal[:, None, None]
    for name, each in {
        "squared": apart.square().sum(-1),
        "l1": apart.abs().mean(-1),
        "cosine": 1 - torch.cosine_similarity(path, goal[:, None, None].expand_as(path), dim=-1),
    }.items():
        torch.testing.assert_close(distance_to_goal(path, goal, name, "last"), each[..., -1])
        torch.testing.assert_close(distance_to_goal(path, goal, name, "sum"), each.sum(-1))
    with pytest.raises(ContractError, match=r"The goal has shape \(2, 4\), expected \(2, 5\)"):
        distance_to_goal(path, goal[:, :4], "l1", "last")
