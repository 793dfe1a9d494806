"""Parts of another inner size, and the check that a family learns, saves and resumes with them."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worldflux.core.agent import Learner
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import ContractError
from worldflux.hub import load_into
from worldflux.specs import TensorSpec
from worldflux.testing.phases import UPDATES, phase_batch

EXTRA, INNER = 3, 7


class Adapter(nn.Module):
    """x + up(tanh(down(x))) over the last axis, of an inner size of its own; sized when used."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.LazyLinear(INNER), nn.LazyLinear(1)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        moved: Tensor = x + 0.01 * self.up(torch.tanh(self.down(x)))
        return moved


class Wrapped(nn.Module):
    """A part around the family's own; everything but its calls goes to the inner one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model.default_part()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


class Wider(Wrapped):
    """An encoder or conditioner that gives more features than the family's own."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.more = nn.LazyLinear(EXTRA)

    def forward(self, *args: Any, **options: Any) -> State | Tensor:
        """Features (B, D) with EXTRA more, (B, D + EXTRA)."""
        found = self.inner(*args, **options)
        if isinstance(found, Tensor):
            return torch.cat([found, self.more(found)], -1)
        wide = {k: x for k, x in found.tensors.items() if _has_features(x)}
        if not wide:
            raise ContractError("The encoder gives no features to widen, only images.")
        return found.with_({k: torch.cat([x, self.more(x)], -1) for k, x in wide.items()})  # type: ignore[no-any-return]


class Adapted(Wrapped):
    """An encoder or conditioner with an adapter behind it, for a family that fixes its size."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.adapter = Adapter()

    def forward(self, *args: Any, **options: Any) -> State | Tensor:
        """What the inner part gives, its first floating tensor adapted."""
        found = self.inner(*args, **options)
        return self.adapter(found) if isinstance(found, Tensor) else _adapted(self.adapter, found)


class AdaptedDynamics(Wrapped):
    """A dynamics whose action goes through an adapter first, whatever method it is given to."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.adapter = Adapter()

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if not inspect.ismethod(found):
            return found
        signature = inspect.signature(found)
        if "action" not in signature.parameters:
            return found

        def adapted(*args: Any, **options: Any) -> Any:
            given = signature.bind(*args, **options)
            given.arguments["action"] = self.adapter(given.arguments["action"])
            return found(*given.args, **given.kwargs)

        return adapted


class AdaptedDecoder(Wrapped):
    """A decoder whose State goes through adapters first, one for each vector in it."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        vectors = [name for name, spec in model.features.items() if _is_vector(spec)]
        self.adapters = nn.ModuleDict({name: Adapter() for name in vectors if name != "action"})

    def forward(self, state: State, *args: Any, **options: Any) -> Any:
        """From State (B, ...)."""
        adapted = {k: f(state[k]) for k, f in self.adapters.items() if k in state}
        return self.inner(state.with_(adapted), *args, **options)


def _is_vector(spec: TensorSpec) -> bool:
    return len(spec.shape) == 1 and spec.dtype.startswith("float")


def _has_features(x: Tensor) -> bool:
    """Whether this is a vector (B, D) or tokens (B, N, D) of features."""
    return x.ndim in (2, 3) and x.is_floating_point()


def _adapted(adapter: Adapter, state: State) -> State:
    floats = [k for k, x in state.tensors.items() if x.is_floating_point()]
    name = next((k for k in floats if _has_features(state[k])), floats[0])  # else an image's rows
    return state.with_({name: adapter(state[name])})


PARTS: Mapping[str, tuple[type[Wrapped], ...]] = {
    "observation_encoder": (Wider, Adapted),
    "action_conditioner": (Wider, Adapted),
    "dynamics_model": (AdaptedDynamics,),
    "decoder_module": (AdaptedDecoder,),
}


def check_other_sizes(make: Callable[[Mapping[str, Any]], Learner]) -> list[str]:
    """Each replaceable slot takes a part of another size; `make(slots)` builds the learner.

    The part is trained, saved and resumed with. Where the family declares a size fixed
    (`ContractError`), another inner size behind the same outside is taken. Returns the slots.
    """
    model = make({}).world_model
    # without actions there is nothing to adapt on the way into the dynamics
    without = () if model.action_spec else ("action_conditioner", "dynamics_model")
    slots = [slot for slot in PARTS if slot in model.composable_support and slot not in without]
    for slot in slots:
        _check_slot(slot, make)
    return slots


def _check_slot(slot: str, make: Callable[[Mapping[str, Any]], Learner]) -> None:
    for part in PARTS[slot]:
        try:
            learner = make({slot: part})
        except ContractError:
            if part is PARTS[slot][-1]:
                raise
            continue
        _check_learns_saves_resumes(slot, part, learner, lambda part=part: make({slot: part}))  # type: ignore[misc]
        return


def _check_learns_saves_resumes(
    slot: str, part: type[Wrapped], learner: Learner, again: Callable[[], Learner]
) -> None:
    name = f"{part.__name__} in {slot}"
    module = getattr(learner.world_model, slot)
    assert isinstance(module, part), f"{name}: the model holds a {type(module).__name__}"
    before = {key: value.detach().clone() for key, value in module.named_parameters()}
    learner.total = dict.fromkeys(learner.optimizers, 100)  # for schedules
    _updates(learner, range(UPDATES))
    own = [key for key in before if not key.startswith("inner.")]
    moved = {key: value.detach() for key, value in module.named_parameters()}
    assert any(not torch.equal(before[key], moved[key]) for key in own), (
        f"{name}: training does not move the part; was an optimiser made before it was put in?"
    )
    twin = again()
    with tempfile.TemporaryDirectory() as folder:
        load_into(twin, learner.save_pretrained(f"{folder}/saved"))
    twin.load_training_state({k: v.clone() for k, v in learner.training_state().items()})
    for resumed in (learner, twin):
        _updates(resumed, [UPDATES])
    for (key, left), right in zip(
        learner.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), f"{name}: {key} differs after saving and resuming"


def _updates(learner: Learner, seeds: Any) -> None:
    for seed in seeds:
        for phase in learner.training_plan().phases:
            learner.update(phase_batch(learner, phase), phase.name, rand=Rand.seeded(seed))
