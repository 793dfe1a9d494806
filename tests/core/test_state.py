"""State as a container: access, copies, validation."""

from __future__ import annotations

import copy

import pytest
import torch

from worldflux.core.state import State
from worldflux.errors import StateError, WorldFluxError


def latent(B: int = 3) -> State:
    return State({"deter": torch.ones(B, 4), "stoch": torch.zeros(B, 2, 5)}, {"kind": {"n": 1}})


def test_access_by_name():
    state = latent()
    assert state["deter"] is state.tensors["deter"]
    assert state.get("stoch") is state.tensors["stoch"]
    assert state.get("missing") is None
    fallback = torch.zeros(1)
    assert state.get("missing", default=fallback) is fallback
    assert "deter" in state and "missing" not in state


def test_a_misspelt_name_gets_the_nearest_one():
    with pytest.raises(KeyError, match=r"no tensor 'detr'.*Did you mean 'deter'.*deter, stoch"):
        latent()["detr"]


def test_batch_size_and_device_are_the_first_tensors():
    state = State({"a": torch.zeros(7, 2), "b": torch.zeros(2, device="meta")})
    assert state.batch_size == 7
    assert state.device == torch.device("cpu")


def test_two_states_share_no_defaults():
    first, second = State(), State()
    first.tensors["a"], first.meta["b"] = torch.zeros(1), 1
    assert not second.tensors and not second.meta


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_to_moves_a_copy(device: str | torch.device):
    state = latent()
    moved = state.to(device)
    assert {t.device.type for t in moved.tensors.values()} == {"meta"}
    assert state.device.type == "cpu"
    moved.meta["new"] = 1
    assert "new" not in state.meta and moved.meta["kind"] is state.meta["kind"]


def test_detach_cuts_the_graph_and_shares_memory():
    state = State({"a": torch.ones(2, 1, requires_grad=True)})
    cut = state.detach()
    assert state["a"].requires_grad and not cut["a"].requires_grad
    assert cut["a"].data_ptr() == state["a"].data_ptr()


def test_clone_is_independent_down_to_meta():
    state = latent()
    twin = state.clone()
    twin["deter"].zero_()
    twin.meta["kind"]["n"] = 2
    assert state["deter"].all() and state.meta["kind"]["n"] == 1


def test_map_applies_to_every_tensor():
    assert latent(2).map(lambda t: t.repeat_interleave(3, 0)).batch_size == 6


def test_validate_accepts_one_batch_dimension():
    latent().validate()


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, "batch size mismatch: {'a': 2, 'b': 3}"),
        ({"a": torch.zeros(2), "b": torch.zeros(())}, "tensor 'b' is 0-d"),
        ({"a": torch.zeros(2), "b": [1, 2]}, "'b' is a list, not a tensor"),
        ({}, "State is empty"),
    ],
)
def test_validate_says_what_is_wrong(tensors: dict, text: str):
    with pytest.raises(StateError, match=text):
        State(tensors).validate()


@pytest.mark.parametrize("name", ["batch_size", "device"])
def test_an_empty_state_has_neither(name: str):
    with pytest.raises(StateError, match="State is empty"):
        getattr(State(), name)


def test_a_0d_tensor_has_no_batch_size():
    with pytest.raises(StateError, match="tensor 'a' is 0-d"):
        _ = State({"a": torch.tensor(1.0)}).batch_size


def test_state_error_is_ours_and_a_value_error():
    assert issubclass(StateError, WorldFluxError) and issubclass(StateError, ValueError)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"version": "v2"}, "unknown version 'v2'. Versions: v1"),
        ({"format": "json"}, "unknown format 'json'. Formats: binary"),
    ],
)
def test_serialize_knows_one_form(arguments: dict, text: str):
    with pytest.raises(StateError, match=text):
        latent().serialize(**arguments)


def test_serialize_takes_positional_and_keyword_arguments():
    state = latent()
    data = state.serialize("v1", "binary")
    assert data == state.serialize(version="v1", format="binary") == state.serialize()
    assert list(State.deserialize(data=data).tensors) == ["deter", "stoch"]


def test_copy_module_makes_a_plain_state():
    state = latent()
    assert copy.copy(state).tensors is state.tensors
    assert copy.deepcopy(state)["deter"] is not state["deter"]
