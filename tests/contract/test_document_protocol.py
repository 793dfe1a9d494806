"""Documents 002 and 003 (protocol and types): their statements on the families they name."""

from __future__ import annotations

import asyncio
import inspect

import pytest
import torch

from worldflux import (
    ActionPayload,
    Capability,
    ConditionPayload,
    WorldModel,
    WorldModelInput,
    create_world_model,
    from_pretrained,
)
from worldflux.core.output import LossOutput, ModelOutput
from worldflux.core.state import State
from worldflux.core.trajectory import Trajectory
from worldflux.errors import CapabilityError
from worldflux.testing.batches import random_batch

SMALL = {"dreamerv3": "dreamerv3:size1m", "tdmpc2": "tdmpc2:1m"}


@pytest.fixture(scope="module")
def dreamer():
    """The documents' example, at the smallest preset."""
    return create_world_model(SMALL["dreamerv3"], obs_shape=(3, 64, 64), action_dim=6)


@pytest.fixture(scope="module")
def tdmpc2():
    return create_world_model(SMALL["tdmpc2"], obs_shape=(5,), action_dim=2)


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)


def test_the_example_of_the_page_as_printed(dreamer, pixels):
    model, obs, action = dreamer, pixels, torch.zeros(2, 6)
    state = model.encode(obs)
    next_state = model.transition(state, action)
    output = model.decode(next_state)
    assert isinstance(output, ModelOutput)
    obs_pred = output.predictions["obs"]
    reward_pred = output.predictions.get("reward")
    assert obs_pred.shape == (2, 3, 64, 64) and reward_pred.shape == (2,)
    assert output.state is next_state


def test_dreamerv3_names_its_tensors(dreamer, pixels):
    encoded = dreamer.encode(pixels)
    assert {"deter", "stoch", "posterior_logits"} <= set(encoded.tensors)
    imagined = dreamer.transition(encoded, torch.zeros(2, 6))
    assert "prior_logits" in imagined and "posterior_logits" not in imagined
    updated = dreamer.update(encoded, torch.zeros(2, 6), pixels)
    assert {"prior_logits", "posterior_logits"} <= set(updated.tensors)
    features = torch.cat([updated.tensors["deter"], updated.tensors["stoch"].flatten(1)], dim=-1)
    assert features.shape[0] == 2


def test_tdmpc2_names_its_tensor(tdmpc2):
    state = tdmpc2.encode(torch.zeros(2, 5))
    assert state.tensors["latent"].shape[0] == 2
    state.meta["latent_type"] = "simnorm"


@pytest.mark.parametrize("form", ["tensor", "dict", "input"])
def test_encode_takes_every_documented_form(dreamer, pixels, form):
    obs = {
        "tensor": pixels,
        "dict": {"image": pixels},
        "input": WorldModelInput(observations={"image": pixels}),
    }[form]
    expected = dreamer.encode(pixels, deterministic=True)
    assert torch.equal(dreamer.encode(obs, deterministic=True)["deter"], expected["deter"])


def test_deterministic_encoding_repeats_itself(dreamer, pixels):
    first, second = (dreamer.encode(pixels, deterministic=True) for _ in range(2))
    assert torch.equal(first["stoch"], second["stoch"])


@pytest.mark.parametrize("form", ["tensor", "payload", "list"])
def test_rollout_takes_every_documented_form(dreamer, pixels, form):
    start, actions = dreamer.encode(pixels, deterministic=True), torch.rand(3, 2, 6)
    given = {
        "tensor": actions,
        "payload": ActionPayload(kind="continuous", tensor=actions),
        "list": [ActionPayload(kind="continuous", tensor=step) for step in actions],
    }[form]
    path = dreamer.rollout(start, given, deterministic=True)
    assert isinstance(path, Trajectory) and path.horizon == 3 and path.batch_size == 2
    assert path.rewards.shape == (3, 2) and path.continues.shape == (3, 2)
    assert len(path.states) == path.actions.shape[0] + 1
    assert path.to_tensor("deter").shape[:2] == (4, 2)
    assert path.detach().to(torch.device("cpu")).horizon == 3
    expected = dreamer.rollout(start, actions, deterministic=True)
    assert torch.equal(path.to_tensor("deter"), expected.to_tensor("deter"))


def test_rollout_has_one_mode(dreamer, pixels):
    with pytest.raises(ValueError, match="autoregressive"):
        dreamer.rollout(dreamer.encode(pixels), torch.zeros(3, 2, 6), mode="parallel")


@pytest.mark.parametrize("family", ["dreamerv3", "tdmpc2"])
def test_the_loss_example(family, request):
    model = request.getfixturevalue("dreamer" if family == "dreamerv3" else family)
    batch = random_batch(model.obs_spec, model.action_spec, 2, 6)
    loss_out = model.loss(batch)
    assert isinstance(loss_out, LossOutput)
    loss_out.loss.backward()
    assert loss_out.components
    for name, value in loss_out.components.items():
        assert f"{name}: {value.item():.4f}"
    assert dict(loss_out.items()) == loss_out.components
    model.zero_grad()


def test_capabilities(dreamer, tdmpc2):
    assert dreamer.supports(Capability.OBS_DECODE) and not tdmpc2.supports(Capability.OBS_DECODE)
    assert dreamer.supports_reward and dreamer.supports_continue and dreamer.supports_planning
    with pytest.raises(CapabilityError):
        tdmpc2.require(Capability.OBS_DECODE)


def test_hooks_that_delegate(dreamer, pixels):
    state, action = dreamer.encode(pixels, deterministic=True), torch.zeros(2, 6)
    planned = dreamer.plan_step(state, action, deterministic=True)
    stepped = dreamer.transition(state, action, deterministic=True)
    assert torch.equal(planned["deter"], stepped["deter"])
    assert set(dreamer.sample_step(state).predictions) == set(dreamer.decode(state).predictions)
    assert dreamer.sample_step(state, action).state["deter"].shape == state["deter"].shape
    forced = dreamer.teacher_forcing_step(state, action, pixels)
    assert torch.equal(forced["deter"], dreamer.update(state, action, pixels)["deter"])


def test_asynchronous_variants(dreamer, pixels):
    async def run():
        state = await dreamer.async_encode(pixels, deterministic=True)
        after = await dreamer.async_transition(state, torch.zeros(2, 6), deterministic=True)
        output = await dreamer.async_decode(after)
        path = await dreamer.async_rollout(after, torch.zeros(2, 2, 6))
        return output, path

    output, path = asyncio.run(run())
    assert "obs" in output.predictions and path.horizon == 2


def test_io_contract(dreamer, pixels):
    contract = dreamer.io_contract()
    assert "image" in contract.obs
    assert dreamer.contract_fingerprint() == dreamer.contract_fingerprint()
    dreamer.validate_batch_contract(random_batch(dreamer.obs_spec, dreamer.action_spec, 2, 4))
    dreamer.validate_state_contract(dreamer.encode(pixels))
    with pytest.raises(ValueError, match="deter"):
        dreamer.validate_state_contract(State({"deter": torch.zeros(2, 3)}))


def test_save_pretrained(tdmpc2, tmp_path):
    tdmpc2.save_pretrained(tmp_path / "model")
    again = from_pretrained(tmp_path / "model")
    obs = torch.zeros(2, 5)
    assert torch.equal(again.encode(obs)["latent"], tdmpc2.encode(obs)["latent"])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("encode", ["obs", "deterministic"]),
        ("transition", ["state", "action", "conditions", "deterministic"]),
        ("update", ["state", "action", "obs", "conditions"]),
        ("decode", ["state", "conditions"]),
        ("plan_step", ["state", "action", "conditions", "deterministic"]),
        ("sample_step", ["state", "action", "conditions", "deterministic"]),
        ("teacher_forcing_step", ["state", "action", "obs", "conditions"]),
        ("rollout", ["initial_state", "action_sequence", "conditions", "deterministic", "mode"]),
        ("async_encode", ["obs", "deterministic"]),
        ("async_decode", ["state", "conditions"]),
        ("loss", ["batch"]),
        ("supports", ["capability"]),
        ("require", ["capability", "message"]),
    ],
)
def test_signatures_begin_as_documented(name, parameters):
    found = list(inspect.signature(getattr(WorldModel, name)).parameters)[1:]
    assert found[: len(parameters)] == parameters


def test_action_payloads_of_the_page():
    examples = [
        ActionPayload(kind="continuous", tensor=torch.randn(6)),
        ActionPayload(kind="discrete", tensor=torch.tensor([3])),
        ActionPayload(kind="token", tokens=torch.tensor([42, 7, 13])),
    ]
    for payload in examples:
        payload.validate()
        payload.validate(api_version="v3")
        assert payload.primary() is not None
    with pytest.raises(ValueError, match="only one primary representation"):
        ActionPayload("token", tensor=torch.zeros(1), tokens=torch.zeros(1)).validate()
    with pytest.raises(ValueError, match="none"):
        ActionPayload(kind="none", tensor=torch.zeros(1)).validate()


def test_condition_payloads_of_the_page():
    payload = ConditionPayload(extras={"wf.weather.wind": torch.zeros(2, 1)})
    payload.validate(strict=True, allowed_extra_keys={"wf.weather.wind"})
    with pytest.raises(ValueError, match="namespaced format"):
        ConditionPayload(extras={"wind": 1}).validate(strict=True)
    assert ConditionPayload().extras == {} and ConditionPayload().goal is None
