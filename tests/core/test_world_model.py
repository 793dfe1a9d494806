"""The base class: operations without slots, payload forms, contracts, async twins, slots."""

from __future__ import annotations

import asyncio

import pytest
import torch

from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput
from worldflux.core.payloads import ActionPayload, ActionSequence, ConditionPayload, WorldModelInput
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import CapabilityError, ContractError
from worldflux.specs import Capability, TensorSpec
from worldflux.testing import random_batch
from worldflux.testing.dummies import TinyConfig, TinyEncoder, TinyModel
from worldflux.testing.family import SPACES

OBS, ACTION = SPACES[0][1:]


class Bare(WorldModel):
    def loss(self, batch):
        return LossOutput(torch.zeros(()), {"nothing": torch.zeros(())})


class Stateless(Bare):
    capabilities = frozenset({Capability.STATELESS})


@pytest.fixture
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield TinyModel(TinyConfig(), OBS, ACTION)


def bare(cls=Bare):
    return cls(TinyConfig(), OBS, ACTION)


def test_empty_slots_say_so():
    state, action = State({"x": torch.zeros(2, 3)}), torch.zeros(2, 2)
    with pytest.raises(NotImplementedError, match="Bare has no observation_encoder: encode needs"):
        bare().encode(torch.zeros(2, 5))
    with pytest.raises(NotImplementedError, match="Bare has no dynamics_model: transition needs"):
        bare().transition(state, action)
    with pytest.raises(CapabilityError, match="Bare has no decoder_module: it cannot decode"):
        bare().decode(state)
    with pytest.raises(NotImplementedError, match="Bare does not define update"):
        bare().update(state, action, torch.zeros(2, 5))
    assert list(bare().loss(random_batch(OBS, ACTION)).items()) == [("nothing", torch.zeros(()))]


def test_a_stateless_model_updates_by_encoding():
    model = bare(Stateless)
    model.observation_encoder = TinyEncoder(OBS, 4)
    obs = torch.ones(2, 5)
    updated = model.update(State({"embed": torch.zeros(2, 4)}), torch.zeros(2, 2), obs)
    assert torch.equal(updated["embed"], model.encode(obs)["embed"])


def test_rollout_takes_every_form_of_actions(model):
    start, actions = model.encode({"state": torch.ones(2, 5)}, True), torch.rand(3, 2, 2)
    expected = model.rollout(start, actions, deterministic=True)
    forms = [
        ActionSequence.of(actions),
        ActionPayload("continuous", tensor=actions),
        [ActionPayload("continuous", tensor=step) for step in actions],
        lambda state, t: actions[t],
    ]
    for form in forms:
        options = {"horizon": 3} if callable(form) else {}
        found = model.rollout(start, form, deterministic=True, **options)
        assert torch.equal(found.to_tensor("deter"), expected.to_tensor("deter"))
        assert torch.equal(found.actions, actions)
    assert expected.rewards.shape == (3, 2) and expected.observations is None
    seen = model.rollout(start, actions, deterministic=True, decode=True).observations
    assert seen["state"].shape == (4, 2, 5)


def test_rollout_refuses_what_it_cannot_do(model):
    start = model.encode(torch.ones(2, 5))
    with pytest.raises(ValueError, match="Unknown rollout mode 'parallel'"):
        model.rollout(start, torch.zeros(1, 2, 2), mode="parallel")
    with pytest.raises(ContractError, match="needs `horizon`"):
        model.rollout(start, lambda state, t: torch.zeros(2, 2))
    with pytest.raises(ContractError, match="TinyModel needs an action, got None"):
        model.rollout(start, None, horizon=2)


def test_rollout_without_a_decoder_predicts_nothing(model):
    model.decoder_module = None
    found = model.rollout(model.encode(torch.ones(2, 5)), torch.zeros(2, 2, 2))
    assert found.rewards is None and found.continues is None


def test_rollout_draws_reach_their_step(model):
    start, actions = model.encode(torch.ones(2, 5), True), torch.rand(3, 2, 2)
    draws = {"stoch": torch.randn(3, 2, 16)}  # (H, B, ...)
    first = model.rollout(start, actions, rand=Rand(draws=draws)).to_tensor("stoch")
    again = model.rollout(start, actions, rand=Rand(draws=draws)).to_tensor("stoch")
    assert torch.equal(first, again)
    later = {"stoch": draws["stoch"].clone()}
    later["stoch"][2] += 1
    second = model.rollout(start, actions, rand=Rand(draws=later)).to_tensor("stoch")
    assert torch.equal(first[:3], second[:3]) and not torch.equal(first[3], second[3])


def test_observation_forms(model):
    tensor = torch.rand(2, 5)
    forms = [tensor, {"state": tensor}, WorldModelInput(observations={"state": tensor})]
    states = [model.encode(form, deterministic=True)["deter"] for form in forms]
    assert all(torch.equal(state, states[0]) for state in states)
    both = TinyModel(TinyConfig(), {**OBS, "extra": TensorSpec((1,))}, ACTION)
    with pytest.raises(ContractError, match="ambiguous: pass a dict of state, extra"):
        both.encode(tensor)


def test_payloads_are_validated_strictly(model):
    state = model.encode(torch.ones(1, 5))
    with pytest.raises(ValueError, match="needs 'tensor', got nothing"):
        model.transition(state, ActionPayload("continuous"))
    with pytest.raises(ValueError, match="namespaced format"):
        model.transition(state, torch.zeros(1, 2), ConditionPayload(extras={"speed": 1}))


def test_capabilities(model):
    assert model.supports_reward and model.supports_continue and model.supports_planning
    with pytest.raises(CapabilityError, match="TinyModel does not support value_pred. It supports"):
        model.require(Capability.VALUE_PRED)
    with pytest.raises(CapabilityError, match="no values here"):
        model.require(Capability.VALUE_PRED, "no values here")


def test_batch_and_state_contracts(model):
    batch = random_batch(OBS, ACTION)
    model.validate_batch_contract(batch)
    batch.obs["state"] = batch.obs["state"][..., :3]
    with pytest.raises(ContractError, match=r"\(2, 6, 3\), expected \(B, T, D\) = \(B, T, 5\)"):
        model.validate_batch_contract(batch)
    batch.obs = {}
    with pytest.raises(ContractError, match="Batch obs lacks 'state'. It has: nothing"):
        model.validate_batch_contract(batch)
    with pytest.raises(ContractError, match="State lacks 'stoch'. It has: deter"):
        model.validate_state_contract(State({"deter": torch.zeros(2, 16)}))


def test_the_fingerprint_tells_contracts_apart(model):
    assert (
        model.contract_fingerprint() == TinyModel(TinyConfig(), OBS, ACTION).contract_fingerprint()
    )
    other = TinyModel(TinyConfig(width=8), OBS, ACTION)
    assert model.contract_fingerprint() != other.contract_fingerprint()


def test_sample_and_teacher_forcing_steps(model):
    state = model.encode(torch.ones(2, 5), deterministic=True)
    assert model.sample_step(state).predictions["state"].shape == (2, 5)
    stepped = model.sample_step(state, torch.zeros(2, 2), deterministic=True)
    expected = model.transition(state, torch.zeros(2, 2), deterministic=True)
    assert torch.equal(stepped.state["deter"], expected["deter"])
    forced = model.teacher_forcing_step(state, torch.zeros(2, 2), torch.ones(2, 5))
    assert forced["deter"].shape == (2, 16)


def test_a_cancelled_async_call_leaves_the_model_usable(model):
    async def scenario():
        start = await model.async_encode(torch.ones(2, 5), True)
        task = asyncio.create_task(model.async_rollout(start, torch.zeros(50, 2, 2)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        after = await model.async_transition(start, torch.zeros(2, 2), deterministic=True)
        decoded = await model.async_decode(after)
        return start, after, decoded

    start, after, decoded = asyncio.run(scenario())
    expected = model.transition(start, torch.zeros(2, 2), deterministic=True)
    assert torch.equal(after["deter"], expected["deter"])
    assert decoded.predictions["reward"].shape == (2,)
