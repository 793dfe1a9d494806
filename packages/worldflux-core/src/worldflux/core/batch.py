"""The one time convention: batch-major sequences, everything of a step arriving together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import torch
from torch import Tensor

from worldflux.core.payloads import ConditionPayload
from worldflux.describe import Described, on
from worldflux.errors import ContractError


@dataclass(frozen=True, repr=False)
class Transitions(Described):
    """Consecutive pairs of steps (B, T-1, ...); pairs across an episode boundary are not valid.

    Actions and rewards are None where the batch has none.
    """

    obs: dict[str, Tensor]
    action: Tensor | None
    next_reward: Tensor | None
    next_obs: dict[str, Tensor]
    next_terminal: Tensor
    valid: Tensor

    def sizes(self) -> str:
        """B, the number of pairs in a row, and the device."""
        return _sizes(self.valid)

    def require(self, name: Literal["action", "next_reward"]) -> Tensor:
        """The actions (B, T-1, ...) or next rewards (B, T-1), for a learner that needs them."""
        return _present(name.removeprefix("next_"), getattr(self, name))


@dataclass(repr=False)
class Batch(Described):
    """Sequences (B, T, ...). Step t holds what arrived together and the action chosen there.

    `obs[t]`, `reward[t]`, `is_first[t]`, `is_last[t]`, `is_terminal[t]` arrived together and
    `action[t]` was chosen at `obs[t]` (zeros at `is_last`, where no action is taken). A time
    limit is `is_last` without `is_terminal`. Data without actions or rewards (video, images) has
    None there. `mask` is False on padding. `index` names rows for writing back, -1 where none can
    be written. The first `context` steps only bring state in: `stored` holds the values
    (B, context, ...) that were recorded with them, such as latents. `extra` holds the further
    columns (B, T, ...), such as labels. Under a stride of k an action is a block (B, T, k, ...)
    and a reward the sum of k.
    """

    obs: dict[str, Tensor]
    is_first: Tensor
    is_last: Tensor
    is_terminal: Tensor
    action: Tensor | None = None
    reward: Tensor | None = None
    mask: Tensor | None = None
    index: Tensor | None = None
    context: int = field(default=0, repr=False)  # the title says it
    stored: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Tensor] = field(default_factory=dict)

    def sizes(self) -> str:
        """B, T, the context, and the device."""
        return _sizes(self.is_first, f", context={self.context}" if self.context else "")

    @property
    def batch_size(self) -> int:
        """B."""
        return int(self.is_first.shape[0])

    @property
    def length(self) -> int:
        """T, context steps included."""
        return int(self.is_first.shape[1])

    def require(self, name: Literal["action", "reward"]) -> Tensor:
        """The action (B, T, ...) or reward (B, T), for a learner that needs one."""
        return _present(name, getattr(self, name))

    def conditions(self, step: int | None = None) -> ConditionPayload | None:
        """The extra columns as a model takes them: `extras["wf.data.<name>"]`; None without any.

        Values (B, ...) of one `step`, or (B, T, ...) of all.
        """
        if not self.extra:
            return None
        cut = slice(None) if step is None else step
        return ConditionPayload(
            extras={f"wf.data.{key}": value[:, cut] for key, value in self.extra.items()}
        )

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

    def without_context(self) -> Batch:
        """The steps (B, T - context, ...) after the context: what a loss compares with."""
        if not self.context:
            return self
        bare = replace(self, context=0, stored={})
        return bare.map(lambda tensor: tensor[:, self.context :])

    def transitions(self) -> Transitions:
        """Pairs (t, t+1); `valid = ~is_first[:, 1:]`, and False where either step is padding."""
        valid = ~self.is_first[:, 1:]
        if self.mask is not None:
            valid = valid & self.mask[:, 1:] & self.mask[:, :-1]
        return Transitions(
            obs={key: value[:, :-1] for key, value in self.obs.items()},
            action=None if self.action is None else self.action[:, :-1],
            next_reward=None if self.reward is None else self.reward[:, 1:],
            next_obs={key: value[:, 1:] for key, value in self.obs.items()},
            next_terminal=self.is_terminal[:, 1:],
            valid=valid,
        )

    def validate(self) -> None:
        """Raise `ContractError` where shapes or flags break the convention."""
        lead = tuple(self.is_first.shape)
        if len(lead) != 2:
            raise ContractError(f"Batch is_first has shape {lead}, expected (B, T).")
        for name, tensor in self._steps().items():
            if tuple(tensor.shape[:2]) != lead:
                raise ContractError(
                    f"Batch {name} has shape {tuple(tensor.shape)}, expected (B, T) = {lead} first."
                )
        if not 0 <= self.context < lead[1]:
            raise ContractError(f"Batch context is {self.context}, expected 0 to {lead[1] - 1}.")
        if bool((self.is_terminal & ~self.is_last).any()):
            raise ContractError("Batch has is_terminal without is_last: a terminal step is last.")
        if self.reward is not None and bool((self.reward[self.is_first] != 0).any()):
            raise ContractError("Batch has a reward at is_first: nothing preceded that step.")

    def _steps(self) -> dict[str, Tensor]:
        """What has an entry for every step, by name."""
        named = {f"obs[{key!r}]": value for key, value in self.obs.items()}
        named |= {f"extra[{key!r}]": value for key, value in self.extra.items()}
        single = ("action", "reward", "is_last", "is_terminal", "mask", "index")
        return named | {
            name: getattr(self, name) for name in single if getattr(self, name) is not None
        }


def _sizes(flags: Tensor, more: str = "") -> str:
    """The title of flags (B, T); of what has another number of axes only the device."""
    lead = f"B={flags.shape[0]}, T={flags.shape[1]}{more}, " if flags.ndim == 2 else ""
    return lead + on([flags])


def _present(name: str, found: Tensor | None) -> Tensor:
    if found is None:
        raise ContractError(
            f"This batch has no {name}, which the learner needs: the data was recorded without "
            f"one. Give it data with {name}s, or a learner that does without (Learner.columns)."
        )
    return found
