"""The seam: what a caller hands to a model or an agent is checked once, where it comes in.

Whatever a family defines under the names in `ENTRIES` is entered through the checks written there:
arrays become tensors, and a shape, key or type that does not fit ends in one sentence, before any
layer of the network sees it. Compiled code is not checked again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import wraps
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from worldflux.core.actions import time_major_actions
from worldflux.core.batch import Batch
from worldflux.core.misshapen import misshapen
from worldflux.core.observations import as_tensor, observed
from worldflux.core.payloads import ActionPayload, ActionSequence, WorldModelInput
from worldflux.core.state import CACHE, State
from worldflux.core.values import choices, fitting
from worldflux.errors import ContractError
from worldflux.nn.device import device_of
from worldflux.specs import TensorSpec

Rows = int | None
"""B, as far as the arguments before have told it."""
Check = Callable[[Any, Any, Rows], tuple[Any, Rows]]
"""(whose method it is, the argument, B) -> (the argument as it goes on, B)."""
Entry = tuple[tuple[str, Check], ...]
"""The first arguments of a method, in order, and their checks."""


class Seam:
    """A base whose subclasses' methods are entered through the checks in `entries`."""

    entries: ClassVar[Mapping[str, Entry]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, checks in cls.entries.items():
            method = cls.__dict__.get(name)
            if callable(method) and not getattr(method, "__isabstractmethod__", False):
                setattr(cls, name, _entered(method, checks))


def _entered(method: Callable[..., Any], checks: Entry) -> Callable[..., Any]:
    @wraps(method)
    def entered(self: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return method(self, *args, **kwargs)
        given, rows = list(args), None
        for at, (name, check) in enumerate(checks):
            if at < len(given):
                given[at], rows = check(self, given[at], rows)
            elif name in kwargs:
                kwargs[name], rows = check(self, kwargs[name], rows)
        return method(self, *given, **kwargs)

    return entered


def check_obs(owner: Any, obs: Any, rows: Rows) -> tuple[Any, Rows]:
    """Observations (B, ...) of any form as tensors by key; whole inputs are the model's to open."""
    if isinstance(obs, WorldModelInput):
        return obs, rows
    found = observed(obs, owner.obs_spec, owner, type(owner).__name__)
    for key in owner.obs_spec or found:
        count = found[key].shape[0] if found[key].ndim else None
        if rows is not None and count != rows:
            raise ContractError(
                f"obs[{key!r}] has {count} rows, expected B = {rows}, as many as came with it: "
                "give every row its observation."
            )
        rows = count
    return found, rows


def check_state(owner: Any, state: Any, rows: Rows) -> tuple[Any, Rows]:
    """A State (B, ...): one step, its tensors shaped as `state_spec` says."""
    return _state(owner, state, rows, sequences=False)


def check_states(owner: Any, state: Any, rows: Rows) -> tuple[Any, Rows]:
    """A State (B, ...) or a sequence of them (B, T, ...)."""
    return _state(owner, state, rows, sequences=True)


def _state(owner: Any, state: Any, rows: Rows, *, sequences: bool) -> tuple[State, Rows]:
    found = _as_state(owner, state)
    lead: tuple[int, ...] | None = None
    # Caches come last: a sequence (B, T) keeps those (B, ...) of its last State only.
    for name, spec in sorted(owner.state_shapes.items(), key=lambda item: _cache(item[0])):
        tensor = found.tensors.get(name)
        if tensor is None:
            continue
        shape = tensor.shape
        own = shape[: len(shape) - len(spec.shape)]
        if shape[len(own) :] != spec.shape or not own or (len(own) > 1 and not sequences):
            raise ContractError(misshapen(f"state[{name!r}]", tuple(shape), spec))
        if lead is not None and own != (lead[:1] if _cache(name) else lead):
            raise ContractError(
                f"state[{name!r}] has shape {tuple(shape)}, the tensors before it begin with "
                f"{tuple(lead)}: give all of a State the same rows."
            )
        lead = lead or own
    return found, rows if lead is None else lead[0]


def _cache(name: str) -> bool:
    return name.startswith(CACHE)


def _as_state(owner: Any, state: Any) -> State:
    if not isinstance(state, State):
        raise ContractError(
            f"state is a {type(state).__name__}, expected a State: pass what encode or update gave."
        )
    if any(isinstance(tensor, np.ndarray) for tensor in state.tensors.values()):
        device = device_of(owner)
        return state.with_({k: as_tensor(t, k).to(device) for k, t in state.tensors.items()})
    return state


def check_carried(owner: Any, state: Any, rows: Rows) -> tuple[Any, Rows]:
    """What `act` gave before, or None at the very start; its rows are those of now."""
    if state is None:
        return None, rows
    found = _as_state(owner, state)
    if rows is not None and found.tensors and found.batch_size != rows:
        raise ContractError(
            f"state has {found.batch_size} rows, the observation {rows}: hand back the State that "
            "act gave for these rows, or None to start anew."
        )
    return found, rows


def check_action(owner: Any, action: Any, rows: Rows) -> tuple[Any, Rows]:
    """An action (B, A), or the indices (B,) or one-hots (B, n) of choices; None passes."""
    lead = ["B" if rows is None else rows]
    if isinstance(action, ActionPayload):
        if action.kind in ("continuous", "discrete") and action.tensor is not None:
            tensor = _action(owner, action.tensor, "action", lead)
            action = action if tensor is action.tensor else replace(action, tensor=tensor)
        return action, rows
    return None if action is None else _action(owner, action, "action", lead), rows


def check_actions(owner: Any, actions: Any, rows: Rows) -> tuple[Any, Rows]:
    """Actions (T, B, ...) of any form of sequence; policies and None pass.

    Latent ones are the model's to open: their numbers are not those of its action space.
    """
    payload = actions.payload if isinstance(actions, ActionSequence) else actions
    if isinstance(payload, ActionPayload) and payload.kind == "latent":
        return actions, rows
    found = time_major_actions(actions, owner.api_version)
    if isinstance(found, Tensor):
        found = _action(owner, found, "actions", ["T", "B" if rows is None else rows])
    return found, rows


def _action(owner: Any, value: Any, name: str, lead: list[str | int]) -> Tensor:
    tensor = value if isinstance(value, Tensor) else as_tensor(value, name).to(device_of(owner))
    spec: TensorSpec | None = owner.action
    if spec is None or owner.stride != 1:
        return tensor
    shape, count, rows = tensor.shape, len(lead), lead[-1]
    code: TensorSpec | None = owner.action_code if tensor.is_floating_point() else None
    if code is not None and shape[count:] == code.shape:
        return tensor
    inner = (spec.size,) if spec.discrete and tensor.is_floating_point() else spec.shape
    fits = shape[count:] == inner and len(shape) == count + len(inner)
    if fits and (rows == "B" or rows == shape[count - 1]):
        return choices(name, tensor, spec)
    if fits and count == 2 and shape[0] == rows:
        raise ContractError(
            f"{name} has shape {tuple(shape)}, expected (T, B, ...) with B = {rows}, the rows of "
            f"the State: pass {name}.transpose(0, 1)."
        )
    raise ContractError(misshapen(name, tuple(shape), TensorSpec(inner), lead, "A"))


def check_is_first(owner: Any, is_first: Any, rows: Rows) -> tuple[Any, Rows]:
    """Flags (B,), bool."""
    tensor = is_first
    if not isinstance(tensor, Tensor):
        tensor = as_tensor(is_first, "is_first").to(device_of(owner))
    if tensor.dtype != torch.bool:
        raise ContractError(
            f"is_first has type {str(tensor.dtype).removeprefix('torch.')}, expected bool: pass "
            "is_first.bool()."
        )
    if tensor.ndim != 1 or (rows is not None and tensor.shape[0] != rows):
        axes = ["B" if rows is None else rows]
        raise ContractError(misshapen("is_first", tuple(tensor.shape), _FLAG, axes))
    return tensor, tensor.shape[0]


_FLAG = TensorSpec(())


def check_mode(owner: Any, mode: Any, rows: Rows) -> tuple[Any, Rows]:
    """Whether an agent explores."""
    if mode not in ("train", "eval"):
        raise ContractError(f"mode is {mode!r}, expected 'train' (explores) or 'eval' (does not).")
    return mode, rows


def check_batch(owner: Any, batch: Any, rows: Rows) -> tuple[Any, Rows]:
    """Sequences (B, T, ...), shaped as the spaces say."""
    if not isinstance(batch, Batch):
        raise ContractError(
            f"batch is a {type(batch).__name__}, expected a worldflux.Batch of sequences (B, T, "
            "...): obs by key, is_first, is_last, is_terminal, and action and reward."
        )
    found = _tensors(owner, batch)
    lead = tuple(found.is_first.shape)
    if len(lead) != 2:
        raise ContractError(misshapen("batch.is_first", lead, _FLAG, ("B", "T")))
    fitted: dict[str, Tensor] = {}
    for key, spec in owner.obs_spec.items():
        if key not in found.obs:
            has = ", ".join(map(repr, found.obs)) or "nothing"
            raise ContractError(f"batch.obs lacks {key!r}. It has: {has}.")
        _require(f"batch.obs[{key!r}]", found.obs[key], spec, lead)
        fitted[key] = fitting(f"batch.obs[{key!r}]", found.obs[key], spec, 2)
    for name in ("reward", "is_last", "is_terminal", "mask"):
        value = getattr(found, name)
        if value is not None:
            _require(f"batch.{name}", value, _FLAG, lead)
    action = next(iter(owner.action_spec.values()), None)
    if found.action is not None and action is not None and getattr(owner, "stride", 1) == 1:
        floats = action.discrete and found.action.is_floating_point()
        inner = TensorSpec((action.size,)) if floats else action
        _require("batch.action", found.action, inner, lead, "A")
        choices("batch.action", found.action, action)
    if any(fitted[key] is not found.obs[key] for key in fitted):
        found = replace(found, obs={**found.obs, **fitted})
    return found, rows


def _require(
    name: str, tensor: Tensor, spec: TensorSpec, lead: tuple[int, ...], letters: str = ""
) -> None:
    if tensor.shape != (*lead, *spec.shape):
        raise ContractError(misshapen(name, tuple(tensor.shape), spec, lead, letters))


def _tensors(owner: Any, batch: Batch) -> Batch:
    """The batch with its arrays as tensors."""
    parts = [batch.is_first, batch.is_last, batch.action, batch.reward, *batch.obs.values()]
    if not any(isinstance(part, np.ndarray) for part in parts):
        return batch
    device = device_of(owner)

    def tensor(name: str, value: Any) -> Any:
        return as_tensor(value, name).to(device) if isinstance(value, np.ndarray) else value

    changed: dict[str, Any] = {}
    for item in fields(batch):
        value = getattr(batch, item.name)
        if isinstance(value, Mapping):
            changed[item.name] = {key: tensor(f"batch.{key}", part) for key, part in value.items()}
        else:
            changed[item.name] = tensor(f"batch.{item.name}", value)
    return replace(batch, **changed)


MODEL_ENTRIES: Mapping[str, Entry] = {
    "encode": (("obs", check_obs),),
    "transition": (("state", check_state), ("action", check_action)),
    "observe": (
        ("state", check_state),
        ("action", check_action),
        ("obs", check_obs),
        ("is_first", check_is_first),
    ),
    "update": (("state", check_state), ("action", check_action), ("obs", check_obs)),
    "decode": (("state", check_states),),
    "rollout": (("initial_state", check_state), ("action_sequence", check_actions)),
    "loss": (("batch", check_batch),),
}
LEARNER_ENTRIES: Mapping[str, Entry] = {
    "update": (("batch", check_batch),),
    "act": (
        ("obs", check_obs),
        ("state", check_carried),
        ("is_first", check_is_first),
        ("mode", check_mode),
    ),
    "observe": (("obs", check_obs), ("state", check_carried), ("is_first", check_is_first)),
}
