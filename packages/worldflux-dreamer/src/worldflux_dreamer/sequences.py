"""A Batch as DreamerV3 sees it: context cut off, actions shifted to precede their observations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.batch import Batch
from worldflux.core.state import State
from worldflux.errors import ContractError


@dataclass
class Sequences:
    """Steps (B, T, ...) without context; `prev_action[t]` led to `obs[t]`; `start` precedes t=0."""

    obs: dict[str, Tensor]
    prev_action: Tensor
    reward: Tensor
    is_first: Tensor
    is_last: Tensor
    is_terminal: Tensor
    start: State
    mask: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        return int(self.reward.shape[0]), int(self.reward.shape[1])

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name."""
        fields = ("prev_action", "reward", "is_first", "is_last", "is_terminal")
        found = {name: getattr(self, name) for name in fields}
        found |= {f"obs/{key}": value for key, value in self.obs.items()}
        found |= {f"start/{key}": value for key, value in self.start.tensors.items()}
        return found if self.mask is None else {**found, "mask": self.mask}

    def map(self, function: Callable[[Tensor], Tensor]) -> Sequences:
        """Sequences with `function` applied to every tensor."""
        values = {name: function(tensor) for name, tensor in self.tensors().items()}
        obs = {key: values.pop(f"obs/{key}") for key in self.obs}
        start = State({key: values.pop(f"start/{key}") for key in self.start.tensors})
        return Sequences(obs=obs, start=start, **values)

    def last(self, steps: int) -> Sequences:
        """The last `steps` steps; `start` stays that of the whole sequence."""
        fields = ("prev_action", "reward", "is_first", "is_last", "is_terminal")
        cut = {name: getattr(self, name)[:, -steps:] for name in fields}
        obs = {key: value[:, -steps:] for key, value in self.obs.items()}
        mask = None if self.mask is None else self.mask[:, -steps:]
        return Sequences(obs=obs, start=self.start, mask=mask, **cut)


def sequences(batch: Batch, initial: State) -> Sequences:
    """Cut off the context; start from the latents stored with its last step, or from `initial`."""
    cut, action = batch.context, batch.require("action")
    if cut:
        prev_action, start = action[:, cut - 1 : -1], _stored(batch, initial)
    else:
        nothing = torch.zeros_like(action[:, :1])
        prev_action, start = torch.cat([nothing, action[:, :-1]], 1), initial
    return Sequences(
        obs={key: value[:, cut:] for key, value in batch.obs.items()},
        prev_action=prev_action,
        reward=batch.require("reward")[:, cut:].float(),
        is_first=batch.is_first[:, cut:],
        is_last=batch.is_last[:, cut:],
        is_terminal=batch.is_terminal[:, cut:],
        start=start,
        mask=None if batch.mask is None else batch.mask[:, cut:],
    )


def _stored(batch: Batch, initial: State) -> State:
    missing = [key for key in initial.tensors if key not in batch.stored]
    if missing:
        have = ", ".join(batch.stored) or "nothing"
        raise ContractError(
            f"Batch has {batch.context} context steps but stores no {missing[0]!r} for them (it "
            f"stores {have}). Keep the agent's replay_spec in replay, or set agent.context=0."
        )
    return State(
        {
            "deter": batch.stored["deter"][:, -1].to(initial["deter"].dtype),
            "stoch": as_one_hot(batch.stored["stoch"][:, -1], initial["stoch"]),
        }
    )


def as_one_hot(stoch: Tensor, like: Tensor) -> Tensor:
    """Classes (B, S) or one-hots (B, S, K) as one-hots (B, S, K) of the dtype of `like`."""
    if stoch.ndim == like.ndim:
        return stoch.to(like.dtype)
    return F.one_hot(stoch.long(), like.shape[-1]).to(like.dtype)
