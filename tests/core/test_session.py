"""A session: seeded starts, lazy frames, resets by row, and back onto reality."""

from __future__ import annotations

import pytest
import torch

import worldflux
from worldflux.core.output import ModelOutput
from worldflux.core.payloads import ActionPayload
from worldflux.core.state import State
from worldflux.errors import CapabilityError, ContractError
from worldflux.session import Session
from worldflux.specs import TensorSpec
from worldflux.testing.batches import random_batch
from worldflux.testing.dummies import TinyConfig, TinyModel

OBS = {"state": TensorSpec((5,)), "image": TensorSpec((3, 8, 8), "uint8")}
ACTION = {"action": TensorSpec((2,), low=-1.0, high=1.0)}


def tiny(cls=TinyModel, obs=OBS):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cls(TinyConfig(), obs, ACTION)


class Counting(TinyModel):
    """Counts what it decodes."""

    def decode(self, state, conditions=None, *, keys=None, rand=None):
        self.decoded = [*getattr(self, "decoded", []), tuple(keys)]
        return super().decode(state, conditions, keys=keys)


def a_state(rows=3):
    numbers = torch.arange(float(rows))[:, None]
    zeros = torch.zeros(rows, 15)
    latent = torch.cat([numbers, zeros], 1)
    return State({"deter": latent, "stoch": latent.clone(), "mean": latent.clone()}, {"kept": 1})


def test_the_public_name_is_at_the_top():
    assert worldflux.Session is Session


def test_a_step_decodes_only_what_is_read_and_once():
    session = Session(tiny(Counting), a_state(), rows=3)
    frame = session.step(torch.zeros(3, 2))
    assert not hasattr(session.model, "decoded")
    assert frame.reward.shape == (3,) and frame.ended.dtype == torch.bool
    assert frame.continues.shape == (3,) and 0 <= float(frame.continues.min()) <= 1
    assert session.model.decoded == [("reward", "continue")]
    assert frame.image.shape == (3, 3, 8, 8) and frame.image.dtype == torch.uint8
    assert frame.obs["state"].shape == (3, 5) and torch.equal(frame.ended, frame.ended)
    assert len(session.model.decoded) == 2


def test_the_same_seed_gives_the_same_session_whatever_is_read():
    def run(seed, reads):
        session = Session(tiny(), a_state(8), rows=4, seed=seed)
        for _ in range(3):
            frame = session.step(torch.ones(4, 2))
            if reads:
                frame.uncertainty(samples=3), frame.ended, frame.image
        return session.state["stoch"]

    assert torch.equal(run(1, reads=False), run(1, reads=True))
    assert not torch.equal(run(1, reads=False), run(2, reads=False))


def test_what_is_read_of_a_frame_does_not_depend_on_what_was_read_before():
    first, second = (Session(tiny(), a_state(64), rows=64).step(torch.ones(64, 2)) for _ in "ab")
    spread = second.uncertainty()
    assert torch.equal(first.ended, second.ended) and 0 < int(first.ended.sum()) < 64
    assert torch.equal(first.uncertainty(), spread) and torch.equal(second.uncertainty(), spread)


def test_starts_are_taken_in_turn_and_only_where_asked():
    session = Session(tiny(), a_state(3), rows=2, seed=4)
    seen = session.state["deter"][:, 0].tolist()
    session.reset(torch.tensor([False, True]))
    assert session.state["deter"][0, 0] == seen[0]
    third = session.state["deter"][1, 0].item()
    assert sorted([*seen, third]) == [0, 1, 2]
    session.reset()  # and round again
    assert session.state["deter"][:, 0].tolist() == seen
    session.step(torch.zeros(2, 2))
    before = session.state["deter"].clone()
    session.reset(torch.zeros(2, dtype=torch.bool))
    assert torch.equal(session.state["deter"], before)


def test_a_sequence_is_observed_to_its_last_step():
    model = tiny()
    batch = random_batch(model.obs_spec, model.action_spec, 1, 4, boundary=False)
    session = Session(model, batch, seed=7)
    again = Session(model, batch, seed=7)
    assert torch.equal(session.state["deter"], again.state["deter"])
    one = batch.map(lambda tensor: tensor[:, :1])
    assert not torch.allclose(Session(model, one, seed=7).state["deter"], session.state["deter"])


class Prior(TinyModel):
    """Its steps add a tensor that its first States lack."""

    def transition(self, state, action, *args, **options):
        after = super().transition(state, action, *args, **options)
        return after.with_({"prior_mean": after["mean"]})


def test_rows_begin_anew_where_a_step_adds_tensors_to_the_state():
    session = Session(tiny(Prior), a_state(), rows=2)
    before = session.step(torch.ones(2, 2)).state
    assert "prior_mean" in before
    session.reset(torch.tensor([False, True]))
    assert torch.equal(session.state["deter"][0], before["deter"][0])
    assert not torch.equal(session.state["deter"][1], before["deter"][1])
    assert session.step(torch.ones(2, 2)).state.batch_size == 2


def test_observing_puts_it_back_onto_reality():
    model = tiny()
    session = Session(model, a_state(2), rows=2)
    obs = {"state": torch.ones(2, 5), "image": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}
    expected = model.update(session.state, torch.ones(2, 2), obs, deterministic=True)
    frame = session.observe(obs, torch.ones(2, 2))
    assert torch.allclose(session.state["mean"], expected["mean"])
    assert frame.reward is None and frame.ended is None
    assert float(frame.uncertainty().sum()) == 0


def test_uncertainty_is_the_spread_of_sampled_rewards_or_the_models_own():
    frame = Session(tiny(), a_state(), rows=3).step(torch.zeros(3, 2))
    assert bool((frame.uncertainty(samples=8) > 0).all())

    session = Session(tiny(), a_state(), rows=3)
    told = session.step(ActionPayload("continuous", tensor=torch.zeros(3, 2)))
    assert torch.equal(told.uncertainty(samples=8), frame.uncertainty(samples=8))

    class Sure(TinyModel):
        def decode(self, state, conditions=None, *, keys=None, rand=None):
            return ModelOutput({}, uncertainty=torch.full((state.batch_size,), 0.25))

    frame = Session(tiny(Sure), a_state(), rows=3).step(torch.zeros(3, 2))
    assert frame.uncertainty().tolist() == [0.25] * 3 and frame.reward is None


def test_uncertainty_of_a_step_by_a_payload_is_of_the_same_action():
    def spread(action):
        return Session(tiny(), a_state(), rows=3, seed=1).step(action).uncertainty(samples=8)

    action = torch.ones(3, 2)
    assert torch.equal(spread(ActionPayload("continuous", tensor=action)), spread(action))


def test_what_a_model_sampled_itself_is_what_ended():
    class Samples(TinyModel):
        def decode(self, state, conditions=None, *, keys=None, rand=None):
            output = super().decode(state, conditions, keys=keys)
            output.aux["ended"] = torch.tensor([True, False, True])
            return output

    frame = Session(tiny(Samples), a_state(), rows=3).step(torch.zeros(3, 2))
    assert frame.ended.tolist() == [True, False, True]


def test_what_cannot_be_is_refused():
    with pytest.raises(ContractError, match="at least one row, got rows=0"):
        Session(tiny(), a_state(), rows=0)
    plain = Session(tiny(obs={"state": TensorSpec((5,))}), a_state(), rows=3)
    with pytest.raises(CapabilityError, match="imagines no image"):
        plain.step(torch.zeros(3, 2)).image  # noqa: B018
