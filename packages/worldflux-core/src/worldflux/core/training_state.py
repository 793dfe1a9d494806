"""What a learner needs to go on beside its saved weights, as flat named tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldflux.core.state import State
from worldflux.errors import ContractError, StorageError

if TYPE_CHECKING:
    from worldflux.core.agent import Learner

CARRY, META, WEIGHTS = "carry", "carry_meta", "weights"
COUNTS = ("steps", "total")


def training_state(learner: Learner) -> dict[str, Tensor]:
    """Optimisers' state and counts, `carry`, and the weights that the published ones stand for."""
    if taken := {CARRY, META, WEIGHTS} & learner.optimizers.keys():
        raise ContractError(
            f"{type(learner).__name__} has an optimizer called {taken.pop()!r}, a name that the "
            "training state uses for something else. Call it otherwise."
        )
    flat = {f"{name}/{COUNTS[0]}": torch.tensor(count) for name, count in learner.steps.items()}
    flat |= {f"{name}/{COUNTS[1]}": torch.tensor(n) for name, n in learner.total.items()}
    for name, optimizer in learner.optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                flat[f"{name}/{index}/{key}"] = torch.as_tensor(value)
    own = learner.state_dict()
    flat |= {f"{WEIGHTS}/{name}": own[name].detach() for name in learner.published()}
    return flat | carried(learner)


def carried(learner: Learner) -> dict[str, Tensor]:
    """What `carry` holds: in a distributed run every rank has its own."""
    return dict(_carried(learner.carry))


def load_carried(learner: Learner, flat: Mapping[str, Tensor]) -> None:
    """Restore what `carried` gave."""
    device = next((tensor.device for tensor in learner.state_dict().values()), torch.device("cpu"))
    learner.carry = _restored(flat, device)


def load_training_state(learner: Learner, flat: Mapping[str, Tensor]) -> None:
    """Restore what `training_state` gave; a name that does not belong is a `StorageError`."""
    states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in learner.optimizers}
    weights = learner.state_dict()
    kept: dict[str, Tensor] = {}
    for path, value in flat.items():
        name, _, rest = path.partition("/")
        index, _, key = rest.partition("/")
        if name in (CARRY, META):
            kept[path] = value
        elif name == WEIGHTS and rest in weights:
            weights[rest].copy_(value)
        elif name in states and rest in COUNTS:
            getattr(learner, rest)[name] = int(value)
        elif name in states and index.isdigit():
            states[name].setdefault(int(index), {})[key] = value
        else:
            known = ", ".join(states) or "none"
            raise StorageError(
                f"Training state has {path!r}, but the optimizers are: {known}. "
                "The checkpoint belongs to another agent or version."
            )
    for name, optimizer in learner.optimizers.items():
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": states[name], "param_groups": groups})
    load_carried(learner, kept)


def _carried(state: State | None) -> Iterator[tuple[str, Tensor]]:
    if state is None:
        return
    try:
        meta = json.dumps(state.meta).encode()
    except TypeError as error:
        raise ContractError(
            f"carry.meta cannot be saved: {error}. It may hold what JSON holds; tensors belong "
            "into carry's tensors."
        ) from error
    yield META, torch.frombuffer(bytearray(meta), dtype=torch.uint8)
    yield from ((f"{CARRY}/{key}", tensor.detach()) for key, tensor in state.tensors.items())


def _restored(flat: Mapping[str, Tensor], device: torch.device) -> State | None:
    if META not in flat:
        return None
    tensors = {
        path.removeprefix(f"{CARRY}/"): tensor.to(device, copy=True)
        for path, tensor in flat.items()
        if path != META
    }
    return State(tensors, json.loads(bytes(flat[META].cpu().numpy())))
