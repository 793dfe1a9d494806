"""What a model is conditioned on by the data (labels, say): random values, and that they matter."""

from __future__ import annotations

from dataclasses import replace

import torch

from worldflux.core.model import WorldModel
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.testing.batches import (
    batch_for,
    other_actions,
    random_actions,
    random_obs,
    random_values,
)
from worldflux.testing.inputs import randomise

_ROWS = 6


def random_conditions(model: WorldModel, rows: int, seed: int = 4) -> ConditionPayload | None:
    """Random conditions (B, ...) of a model; None of one that takes none."""
    if not model.condition_spec:
        return None
    rand = Rand.seeded(seed)
    drawn = {f"wf.data.{name}": random_values(spec, (rows,), rand, name)
             for name, spec in model.condition_spec.items()}  # fmt: skip
    return ConditionPayload(extras=drawn)


@torch.no_grad()
def check_conditions_matter(model: WorldModel) -> None:
    """Another value of each condition leads to another State, or without dynamics another loss."""
    randomise(model.eval())
    for name, spec in model.condition_spec.items():
        if spec.discrete and min(spec.counts) < 2:
            continue  # of one class there is no other
        if model.dynamics_model is None:
            same = _losses_agree(model, name)
        else:
            same = _states_agree(model, name)
        assert not same, (
            f"the condition wf.data.{name} is ignored: another value of it gives the same "
            f"{'loss' if model.dynamics_model is None else 'State after a transition'}. Pass "
            "`conditions` on, or take it out of condition_spec"
        )


def _states_agree(model: WorldModel, name: str) -> bool:
    obs = random_obs(model.obs_spec, (_ROWS,), Rand.seeded(1))
    state = model.encode(obs, deterministic=True)
    action = random_actions(model.action, (_ROWS,), Rand.seeded(2))
    given = random_conditions(model, _ROWS)
    assert given is not None
    key, spec = f"wf.data.{name}", model.condition_spec[name]
    other = replace(given, extras={**given.extras, key: other_actions(spec, given.extras[key])})
    found = [model.transition(state, action, c, deterministic=True) for c in (given, other)]
    return all(torch.equal(x, found[1][k]) for k, x in found[0].tensors.items())


def _losses_agree(model: WorldModel, name: str) -> bool:
    batch = batch_for(model, _ROWS, 4)
    changed = other_actions(model.condition_spec[name], batch.extra[name])
    losses = []
    for each in (batch, replace(batch, extra={**batch.extra, name: changed})):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            losses.append(float(model.loss(each).loss))
    return losses[0] == losses[1]
