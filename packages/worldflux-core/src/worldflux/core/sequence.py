"""States of whole sequences: what a loss compares with, and where dreams and plans start from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldflux.core.actions import no_actions
from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.core.state import State

if TYPE_CHECKING:
    from worldflux.core.model import WorldModel


def observe_sequence(
    model: WorldModel, batch: Batch, start: State | None, rand: Rand | None
) -> State:
    """`WorldModel.observe_sequence`: States (B, T', ...) of the steps after the context."""
    if not model.recurrent:
        return _encoded(model, batch.without_context(), rand)
    if start is None and batch.context and batch.stored:
        start = model.restored({key: value[:, -1] for key, value in batch.stored.items()})
        if start is not None:
            return _observed(model, batch, batch.context, batch.length, start, rand)
    if start is None:
        start = model.initial(batch.batch_size, batch.is_first.device)
    if batch.context:
        with torch.no_grad():
            under = None if rand is None else rand.under("context/")
            start = _observed(model, batch, 0, batch.context, start, under).at(-1)
    return _observed(model, batch, batch.context, batch.length, start, rand)


def _encoded(model: WorldModel, batch: Batch, rand: Rand | None) -> State:
    """Each step by itself, all in one pass."""
    lead = (batch.batch_size, batch.length)
    obs = {key: value.flatten(0, 1) for key, value in batch.obs.items()}
    return model.encode(obs, rand=rand).unflat(lead)


def _observed(
    model: WorldModel, batch: Batch, begin: int, end: int, start: State, rand: Rand | None
) -> State:
    """Steps `begin` to `end` of a recurrent model, after State `start` (B, ...)."""
    dynamics = model.slot("dynamics_model", "observe_sequence")
    obs = {key: value[:, begin:end] for key, value in batch.obs.items()}
    first = batch.is_first[:, begin:end]
    found: State = dynamics.observe_sequence(
        start,
        _previous(model, batch, begin, end),
        features_of(model, start, obs, first),
        first,
        rand=rand,
    )
    return found


def features_of(model: WorldModel, state: State, obs: dict[str, Tensor], first: Tensor) -> State:
    """The encoder's features (B, T, ...) of observations (B, T, ...) that follow on a State."""
    encoder, lead = model.slot("observation_encoder", "observe"), tuple(first.shape)
    rows = model.observations({key: value.flatten(0, 1) for key, value in obs.items()})
    if not getattr(encoder, "sees_history", False):  # a part may be any module
        features: State = encoder(rows)
        return features.unflat(lead)
    return encoder.sequence(state, {k: v.unflatten(0, lead) for k, v in rows.items()}, first)


def _previous(model: WorldModel, batch: Batch, begin: int, end: int) -> Tensor:
    """Conditioned actions (B, end - begin, A') that led to steps `begin` to `end`."""
    taken = actions_of(model, batch)
    steps = slice(max(begin - 1, 0), end - 1)
    if begin:
        return _conditioned(model, batch, taken, steps)
    first = torch.zeros_like(_conditioned(model, batch, taken, slice(0, 1)))
    if end == 1:
        return first
    return torch.cat([first, _conditioned(model, batch, taken, steps)], 1)


def actions_of(model: WorldModel, batch: Batch) -> Tensor:
    """The batch's actions (B, T, ...); zeros of the model's own space where it has no data of them.

    A model without actions gets zeros of no size, (B, T, 0).
    """
    if batch.action is None and not model.action_spec:
        return no_actions(model.action, (batch.batch_size, batch.length), batch.is_first.device)
    return batch.require("action")


def _conditioned(model: WorldModel, batch: Batch, taken: Tensor, steps: slice) -> Tensor:
    """Conditioned actions (B, N, A') of some steps; the conditioner sees one leading axis."""
    action, found = taken[:, steps], batch.conditions()
    if found is not None:
        extras = {key: value[:, steps].flatten(0, 1) for key, value in found.extras.items()}
        found = replace(found, extras=extras)
    return model.condition(action.flatten(0, 1), found).unflatten(0, action.shape[:2])
