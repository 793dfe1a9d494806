"""The one time convention: batch-major sequences, everything of a step arriving together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from worldflux.errors import ContractError


@dataclass(frozen=True)
class Transitions:
    """Consecutive pairs of steps (B, T-1, ...); pairs across an episode boundary are not valid."""

    obs: dict[str, Tensor]
    action: Tensor
    next_reward: Tensor
    next_obs: dict[str, Tensor]
    next_terminal: Tensor
    valid: Tensor


@dataclass
class Batch:
    """Sequences (B, T, ...). Step t holds what arrived together and the action chosen there.

    `obs[t]`, `reward[t]`, `is_first[t]`, `is_last[t]`, `is_terminal[t]` arrived together and
    `action[t]` was chosen at `obs[t]` (zeros at `is_last`, where no action is taken). A time
    limit is `is_last` without `is_terminal`. `mask` is False on padding. `index` are replay rows
    for writing back. The first `context` steps only bring state in: `stored` holds the values
    (B, context, ...) that were recorded with them, such as latents.
    """

    obs: dict[str, Tensor]
    action: Tensor
    reward: Tensor
    is_first: Tensor
    is_last: Tensor
    is_terminal: Tensor
    mask: Tensor | None = None
    index: Tensor | None = None
    context: int = 0
    stored: dict[str, Tensor] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """B."""
        return int(self.reward.shape[0])

    @property
    def length(self) -> int:
        """T, context steps included."""
        return int(self.reward.shape[1])

    def to(self, device: str | torch.device, *, non_blocking: bool = False) -> Batch:
        """A copy on `device`."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """A Batch with `function` applied to every tensor."""
        changed: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = function(value)
            elif isinstance(value, Mapping):
                changed[item.name] = {key: function(tensor) for key, tensor in value.items()}
        return replace(self, **changed)  # type: ignore[arg-type]

    def transitions(self) -> Transitions:
        """Pairs (t, t+1); `valid = ~is_first[:, 1:]`, and False where either step is padding."""
        valid = ~self.is_first[:, 1:]
        if self.mask is not None:
            valid = valid & self.mask[:, 1:] & self.mask[:, :-1]
        return Transitions(
            obs={key: value[:, :-1] for key, value in self.obs.items()},
            action=self.action[:, :-1],
            next_reward=self.reward[:, 1:],
            next_obs={key: value[:, 1:] for key, value in self.obs.items()},
            next_terminal=self.is_terminal[:, 1:],
            valid=valid,
        )

    def validate(self) -> None:
        """Raise `ContractError` where shapes or flags break the convention."""
        lead = tuple(self.reward.shape)
        if len(lead) != 2:
            raise ContractError(f"Batch reward has shape {lead}, expected (B, T).")
        named = {f"obs[{key!r}]": value for key, value in self.obs.items()}
        flags = ("action", "is_first", "is_last", "is_terminal", "mask", "index")
        named |= {name: getattr(self, name) for name in flags if getattr(self, name) is not None}
        for name, tensor in named.items():
            if tuple(tensor.shape[:2]) != lead:
                raise ContractError(
                    f"Batch {name} has shape {tuple(tensor.shape)}, expected (B, T) = {lead} first."
                )
        if not 0 <= self.context < lead[1]:
            raise ContractError(f"Batch context is {self.context}, expected 0 to {lead[1] - 1}.")
        if bool((self.is_terminal & ~self.is_last).any()):
            raise ContractError("Batch has is_terminal without is_last: a terminal step is last.")
        if bool((self.reward[self.is_first] != 0).any()):
            raise ContractError("Batch has a reward at is_first: nothing preceded that step.")
