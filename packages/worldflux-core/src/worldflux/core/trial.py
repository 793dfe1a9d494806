"""One pass of a part on a row of zeros, to learn what it gives before the next part is built."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from worldflux.core.actions import no_actions
from worldflux.core.output import ModelOutput
from worldflux.core.rand import Rand
from worldflux.core.state import CACHE, State
from worldflux.core.zeros import zeros_of
from worldflux.errors import ContractError
from worldflux.nn.device import device_of

if TYPE_CHECKING:
    from worldflux.core.model import WorldModel

Shape = tuple[int | None, ...] | None
"""A shape without the batch axis; None for any size of an axis, or for any shape."""
Found = Mapping[str, Tensor] | State | Tensor | ModelOutput
Trial = Callable[[Any], Found]
_ONE = (1,)


def on_zeros(
    model: WorldModel, slot: str, module: nn.Module, trial: Trial | None, *, foreign: bool
) -> dict[str, Tensor]:
    """The tensors (1, ...) that `module` gives for zeros; `foreign` parts are blamed by name."""
    run = trial or _PASSES[slot](model)
    if run is None:
        return {}
    try:
        with _aside(module):
            found = _run(run, module)
        return _tensors(slot, found, trial is not None)
    except Exception as error:  # a caller's part ran for the first time, on anything
        if not foreign:
            raise
        raise ContractError(
            f"{type(model).__name__} cannot use {type(module).__name__} as its {slot}: on one row "
            f"of zeros it ends in {type(error).__name__}: {error!s:.300}"
        ) from error


def require_shapes(
    model: WorldModel, slot: str, found: Mapping[str, Tensor], expects: Mapping[str, Shape]
) -> None:
    """Raise `ContractError` unless `found` (1, ...) holds what the family expects."""
    where = f"{type(model).__name__} cannot use {type(getattr(model, slot)).__name__} as its {slot}"
    for name, shape in expects.items():
        if name not in found:
            has = ", ".join(found) or "nothing"
            raise ContractError(f"{where}: expected {name!r}, found {has}.")
        have = tuple(found[name].shape)
        fits = shape is None or (
            len(have) == len(shape) + 1
            and all(want in (None, size) for want, size in zip(shape, have[1:], strict=True))
        )
        if not fits or have[:1] != (1,):
            axes = "(1, ...)" if shape is None else str((1, *shape)).replace("None", "any")
            raise ContractError(
                f"{where}: for one row, {name!r} was expected with shape {axes}, found {have}."
            )


@contextmanager
def _aside(module: nn.Module) -> Iterator[None]:
    """In eval mode, without gradient, the global random numbers as they were afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    state = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(0)
        with torch.no_grad():
            yield
    finally:
        torch.default_generator.set_state(state)
        for part, training in modes:
            part.training = training


def _run(run: Trial, module: nn.Module) -> Found:
    """The pass where the part is; a part on meta that cannot run there is tried on the CPU."""
    device = device_of(module)
    try:
        with device:
            return run(module)
    except (NotImplementedError, RuntimeError):
        if device.type != "meta":
            raise
    with torch.device("cpu"):
        return run(copy.deepcopy(module).to_empty(device="cpu"))


_RETURNS: Mapping[str, tuple[type, ...]] = {
    "observation_encoder": (State,),
    "action_conditioner": (Tensor,),
    "dynamics_model": (State,),
    "decoder_module": (ModelOutput, Mapping),
    "rollout_executor": (Mapping,),
}


def _tensors(slot: str, found: Found, own_trial: bool) -> dict[str, Tensor]:
    wanted = (Mapping, State, Tensor, ModelOutput) if own_trial else _RETURNS[slot]
    if not isinstance(found, wanted):
        names = " or ".join(kind.__name__ for kind in wanted)
        raise ContractError(f"it returns a {type(found).__name__}, expected a {names}.")
    if isinstance(found, Tensor):
        found = {"action": found}
    if isinstance(found, ModelOutput):
        found = found.predictions
    plain = found.tensors if isinstance(found, State) else found
    return {name: tensor for name, tensor in plain.items() if not name.startswith(CACHE)}


def _rand() -> Rand:
    device = torch.empty(0).device
    return Rand() if device.type == "meta" else Rand.seeded(0, device)


def _encoder(model: WorldModel) -> Trial | None:
    return (lambda part: part(zeros_of(model.obs_spec, _ONE))) if model.obs_spec else None


def _conditioner(model: WorldModel) -> Trial | None:
    if model.action is None:
        return None
    return lambda part: part(no_actions(model.action, _ONE))


def _dynamics(model: WorldModel) -> Trial | None:
    specs = {name: spec for name, spec in model.features.items() if name != "action"}

    def run(part: Any) -> State:
        found = zeros_of(model.features, _ONE)
        action = found.pop("action") if "action" in found else no_actions(model.action, _ONE)
        features = State(found)
        if not getattr(part, "recurrent", False):
            after: State = part.transition(features, action, rand=_rand())
            return after
        start = part.initial(1, action.device)
        first = torch.ones(1, dtype=torch.bool)
        seen: State = part.observe(start, action, features, first, rand=_rand())
        after = part.transition(seen, action, rand=_rand())
        return seen.with_(after.tensors)

    return run if specs or model.action is not None else None


def _decoder(model: WorldModel) -> Trial | None:
    specs = {name: spec for name, spec in model.features.items() if name != "action"}
    return (lambda part: part(State(zeros_of(specs, _ONE)))) if specs else None


_PASSES: Mapping[str, Callable[[WorldModel], Trial | None]] = {
    "observation_encoder": _encoder,
    "action_conditioner": _conditioner,
    "dynamics_model": _dynamics,
    "decoder_module": _decoder,
    "rollout_executor": lambda model: None,
}
