"""Replacing the slots of a world model, alone or inside a learner that already has optimisers."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from worldflux.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from worldflux.core.agent import Learner
    from worldflux.core.model import WorldModel


def apply_slots(owner: WorldModel | Learner, slots: Mapping[str, nn.Module | str]) -> None:
    """Put each module, or `Class(model)` of each `"package.module:Class"`, into its slot.

    `decoder` is short for `decoder_module`. In a Learner the new parameters take the old ones'
    place in its optimisers.
    """
    model = cast("WorldModel", getattr(owner, "world_model", owner))
    for alias, given in slots.items():
        name = "decoder_module" if alias == "decoder" else alias
        old = getattr(model, name, None)
        if isinstance(given, str):
            model.replace_slot(name, _component(name, given)(model), given)
        else:
            model.replace_slot(name, given)
        new = getattr(model, name)
        for optimizer in getattr(owner, "optimizers", {}).values():
            _hand_over(optimizer, _trainable(old), _trainable(new), _trainable(model))


def _component(slot: str, reference: str) -> Any:
    try:
        found = pkgutil.resolve_name(reference)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{slot}={reference!r} cannot be imported: {error}. Write 'package.module:Class'."
        ) from error
    if not callable(found):
        raise ConfigError(f"{slot}={reference!r} is a {type(found).__name__}, not a class.")
    return found


def _trainable(module: nn.Module | None) -> list[nn.Parameter]:
    return [] if module is None else [p for p in module.parameters() if p.requires_grad]


def _hand_over(
    optimizer: Any, old: list[nn.Parameter], new: list[nn.Parameter], model: list[nn.Parameter]
) -> None:
    """Replace `old` by `new` in the group that held most of them (or else the model's)."""
    held = [_count(group["params"], old) for group in optimizer.param_groups]
    if not any(held):
        held = [_count(group["params"], model) for group in optimizer.param_groups]
    if not any(held):
        return  # this optimiser does not train the world model
    gone = set(map(id, old)) - set(map(id, new))
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in gone]
    present = {id(p) for group in optimizer.param_groups for p in group["params"]}
    target = optimizer.param_groups[held.index(max(held))]
    target["params"] += [p for p in new if id(p) not in present]


def _count(params: Iterable[nn.Parameter], among: Iterable[nn.Parameter]) -> int:
    wanted = set(map(id, among))
    return sum(id(p) in wanted for p in params)
