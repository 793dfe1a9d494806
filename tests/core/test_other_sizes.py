"""The check that every slot takes a part of another size, and families that fail it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from worldflux.core.agent import Learner
from worldflux.slots import built, read_slots
from worldflux.testing.dummies import TinyAgent, TinyConfig, TinyModel
from worldflux.testing.family import CONTINUOUS, VECTOR
from worldflux.testing.other_sizes import check_other_sizes


def make(cls: type[TinyAgent], slots: Mapping[str, Any]) -> Learner:
    return built(lambda: cls(TinyConfig(), VECTOR, CONTINUOUS), read_slots(slots))  # type: ignore[no-any-return]


def test_the_tiny_family_takes_parts_of_other_sizes() -> None:
    assert check_other_sizes(lambda slots: make(TinyAgent, slots)) == [
        "observation_encoder", "action_conditioner", "dynamics_model", "decoder_module",
    ]  # fmt: skip


class Early(TinyAgent):
    """Its optimiser was made for the family's own parts."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        encoder = self.world_model.observation_encoder
        inner = set(map(id, getattr(encoder, "inner", encoder).parameters()))
        new = set(map(id, encoder.parameters())) - inner  # type: ignore[union-attr]
        kept = [p for p in self.parameters() if id(p) not in new]
        self.optimizers = {"adam": torch.optim.Adam(kept, lr=1e-3)}


def test_an_optimiser_that_was_made_too_early_is_found() -> None:
    with pytest.raises(AssertionError, match="Wider in observation_encoder: training does not mov"):
        check_other_sizes(lambda slots: make(Early, slots))


class Ignores(TinyModel):
    """Declares slots, and puts its own parts in."""

    def fill(self, slot: str, default: Any, **options: Any) -> None:
        part = self._parts.pop(slot, None)
        super().fill(slot, default, **options)
        if part is not None:
            self.slot_overrides[slot] = part.to_json()


class IgnoringAgent(TinyAgent):
    def __init__(self, *args: Any) -> None:
        super(TinyAgent, self).__init__(*args)
        self.world_model = Ignores(*args)


def test_a_family_that_puts_its_own_parts_in_is_found() -> None:
    with pytest.raises(AssertionError, match="Wider in observation_encoder: the model holds a T"):
        check_other_sizes(lambda slots: make(IgnoringAgent, slots))


class Forgets(TinyAgent):
    """Its slots' weights are not saved."""

    def state_dict(self, *args: Any, **options: Any) -> Any:
        found = super().state_dict(*args, **options)
        return {key: value for key, value in found.items() if ".more." not in key}

    def load_state_dict(self, state: Any, *args: Any, **options: Any) -> Any:
        return super().load_state_dict(state, strict=False)


def test_a_part_that_is_not_saved_is_found() -> None:
    with pytest.raises(AssertionError, match="differs after saving and resuming"):
        check_other_sizes(lambda slots: make(Forgets, slots))
