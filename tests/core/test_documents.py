"""Documents 000 to 003 (State, protocol and types): their statements and examples, one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import worldflux
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput
from worldflux.core.payloads import ActionPayload, ConditionPayload, WorldModelInput
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import CapabilityError, ContractError, StateError
from worldflux.specs import TensorSpec
from worldflux.testing.dummies import TinyConfig, TinyDecoder, TinyModel


def test_a_payload_of_another_magic_is_named_so():
    data = State({"latent": torch.zeros(2, 3)}).serialize(version="v1", format="binary")
    with pytest.raises(StateError, match=r"magic is b'NOPE', not b'WFST'"):
        State.deserialize(b"NOPE" + data[4:])


@pytest.mark.parametrize(
    "name",
    ["ActionSequence", "StateError", "CapabilityError", "Phase", "TrainingPlan", "UpdateResult"],
)
def test_the_documents_types_stand_at_the_top(name):
    assert isinstance(getattr(worldflux, name), type)


class OnlyLoss(WorldModel):
    def loss(self, batch):
        return LossOutput(torch.zeros(()))


def test_a_model_with_nothing_but_loss():
    model, state = OnlyLoss(), State({"x": torch.zeros(2, 3)})
    contract = model.io_contract()
    assert not contract.obs and not contract.action and not contract.predictions.tensors
    with pytest.raises(NotImplementedError, match="no observation_encoder"):
        model.encode(torch.zeros(2, 3))
    with pytest.raises(NotImplementedError, match="no dynamics_model"):
        model.transition(state, torch.zeros(2, 1))
    with pytest.raises(CapabilityError, match="no decoder_module"):
        model.decode(state)


VECTOR, IMAGE = TensorSpec((5,)), TensorSpec((3, 8, 8), "uint8")
ACTION = {"action": TensorSpec((2,), low=-1.0, high=1.0)}


def tiny(**spaces):
    return TinyModel(TinyConfig(), spaces, ACTION)


@pytest.mark.parametrize(
    ("spaces", "source"),
    [
        ({"state": VECTOR}, "state"),
        ({"a": VECTOR, "b": VECTOR}, "a"),
        ({"a": VECTOR, "image": IMAGE}, "image"),
    ],
)
def test_obs_is_the_decoded_observation(spaces, source):
    model = tiny(**spaces)
    start = model.initial(2)
    found = model.decode(start).predictions
    assert found["obs"] is found[source]
    only = model.decode(start, keys=("obs",)).predictions
    assert set(only) == {"obs"} and torch.equal(only["obs"], found[source])
    assert set(model.decode(start, keys=(source,)).predictions) == {source}
    assert "obs" not in model.prediction_spec().tensors
    path = model.rollout(start, torch.zeros(3, 2, 2), decode=True)
    assert set(path.observations) == set(spaces)


class Goals(TinyDecoder):
    def forward(self, state, keys=None, conditions=None, *, rand=None):
        self.seen = (conditions, rand)
        return super().forward(state, keys)


def test_conditions_and_randomness_reach_the_decoder():
    model, goal = tiny(state=VECTOR), ConditionPayload(goal=torch.arange(2.0)[:, None])
    model.decoder_module = Goals({"state": VECTOR}, 16)
    rand = Rand.seeded(0)
    model.decode(model.initial(2), goal, rand=rand)
    assert model.decoder_module.seen == (goal, rand)
    model.sample_step(model.initial(2), torch.zeros(2, 2), goal, rand=rand)
    assert model.decoder_module.seen == (goal, rand)
    model.rollout(model.initial(2), torch.zeros(3, 2, 2), goal)
    assert model.decoder_module.seen[0].goal.flatten().tolist() == [0, 1] * 4
    with pytest.raises(ValueError, match="namespaced format"):
        model.decode(model.initial(2), ConditionPayload(extras={"speed": 1}))


@pytest.mark.parametrize(
    "part",
    [
        {"context": {"state": torch.zeros(2, 3, 5)}},
        {"action": ActionPayload("continuous", tensor=torch.zeros(2, 2))},
        {"conditions": ConditionPayload(goal=torch.zeros(2, 5))},
    ],
)
def test_parts_of_an_input_are_refused_not_ignored(part):
    whole = WorldModelInput(observations={"state": torch.zeros(2, 5)}, **part)
    with pytest.raises(ContractError, match=f"does not use WorldModelInput.{next(iter(part))}"):
        tiny(state=VECTOR).encode(whole)


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((3, 8, 8), r"\(3, 8, 8\), expected \(B, C, Y, X\) = \(B, 3, 8, 8\): add a batch axis"),
        ((2, 8, 8, 3), r"channels first, obs.permute\(0, 3, 1, 2\)"),
        ((8, 8, 3), r"obs.permute\(2, 0, 1\)\[None\]"),
        ((2, 3, 16, 16), "resize it to 8x8"),
        ((2, 4, 3, 8, 8), "time axis"),
    ],
)
def test_a_misshapen_image_says_what_to_do(shape, remedy):
    model, image = tiny(image=IMAGE), np.zeros(shape, np.uint8)
    with pytest.raises(ContractError, match=remedy):
        model.encode(image)
    with pytest.raises(ContractError, match=remedy):
        model.update(model.initial(2), torch.zeros(2, 2), image)


def test_arrays_are_observations_and_actions():
    model = tiny(state=VECTOR)
    state = model.encode(np.ones((2, 5)), deterministic=True)
    assert torch.equal(state["deter"], model.encode(torch.ones(2, 5), True)["deter"])
    assert len(model.rollout(state, np.zeros((3, 2, 2), np.float32))) == 3
    with pytest.raises(ContractError, match=r"pass actions.transpose\(0, 1\)"):
        model.rollout(state, torch.zeros(2, 3, 2))
    with pytest.raises(ContractError, match="observes 'state', but the observation has 'stat'"):
        model.encode({"stat": torch.zeros(2, 5)})
