"""Checks of steps: sequences agree with them, see no future, and none uses up its State."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from worldflux.core.model import WorldModel
from worldflux.core.rand import Rand
from worldflux.core.state import CACHE, State
from worldflux.errors import ContractError
from worldflux.testing.batches import batch_for, random_actions, random_obs

_CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@torch.no_grad()
def check_transition_leaves_its_state_alone(model: WorldModel) -> None:
    """A State can be stepped from again: `transition` writes into none of its tensors (caches).

    Two steps from one State, then the first again: it gives what it gave.
    """
    state = model.encode(random_obs(model.obs_spec, (3,), Rand.seeded(1)), deterministic=True)
    before = state.clone()
    first, second = (random_actions(model.action, (3,), Rand.seeded(s)) for s in (2, 3))

    def step(action: Tensor) -> State:
        after = model.transition(state, action, deterministic=True).clone()
        changed = [key for key, x in before.tensors.items() if not torch.equal(x, state[key])]
        assert not changed, (
            f"transition writes into the State it starts from: {', '.join(changed)} changed. Write "
            "into a clone, so that another step can begin there"
        )
        return after

    once, _, again = step(first), step(second), step(first)
    differs = [key for key, x in once.tensors.items() if not torch.equal(x, again[key])]
    assert not differs, (
        f"a step depends on the steps made before it: {', '.join(differs)} differs when the same "
        "step is made from the same State again. Keep caches in the State, not in the module"
    )


@torch.no_grad()
def check_sequence_is_causal(model: WorldModel) -> None:
    """Other observations and actions from step t on leave the States before t as they were."""
    model.eval()  # batch statistics of training reach from step to step
    batch, other = (batch_for(model, 2, 6, boundary=False, seed=seed) for seed in (0, 1))
    plain = model.observe_sequence(batch, rand=Rand.seeded(0))
    for t in (2, 4):
        for key, value in batch.obs.items():
            value[:, t:] = other.obs[key][:, t:]
        if batch.action is not None and other.action is not None:
            batch.action[:, t - 1 :] = other.action[:, t - 1 :]
        changed = model.observe_sequence(batch, rand=Rand.seeded(0))
        for key, tensor in plain.tensors.items():
            if key.startswith(CACHE):
                continue
            torch.testing.assert_close(
                tensor[:, :t],
                changed[key][:, :t],
                **_CLOSE,
                msg=f"observe_sequence sees the future: observations from step {t} on changed "
                f"{key!r} of an earlier step. State t may use obs[0..t] and action[0..t-1] only",
            )
        plain = changed


@torch.no_grad()
def check_sequence_equals_steps(model: WorldModel) -> None:
    """`observe_sequence` over (B, T) equals T calls of `observe` with the same draws."""
    batch = batch_for(model, 2, 5)
    encoder = model.observation_encoder
    dynamics: Any = model.dynamics_model
    assert dynamics is not None and encoder is not None
    features = encoder({key: value.flatten(0, 1) for key, value in batch.obs.items()})
    features = features.unflat((2, 5))
    taken = batch.action
    if taken is None:  # latent actions, or none at all
        taken = random_actions(model.action, (2, 5), Rand.seeded(3))
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
