"""Payloads: a kind and its data agree, extras are named, warnings become errors in v3."""

from __future__ import annotations

import pytest
import torch

from worldflux.core.actions import action_vector, time_major_actions
from worldflux.core.payloads import ActionPayload, ActionSequence, ConditionPayload
from worldflux.errors import ContractError
from worldflux.specs import TensorSpec

X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (ActionPayload("token", tensor=X), "kind 'token' needs 'tokens', got tensor"),
        (ActionPayload("latent"), "kind 'latent' needs 'latent', got nothing"),
        (ActionPayload("discret", tensor=X), "Unknown action kind 'discret'. Did you mean"),
    ],
)
def test_inconsistent_actions_warn_then_raise(payload, text):
    with pytest.warns(DeprecationWarning, match=text):
        payload.validate()
    with pytest.raises(ValueError, match=text):
        payload.validate(api_version="v3")


@pytest.mark.parametrize("version", ["v0.2", "v3"])
@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (
            ActionPayload("continuous", tensor=X, latent=X),
            "sets tensor and latent, but only one primary representation is allowed: keep 'tensor'",
        ),
        (
            ActionPayload("none", tokens=X, text=["go"]),
            "sets tokens and text, but only one primary representation",
        ),
        (ActionPayload("walk", tensor=X, text=["go"]), "only one primary representation"),
        (ActionPayload("none", tensor=X), "kind 'none' carries data in 'tensor': name the kind"),
    ],
)
def test_contradicting_actions_raise_in_every_version(payload, text, version):
    with pytest.raises(ContractError, match=text):
        payload.validate(api_version=version)


@pytest.mark.parametrize(
    "payload",
    [
        ActionPayload(),
        ActionPayload("continuous", tensor=X),
        ActionPayload("discrete", tensor=torch.tensor([3])),
        ActionPayload("token", tokens=torch.tensor([1])),
        ActionPayload("latent", latent=X),
        ActionPayload("text", text=["go"]),
    ],
)
def test_good_actions_pass(payload):
    payload.validate(api_version="v3")


def test_unknown_api_version():
    for payload in (ActionPayload(), ConditionPayload()):
        with pytest.raises(ValueError, match=r"Unknown api_version 'v9'. Known: v0.2, v3"):
            payload.validate(api_version="v9")


def test_primary_follows_the_documented_order():
    assert ActionPayload(tensor=X, latent=X + 1).primary() is X
    assert ActionPayload("text", text=["go"]).primary() is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "'speed' does not follow the namespaced format 'wf.<domain>.<name>'"),
        ({"allowed_extra_keys": ["wf.a.c"]}, "'wf.a.b' is not allowed. Did you mean 'wf.a.c'"),
        ({"extra_schema": {"wf.a.b": str}}, "'wf.a.b' is a int, expected str"),
    ],
)
def test_condition_extras(options, text):
    extras = {"wf.a.b": 1} if options else {"speed": 1}
    payload = ConditionPayload(extras=extras)
    with pytest.warns(DeprecationWarning, match=text):
        payload.validate(**options)
    with pytest.raises(ContractError, match=text):
        payload.validate(strict=True, **options)
    with pytest.raises(ContractError, match=text):
        payload.validate(api_version="v3", **options)


def test_sequences_of_every_form_are_one_tensor():
    actions = torch.arange(6.0).reshape(3, 2, 1)
    payloads = [ActionPayload("continuous", tensor=step) for step in actions]
    forms = [actions, ActionSequence.of(actions), ActionPayload("continuous", tensor=actions)]
    for form in [*forms, payloads]:
        assert torch.equal(time_major_actions(form), actions)
    assert len(ActionSequence.of(actions)) == 3
    assert ActionSequence.of(torch.tensor([[1]])).payload.kind == "discrete"
    with pytest.raises(ContractError, match="An empty list of actions"):
        time_major_actions([])
    with pytest.raises(ContractError, match="a payload without data"):
        time_major_actions([ActionPayload()])
    with pytest.raises(ContractError, match="takes no text actions"):
        time_major_actions(ActionPayload("text", text=["go"]))
    with pytest.raises(ContractError, match="of kind 'none' holds no tensor: set tensor"):
        len(ActionSequence(ActionPayload()))
    assert ActionPayload("token", tokens=X).require() is X


def test_action_vectors():
    discrete = TensorSpec((), "int64", n=3)
    assert action_vector(torch.tensor([2]), discrete).tolist() == [[0, 0, 1]]
    one_hot = torch.tensor([[0.0, 1.0, 0.0]])
    assert action_vector(one_hot, discrete) is one_hot
    multi = TensorSpec((2,), "int64", n=(2, 3))
    assert action_vector(torch.tensor([[1, 0]]), multi).tolist() == [[0, 1, 1, 0, 0]]
    grid = TensorSpec((2, 2))
    assert action_vector(torch.zeros(5, 2, 2), grid).shape == (5, 4)
    with pytest.raises(ContractError, match=r"One-hot action has shape \(1, 2\), expected 3"):
        action_vector(torch.zeros(1, 2), discrete)
    with pytest.raises(ContractError, match=r"Action has shape \(1, 3\), expected it to end in"):
        action_vector(torch.zeros(1, 3), TensorSpec((2,)))
