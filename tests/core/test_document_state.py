"""Documents 000 and 001 (the State page): its sections, one by one, as printed there."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from worldflux.core.state import State
from worldflux.errors import StateError


def a_state() -> State:
    return State(
        tensors={"deter": torch.randn(2, 4), "stoch": torch.randn(2, 3, 5)},
        meta={"step": 7},
    )


def test_overview_two_fields():
    public = [field.name for field in dataclasses.fields(State) if field.init]
    assert public == ["tensors", "meta"]
    assert State().tensors == {} and State().meta == {}


def test_accessing_tensors():
    state = a_state()
    features = torch.cat([state.tensors["deter"], state.tensors["stoch"].flatten(1)], dim=-1)
    assert features.shape == (2, 4 + 15)


def test_metadata():
    state = a_state()
    state.meta["latent_type"] = "simnorm"
    assert State.deserialize(state.serialize()).meta == {"step": 7, "latent_type": "simnorm"}


def test_device_transfer():
    state = a_state()
    other = state.to("meta")  # a device that every machine has, as "cuda" is not
    assert other.device.type == "meta" and state.device.type == "cpu"
    assert other.to(torch.device("meta")).meta == state.meta


def test_detach_and_clone():
    state = State({"latent": torch.ones(2, 3, requires_grad=True)}, {"note": ["kept"]})
    assert not state.detach()["latent"].requires_grad
    cloned = state.clone()
    cloned.meta["note"].append("changed")
    with torch.no_grad():
        cloned["latent"].zero_()
    assert state.meta == {"note": ["kept"]} and bool((state["latent"] == 1).all())


def test_validation():
    a_state().validate()
    with pytest.raises(StateError, match="batch size mismatch"):
        State({"a": torch.zeros(2, 1), "b": torch.zeros(3, 1)}).validate()


def test_batch_size_and_device_inspection():
    state = a_state()
    assert state.batch_size == 2 and state.device == torch.device("cpu")


def test_safe_tensor_access():
    state = a_state()
    assert state.get("latent") is None
    assert torch.equal(state.get("nothing", default=torch.zeros(1, 256)), torch.zeros(1, 256))
    assert state.get("deter", default=torch.zeros(1, 256)) is state.tensors["deter"]


def test_serialization():
    state = a_state()
    data = state.serialize(version="v1", format="binary")
    restored = State.deserialize(data)
    assert isinstance(data, bytes) and restored.meta == state.meta
    assert all(torch.equal(restored[key], value) for key, value in state.tensors.items())


CONSUMER = """
import json, sys
from worldflux.core.state import State
descriptor = json.loads(sys.argv[1])
attached = State.from_shared_memory(descriptor, copy=False)
print(float(attached["deter"].sum()))
attached.close_shared_memory(unlink=True)
"""


def test_shared_memory_between_processes():
    state = a_state()
    descriptor = state.to_shared_memory(namespace="my-state")
    command = [sys.executable, "-c", CONSUMER, json.dumps(descriptor)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(found.stdout) == pytest.approx(float(state["deter"].sum()))
    with pytest.raises(StateError):  # the consumer cleaned up
        State.from_shared_memory(descriptor, copy=False)
    state.close_shared_memory(unlink=False)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("get", ["key", "default"]),
        ("to", ["device"]),
        ("detach", []),
        ("clone", []),
        ("validate", []),
        ("serialize", ["version", "format"]),
        ("to_shared_memory", ["namespace", "allow_copy_from_cuda"]),
        ("close_shared_memory", ["unlink"]),
    ],
)
def test_api_reference_of_methods(name, parameters):
    assert list(inspect.signature(getattr(State, name)).parameters)[1:] == parameters


def test_api_reference_of_class_methods_and_properties():
    data = a_state().serialize()
    assert isinstance(State.deserialize(data), State)
    found = list(inspect.signature(State.from_shared_memory).parameters)
    assert found == ["descriptor", "copy"]
    assert isinstance(State.batch_size, property) and isinstance(State.device, property)
    assert callable(State.unlink_shared_memory)
    values: list[Tensor] = list(a_state().tensors.values())
    assert len(values) == 2
