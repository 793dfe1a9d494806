"""Documents 000 to 003 (State, protocol and types): their statements and examples, one by one."""

from __future__ import annotations

import pytest
import torch

import worldflux
from worldflux.core.state import State
from worldflux.errors import StateError


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
