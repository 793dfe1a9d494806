"""The known world's check, and every mistake it has to refuse with a sentence that names it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from worldflux.core.output import UpdateResult
from worldflux.testing.dummies import TinyAgent, TinyConfig, TinyModel
from worldflux.testing.known_world import check_learns_known_world
from worldflux.testing.line_world import CONTINUOUS, DISCRETE, IMAGE, REACH, VECTOR, line_world

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


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (RewardEarlier, "follows the reward of one step earlier: the reward is off by one"),
        (RewardLater, "Observations are learnt, the reward is not: it is off by one"),
        (RewardSign, "reward has the wrong sign in `loss`"),
        (ActionZeroed, "action is zeroed or left out in `loss`"),
        (ActionLater, "action is off by one in `loss`"),
        (ContinueFlipped, "continue target is flipped in `loss`"),
        (FutureSeen, "a later observation in the State that the loss trains on"),
    ],
)
def test_a_mistake_in_the_loss_is_named(model, sentence):
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=sentence):
        check_learns_known_world(Twin(model), UPDATES)


@pytest.mark.parametrize("obs", [VECTOR, IMAGE], ids=["vector", "image"])
@pytest.mark.parametrize("action", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
def test_a_right_model_learns_it(obs, action):
    torch.manual_seed(0)
    check_learns_known_world(Twin(TinyModel, obs, action), UPDATES)


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
