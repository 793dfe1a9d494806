"""Trajectory: the states a rollout went through, its actions, and what was predicted on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from worldflux.core.spec import SequenceLayout, StateSpec
from worldflux.core.state import State
from worldflux.describe import Described, Row, on, rows, titled
from worldflux.errors import CapabilityError, ContractError

__all__ = ["Trajectory"]


@dataclass(eq=False, repr=False)
class Trajectory(Described):
    """T+1 states and T actions (T, B, ...), time-major; rewards, continues (T, B), values (T+1, B).

    `rewards[t]` and `continues[t]` (probabilities) belong to `states[t + 1]`, which `actions[t]`
    leads to; `values[t]` and `observations[key][t]` (T+1, B, ...) belong to `states[t]`.
    """

    states: list[State]
    actions: Tensor
    rewards: Tensor | None = None
    values: Tensor | None = None
    continues: Tensor | None = None
    state_spec: StateSpec | None = None
    sequence_layout: SequenceLayout | None = None
    observations: dict[str, Tensor] | None = None

    def __post_init__(self) -> None:
        T = self._check_lengths()
        self._check_batch_sizes(T)

    def described(self) -> tuple[str, list[Row]]:
        """A row for each tensor of all states, of those that one alone has, and of all else."""
        T = self.horizon
        sizes = f"T={T}, B={self.actions.shape[1]}, {on([self.actions])}"
        first, last = self.states[0], self.states[-1]
        held = [*rows(f"states[0..{T}]", last.only(first.tensors))]
        held += rows("states[0]", first.only(first.tensors.keys() - last.tensors.keys()))
        held += rows(f"states[{T}]", last.only(last.tensors.keys() - first.tensors.keys()))
        held += rows("actions", self.actions)
        held += [row for k, v in self._predictions().items() for row in rows(k.lower(), v)]
        held += rows("observations", self.observations)
        return titled("Trajectory", sizes, held)

    @property
    def horizon(self) -> int:
        """T, the number of actions."""
        return int(self.actions.shape[0])

    def __len__(self) -> int:
        return self.horizon

    @property
    def batch_size(self) -> int:
        """B, of the first state."""
        return self.states[0].batch_size

    def require(self, name: Literal["rewards", "values", "continues"]) -> Tensor:
        """The rewards or continues (T, B) or values (T+1, B), for a caller that needs them.

        `CapabilityError` where the model that was rolled out does not predict them.
        """
        found: Tensor | None = getattr(self, name)
        if found is None:
            having = [
                key.lower() for key, value in self._predictions().items() if value is not None
            ]
            raise CapabilityError(
                f"This Trajectory has no {name}: the model does not predict them. It has: "
                f"{', '.join(having) or 'states and actions alone'}."
            )
        return found

    def to_tensor(self, key: str) -> Tensor:
        """One state tensor over time, (T+1, B, ...)."""
        for t, state in enumerate(self.states):
            if key not in state:
                raise ContractError(
                    f"states[{t}] of the Trajectory has no tensor {key!r}; it has: "
                    f"{', '.join(state.tensors)}"
                )
        return torch.stack([state[key] for state in self.states])

    def to(self, device: str | torch.device) -> Trajectory:
        """This Trajectory on `device`."""
        return self._map(lambda tensor: tensor.to(device))

    def detach(self) -> Trajectory:
        """This Trajectory cut off from the autograd graph."""
        return self._map(Tensor.detach)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Trajectory:
        parts = {
            name: None if tensor is None else function(tensor)
            for name, tensor in self._predictions().items()
        }
        found = self.observations
        return replace(
            self,
            states=[state.map(function) for state in self.states],
            actions=function(self.actions),
            rewards=parts["Rewards"],
            values=parts["Values"],
            continues=parts["Continues"],
            observations=None if found is None else {k: function(v) for k, v in found.items()},
        )

    def _predictions(self) -> dict[str, Tensor | None]:
        return {"Rewards": self.rewards, "Values": self.values, "Continues": self.continues}

    def _check_lengths(self) -> int:
        if self.actions.ndim < 2:
            raise ContractError(
                f"Trajectory actions are (T, B, ...), got shape {tuple(self.actions.shape)}"
            )
        T = self.horizon
        if len(self.states) != T + 1:
            raise ContractError(
                f"Trajectory state/action mismatch: {T} actions lead through {T + 1} states, "
                f"got {len(self.states)} states"
            )
        expected = {"Rewards": T, "Values": T + 1, "Continues": T}
        for name, tensor in self._predictions().items():
            length = expected[name] if tensor is None else tensor.shape[0] if tensor.ndim else 0
            if length != expected[name]:
                raise ContractError(
                    f"{name} length {length} does not fit {T} actions: expected {expected[name]}"
                )
        return T

    def _check_batch_sizes(self, T: int) -> None:
        sizes = {f"states[{t}]": state.batch_size for t, state in enumerate(self.states)}
        sizes["actions"] = int(self.actions.shape[1])
        for name, tensor in self._predictions().items():
            if tensor is not None:
                sizes[name.lower()] = int(tensor.shape[1]) if tensor.ndim > 1 else -1
        B = self.batch_size
        wrong = {name: size for name, size in sizes.items() if size != B}
        if wrong:
            raise ContractError(f"Inconsistent batch size: states[0] has {B}, but {wrong}")
