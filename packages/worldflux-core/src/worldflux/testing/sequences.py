"""Checks of steps: whole sequences agree with them, and none uses up the State it starts from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from worldflux.core.actions import no_actions
from worldflux.core.model import WorldModel
from worldflux.core.rand import Rand
from worldflux.errors import ContractError
from worldflux.testing.batches import random_batch, random_obs, random_values

_CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@torch.no_grad()
def check_transition_leaves_its_state_alone(model: WorldModel) -> None:
    """A State can be stepped from again: `transition` writes into none of its tensors (caches)."""
    state = model.encode(random_obs(model.obs_spec, (3,), Rand.seeded(1)), deterministic=True)
    before = state.clone()
    action = None if model.action is None else random_values(model.action, (3,), Rand.seeded(2))
    model.transition(state, action, deterministic=True)
    changed = [key for key, x in before.tensors.items() if not torch.equal(x, state[key])]
    assert not changed, (
        f"transition writes into the State it starts from: {', '.join(changed)} changed. Write "
        "into a clone, so that another step can begin there"
    )


@torch.no_grad()
def check_sequence_equals_steps(model: WorldModel) -> None:
    """`observe_sequence` over (B, T) equals T calls of `observe` with the same draws."""
    batch = random_batch(model.obs_spec, model.action_spec, 2, 5)
    encoder = model.observation_encoder
    dynamics: Any = model.dynamics_model
    assert dynamics is not None and encoder is not None
    features = encoder({key: value.flatten(0, 1) for key, value in batch.obs.items()})
    features = features.unflat((2, 5))
    taken = batch.action
    if taken is None and model.action is not None:  # the family's own
        taken = random_values(model.action, (2, 5), Rand.seeded(3))
    elif taken is None:
        taken = no_actions(None, (2, 5), torch.device("cpu"))
    action = model.condition(taken.flatten(0, 1)).unflatten(0, (2, 5))
    state = model.initial(2)
    rand = _sequence_draws(
        5, dynamics.observe, state, action[:, 0], features.at(0), batch.is_first[:, 0]
    )
    sequence = dynamics.observe_sequence(state, action, features, batch.is_first, rand=rand)
    try:
        rand.check_used()
    except ContractError as error:
        raise AssertionError(
            f"observe_sequence does not draw by the names that observe uses: {error}"
        ) from error
    for t in range(5):
        state = dynamics.observe(
            state, action[:, t], features.at(t), batch.is_first[:, t], rand=rand.at(t, dim=1)
        )
        found = sequence.at(t)
        # caches are there at the last step alone; a sequence may hold more than a step
        for key in found.tensors.keys() & state.tensors.keys():
            torch.testing.assert_close(
                found[key], state[key], **_CLOSE, msg=f"{key} differs at step {t}"
            )
        lacks = state.without_caches().tensors.keys() - found.tensors.keys()
        assert not lacks, f"observe_sequence lacks {', '.join(sorted(lacks))}"


def _sequence_draws(steps: int, function: Callable[..., Any], *args: Any) -> Rand:
    """A Rand that forces, for `steps` steps (B, T, ...), what `function` asks for in one."""
    rand = Rand.seeded(0)
    each = [rand.asked(function, *args) for _ in range(steps)]
    return Rand(draws={name: torch.stack([d[name] for d in each], 1) for name in each[0]})
