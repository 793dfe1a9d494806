"""What sits in each slot of a family's model, what goes in there and what comes out, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from worldflux.slots import SLOTS
from worldflux.specs import TensorSpec

if TYPE_CHECKING:
    from worldflux.core.model import WorldModel

Specs = Mapping[str, TensorSpec]
_ROLLOUT = ("model, State, actions (H, B, ...) or a policy", "Trajectory of H steps")


class SlotHelp(NamedTuple):
    """One slot: `slots.decoder_module`, the class in it, and its tensors without the batch axis."""

    name: str
    part: str
    takes: str
    gives: str

    def __str__(self) -> str:
        return f"{self.name} = {self.part}\n    {self.takes} -> {self.gives}"


def slots_of(model_id: str) -> Iterator[SlotHelp]:
    """The replaceable slots of `"family:preset"` in the default spaces; nothing is allocated."""
    import torch

    from worldflux.factory import create_world_model

    with torch.device("meta"):
        model = create_world_model(model_id)
    return slots_in(model)


def slots_in(model: WorldModel) -> Iterator[SlotHelp]:
    """The replaceable slots of `model`, in the order in which data passes them."""
    for slot in SLOTS:
        if slot in model.composable_support:
            part = getattr(model, slot)
            cls = "none" if part is None else f"{type(part).__module__}:{type(part).__qualname__}"
            yield SlotHelp(f"slots.{slot}", cls, *_ends(model, slot))


def _ends(model: WorldModel, slot: str) -> tuple[str, str]:
    if slot == "rollout_executor":
        return _ROLLOUT
    gives = model.gives.get
    encoded, action = gives("observation_encoder", {}), gives("action_conditioner", {})
    state = gives("dynamics_model") or encoded
    recurrent = getattr(model.dynamics_model, "recurrent", False)
    takes: dict[str, Specs] = {
        "observation_encoder": {**model.obs_spec},
        "action_conditioner": {**model.action_spec},
        "dynamics_model": {**state, **action, **(encoded if recurrent else {})},
        "decoder_module": {**state},
    }
    return _text(takes[slot]), _text(gives(slot, {}))


def _text(specs: Specs) -> str:
    return ", ".join(f"{key} {_shape(spec)}" for key, spec in specs.items()) or "nothing"


def _shape(spec: TensorSpec) -> str:
    return str(spec.shape) if spec.n is None else f"of {spec.n} choices"
