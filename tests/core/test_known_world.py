"""The known world's check; `test_twins.py` has the mistakes it names, made of these classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from worldflux.core.interfaces import DynamicsModel
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput, UpdateResult
from worldflux.core.spec import StateSpec
from worldflux.core.state import State
from worldflux.planning import PlanningAgent
from worldflux.planning.config import PlanningAgentConfig
from worldflux.specs import Capability, TensorSpec
from worldflux.testing.dummies import TinyAgent, TinyConfig, TinyEncoder, TinyModel
from worldflux.testing.known_world import check_learns_known_world
from worldflux.testing.line_world import CONTINUOUS, DISCRETE, IMAGE, REACH, VECTOR, line_world
from worldflux.testing.one_step_ahead import predictions

UPDATES = 120


def _cut(batch, steps):
    """The steps of a slice, with what was stored before them."""
    return replace(batch.map(lambda x: x[:, steps]), stored=batch.stored)


def _shifted(batch, name, by):
    """`name` of one step later (by = 1) or earlier (-1), without the step that has none."""
    there, here = slice(1, None), slice(None, -1)
    if by < 0:
        there, here = here, there
    return replace(_cut(batch, here), **{name: getattr(_cut(batch, there), name)})


class RewardEarlier(TinyModel):
    def seen(self, batch):
        return _shifted(batch, "reward", -1)


class RewardLater(TinyModel):
    def seen(self, batch):
        return _shifted(batch, "reward", 1)


class RewardSign(TinyModel):
    def seen(self, batch):
        return replace(batch, reward=-batch.reward)


class ActionZeroed(TinyModel):
    def seen(self, batch):
        return replace(batch, action=torch.zeros_like(batch.action))


class ActionLater(TinyModel):
    def seen(self, batch):
        return _shifted(batch, "action", 1)


class ContinueFlipped(TinyModel):
    def seen(self, batch):
        return replace(batch, is_terminal=~batch.is_terminal)


class FutureSeen(TinyModel):
    """Its States know the observation of one step later; they decode the present one."""

    def observe_sequence(self, batch, start=None, *, rand=None):
        later = {key: torch.cat([x[:, 1:], x[:, -1:]], 1) for key, x in batch.obs.items()}
        return super().observe_sequence(replace(batch, obs=later), start, rand=rand)


class Twin(TinyAgent):
    def __init__(self, model, obs=VECTOR, action=CONTINUOUS):
        super().__init__(TinyConfig(), obs, action)

        class Broken(model):
            def loss(self, batch, *args, **options):
                seen = getattr(self, "seen", lambda batch: batch)
                return super().loss(seen(batch), *args, **options)

        self.world_model = Broken(TinyConfig(), obs, action)
        self.optimizers = {"adam": torch.optim.Adam(self.world_model.parameters(), lr=1e-2)}

    def update(self, batch, phase, **options):
        return UpdateResult(self.step("adam", self.world_model.loss, batch))


class Ahead(DynamicsModel):
    """The next embedding from this one and the action."""

    def __init__(self, width, actions):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width + actions, 64), nn.ELU(), nn.Linear(64, width))

    def transition(self, state, action, *, deterministic=False, rand=None):
        return State({"embed": self.net(torch.cat([state["embed"], action], -1))})


class Latent(WorldModel):
    """No decoder and no reward: it predicts the next embedding of a fixed random encoder."""

    capabilities = frozenset({Capability.STATELESS})
    composable_support = frozenset({"observation_encoder", "dynamics_model"})

    def __init__(self, config, obs_spec, action_spec):
        super().__init__(config, obs_spec, action_spec)
        self.fill("observation_encoder", lambda: TinyEncoder(self.obs_spec, config.width))
        self.observation_encoder.requires_grad_(False)
        self.fill("dynamics_model", lambda: Ahead(config.width, 1))

    def state_spec(self):
        return StateSpec({"embed": TensorSpec((self.config.width,))})

    def taken(self, action):
        return action

    def loss(self, batch, part=None, *, rand=None):
        batch = batch.without_context()
        state, pairs = self.observe_sequence(batch), batch.transitions()
        action = self.taken(pairs.action.flatten(0, 1))
        ahead = self.transition(state.map(lambda x: x[:, :-1]).flat(), action)["embed"]
        missed = (ahead - state["embed"][:, 1:].flatten(0, 1)).square().mean(-1)
        loss = missed[pairs.valid.flatten()].mean()
        return LossOutput(loss, {"ahead": loss})


class LatentWithoutAction(Latent):
    def taken(self, action):
        return torch.zeros_like(action)

    def condition(self, action, conditions=None):
        return torch.zeros_like(super().condition(action, conditions))


def latent(model):
    learner = Twin(TinyModel)
    learner.world_model = model(TinyConfig(), VECTOR, CONTINUOUS)
    trained = [p for p in learner.world_model.parameters() if p.requires_grad]
    learner.optimizers = {"adam": torch.optim.Adam(trained, lr=1e-2)}
    return learner


def test_a_state_without_decoder_and_reward_is_read_linearly():
    torch.manual_seed(0)
    learner = latent(Latent)
    check_learns_known_world(learner, UPDATES)
    (read,) = predictions(learner.world_model)
    assert read.name == "position" and read.ratio < 0.5


def test_a_read_out_finds_a_dynamics_that_ignores_the_action():
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=r"'position' .* action is zeroed or left out"):
        check_learns_known_world(latent(LatentWithoutAction), 50)


@pytest.mark.parametrize("obs", [VECTOR, IMAGE], ids=["vector", "image"])
@pytest.mark.parametrize("action", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
def test_a_right_model_learns_it(obs, action):
    torch.manual_seed(0)
    check_learns_known_world(Twin(TinyModel, obs, action), UPDATES)


def test_without_actions_the_line_world_moves_by_itself():
    batch = line_world(VECTOR, {}, rows=16, length=30, seed=0)
    assert batch.action is None and batch.reward is None
    x, going_on = batch.obs["state"][..., 0], ~batch.is_first[:, 1:]
    assert torch.allclose((0.85 - 1.5 * x[:, :-1].abs())[going_on], x[:, 1:][going_on])
    assert bool(batch.is_terminal.any()) and int(batch.is_first[:, 1:].sum()) > 10


def test_the_line_world_keeps_the_time_convention():
    batch = line_world(VECTOR, CONTINUOUS, rows=64, length=40, seed=0)
    batch.validate()
    assert int(batch.is_terminal.sum()) > 50 and bool(batch.is_first[:, 0].all())
    x, move = batch.obs["state"].unbind(-1)
    going_on = ~batch.is_first[:, 1:]
    pushed = (x[:, :-1] + REACH * batch.action[:, :-1, 0]).clamp(-1, 1)
    assert torch.allclose(pushed[going_on], x[:, 1:][going_on])
    assert torch.allclose(batch.reward[:, 1:][going_on], (x[:, 1:] - x[:, :-1])[going_on])
    assert torch.equal(move, batch.reward)
    assert torch.equal(batch.is_terminal & ~batch.is_first, (x > 0.7) & ~batch.is_first)
    again = line_world(VECTOR, CONTINUOUS, rows=64, length=40, seed=0)
    assert torch.equal(again.reward, batch.reward)


class Strided(PlanningAgent):
    stride = 3


def strided(model, action=CONTINUOUS):
    made = type("Blocks", (model,), {"stride": 3})(TinyConfig(width=24), VECTOR, action)
    return Strided(made, PlanningAgentConfig(lr=1e-2))


@pytest.mark.parametrize("action", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
def test_a_right_model_learns_it_under_a_stride(action):
    torch.manual_seed(0)
    check_learns_known_world(strided(TinyModel, action), 2 * UPDATES)


class LastOfBlock(TinyModel):
    """It takes the last action of a block for the whole of it."""

    def condition(self, action, conditions=None):
        return super().condition(action[:, -1:].expand_as(action), conditions)


def test_a_model_that_takes_one_action_of_a_block_for_all_does_not_learn_it():
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match="the known world is not learnt"):
        check_learns_known_world(strided(LastOfBlock), UPDATES)


def test_under_a_stride_the_point_moves_by_its_blocks():
    batch = line_world(VECTOR, DISCRETE, rows=64, length=20, seed=0, stride=4)
    batch.validate()
    assert batch.action.shape == (64, 20, 4) and not batch.action[batch.is_last].any()
    x, going_on = batch.obs["state"][..., 0], ~batch.is_first[:, 1:]
    moved = (batch.action[:, :-1] - 1.0).sum(-1) * REACH / 2
    assert torch.allclose((x[:, :-1] + moved).clamp(-1, 1)[going_on], x[:, 1:][going_on])
