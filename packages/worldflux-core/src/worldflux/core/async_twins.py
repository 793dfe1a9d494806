"""Asynchronous twins of inference: the same methods on a worker thread, so an event loop goes on.

Cancelling one abandons its result; the thread finishes and the model stays usable. `options` are
the keyword arguments of the method itself (`rand`, `keys`, `horizon`, ...).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from torch import Tensor

from worldflux.core.output import ModelOutput
from worldflux.core.payloads import ActionPayload, ActionSequence, ConditionPayload
from worldflux.core.state import State
from worldflux.core.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from worldflux.core.payloads import WorldModelInput


class AsyncTwins:
    """`async_*` forms of a world model's operations."""

    encode: Callable[..., State]
    transition: Callable[..., State]
    decode: Callable[..., ModelOutput]
    rollout: Callable[..., Trajectory]

    async def async_encode(
        self,
        obs: Tensor | dict[str, Tensor] | WorldModelInput,
        deterministic: bool = False,
        **options: Any,
    ) -> State:
        """`encode` off the event loop."""
        return await asyncio.to_thread(self.encode, obs, deterministic, **options)

    async def async_transition(
        self,
        state: State,
        action: ActionPayload | Tensor | None,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        **options: Any,
    ) -> State:
        """`transition` off the event loop."""
        return await asyncio.to_thread(
            self.transition, state, action, conditions, deterministic, **options
        )

    async def async_decode(
        self, state: State, conditions: ConditionPayload | None = None, **options: Any
    ) -> ModelOutput:
        """`decode` off the event loop."""
        return await asyncio.to_thread(self.decode, state, conditions, **options)

    async def async_rollout(
        self,
        initial_state: State,
        action_sequence: ActionSequence | ActionPayload | Tensor | None,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        mode: str = "autoregressive",
        **options: Any,
    ) -> Trajectory:
        """`rollout` off the event loop."""
        return await asyncio.to_thread(
            self.rollout, initial_state, action_sequence, conditions, deterministic, mode, **options
        )
