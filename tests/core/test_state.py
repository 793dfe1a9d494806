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


# Algebra


def sequence_state(t: int) -> State:
    """One step (2, 3) of a sequence, with a cache that says which step it belongs to."""
    rows = torch.arange(6.0).reshape(2, 3) + 10 * t
    return State({"rep": rows, "cache.keys": torch.full((2, 4), float(t))}, {"kind": "test"})


def test_stack_makes_a_time_axis_and_keeps_the_last_cache() -> None:
    joined = State.stack([sequence_state(t) for t in range(3)])
    assert joined["rep"].shape == (2, 3, 3)
    assert torch.equal(joined["cache.keys"], torch.full((2, 4), 2.0))
    assert joined.meta == {"kind": "test"}


def test_stack_keeps_the_keys_that_all_have() -> None:
    one = sequence_state(0).with_({"posterior_logits": torch.zeros(2, 1)})
    two = sequence_state(1).with_({"prior_logits": torch.zeros(2, 1)})
    assert set(State.stack([one, two]).tensors) == {"rep", "cache.keys"}


def test_joining_nothing_is_an_error() -> None:
    with pytest.raises(StateError, match="no States to join"):
        State.stack([])


def test_cat_joins_rows_with_their_caches_and_time_without() -> None:
    rows = State.cat([sequence_state(0), sequence_state(1)])
    assert rows["rep"].shape == (4, 3)
    assert rows["cache.keys"][:, 0].tolist() == [0, 0, 1, 1]
    halves = [State.stack([sequence_state(t), sequence_state(t + 1)]) for t in (0, 2)]
    time = State.cat(halves, 1)
    assert time["rep"].shape == (2, 4, 3)
    assert time["cache.keys"][:, 0].tolist() == [3, 3]


def test_at_has_a_cache_at_the_last_step_only() -> None:
    joined = State.stack([sequence_state(t) for t in range(3)])
    assert torch.equal(joined.at(1)["rep"], sequence_state(1)["rep"])
    assert "cache.keys" not in joined.at(1)
    assert "cache.keys" in joined.at(2) and "cache.keys" in joined.at(-1)


def test_caches_alone_have_no_steps() -> None:
    with pytest.raises(StateError, match=r"holds caches alone \(cache.k\): it has no steps"):
        State({"cache.k": torch.zeros(2, 3)}).at(0)


def test_rows_and_repeat_choose_and_copy_rows_with_caches() -> None:
    state = sequence_state(0)
    assert torch.equal(state.rows(torch.tensor([1]))["rep"], state["rep"][1:])
    assert torch.equal(state.rows(torch.tensor([True, False]))["rep"], state["rep"][:1])
    twice = state.repeat(2)
    assert torch.equal(twice["rep"][::2], state["rep"])
    assert torch.equal(twice["rep"][1::2], state["rep"])
    assert twice["cache.keys"].shape == (4, 4)


def test_where_takes_the_rows_of_the_mask() -> None:
    one, two = sequence_state(0), sequence_state(1)
    mixed = one.where(torch.tensor([True, False]), two)
    assert torch.equal(mixed["rep"][0], one["rep"][0])
    assert torch.equal(mixed["rep"][1], two["rep"][1])
    assert mixed["cache.keys"][:, 0].tolist() == [0, 1]
    with pytest.raises(StateError, match=r"only one has \['more'\]"):
        one.where(torch.tensor([True, False]), two.with_({"more": torch.zeros(2)}))


def test_flat_and_unflat_are_inverse_and_drop_caches() -> None:
    joined = State.stack([sequence_state(t) for t in range(3)])
    flat = joined.flat()
    assert flat["rep"].shape == (6, 3)
    assert "cache.keys" not in flat
    assert torch.equal(flat.unflat((2, 3))["rep"], joined["rep"])
    assert flat.meta == joined.meta


def test_with_and_only_add_and_leave_out() -> None:
    state = sequence_state(0).with_({"action": torch.ones(2)})
    assert set(state.only(("rep", "action")).tensors) == {"rep", "action"}
    assert state.only(("rep",)).meta == {"kind": "test"}
