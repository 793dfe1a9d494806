"""Checks of what a model makes of its inputs: rows stay apart, and no input is ignored.

They look at differences after a change of one input, with all weights randomised: a head that
starts at zero is legal, and would hide the mistake.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from worldflux.core.model import WorldModel
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.specs import Capability
from worldflux.testing.batches import other_actions, random_actions, random_obs

_ROWS = 6
_MIXED = 1e-4  # one per cent of another row is ten times this; float noise a hundredth of it


def randomise(module: nn.Module, seed: int = 0, gain: float = 1.0) -> None:
    """Give every trainable parameter random values of a size that keeps signals alive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.requires_grad:
                continue
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            if parameter.ndim >= 2:
                parameter.copy_(noise * gain * (parameter.numel() / parameter.shape[0]) ** -0.5)
            else:
                parameter.add_(0.1 * noise)


def _obs(model: WorldModel, seed: int) -> dict[str, Tensor]:
    return random_obs(model.obs_spec, (_ROWS,), Rand.seeded(seed))


def _actions(model: WorldModel) -> tuple[Tensor, Tensor]:
    """Two actions that differ everywhere; twice none at all of a model that takes none."""
    action = random_actions(model.action, (_ROWS,), Rand.seeded(2))
    return action, action if model.action is None else other_actions(model.action, action)


def _with_row(tensors: dict[str, Tensor], others: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` with row 0 of `others`."""
    return {key: torch.cat([others[key][:1], value[1:]]) for key, value in tensors.items()}


def _row_of(state: State, other: State) -> State:
    return State(_with_row(state.tensors, other.tensors), state.meta)


def _rows_stay(before: dict[str, Tensor], after: dict[str, Tensor], what: str) -> None:
    for key, value in before.items():
        if not value.is_floating_point():
            continue
        difference = float((after[key][1:] - value[1:]).abs().max())
        size = float((after[key][0] - value[0]).abs().max()) + 1e-3
        assert difference <= _MIXED * size, (
            f"{what} mixes rows: another input in row 0 changed {key!r} of other rows by "
            f"{difference:.2g} (its own row by {size:.2g}). Look for a mean or norm over axis 0"
        )


@torch.no_grad()
def check_rows_are_independent(model: WorldModel) -> None:
    """Another row 0 leaves all other rows of encode, transition and decode as they were."""
    randomise(model.eval())
    obs = _obs(model, 1)
    state, other = (
        model.encode(found, deterministic=True) for found in (obs, _with_row(obs, _obs(model, 8)))
    )
    _rows_stay(state.tensors, other.tensors, "encode (observation_encoder)")
    if model.dynamics_model is not None:
        action, another = _actions(model)
        mixed = torch.cat([another[:1], action[1:]])
        after = model.transition(state, action, deterministic=True)
        changed = model.transition(_row_of(state, other), mixed, deterministic=True)
        _rows_stay(after.tensors, changed.tensors, "transition (dynamics_model)")
        state, other = after, changed
    if model.decoder_module is not None:
        found = model.decode(state).predictions
        changed_row = model.decode(_row_of(state, other)).predictions
        _rows_stay(found, changed_row, "decode (decoder_module)")


def _differs(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return any(not torch.equal(value, right[key]) for key, value in left.items())


@torch.no_grad()
def check_inputs_matter(model: WorldModel) -> None:
    """Every observation, the action, the State and what heads read have an effect."""
    randomise(model.eval())
    obs, others = _obs(model, 1), _obs(model, 8)
    state = model.encode(obs, deterministic=True)
    for key in model.obs_spec:
        changed = model.encode({**obs, key: others[key]}, deterministic=True)
        assert _differs(state.tensors, changed.tensors), (
            f"encode ignores observation {key!r}: another one gives the same State"
        )
    if model.dynamics_model is not None:
        _transition_uses(model, state, model.encode(others, deterministic=True))
        if not model.starts_anew:
            state = model.transition(state, _actions(model)[0], deterministic=True)
    if model.decoder_module is not None:
        _heads_use(model, state)


def _transition_uses(model: WorldModel, state: State, other: State) -> None:
    action, another = _actions(model)
    after = model.transition(state, action, deterministic=True).tensors
    moved = model.transition(other, action, deterministic=True).tensors
    if not model.starts_anew:
        assert _differs(after, moved), "transition ignores the State it starts from"
    if model.supports(Capability.UNCONDITIONAL) or model.action is None:
        return
    acted = model.transition(state, another, deterministic=True).tensors
    assert _differs(after, acted), (
        "transition ignores the action: other actions lead to the same State "
        "(is it zeroed, or not passed on to the dynamics?)"
    )


def _heads_use(model: WorldModel, state: State) -> None:
    for key, value in model.decode(state).predictions.items():
        if key in model.constant_predictions:
            continue
        same = bool((value == value[:1]).all())
        assert not same, (
            f"the prediction {key!r} ignores the State: {_ROWS} different States give the same "
            f"value (such as {value.flatten()[0].item():.3g}); is it a constant? "
            "One that is meant to be is declared in constant_predictions"
        )


def check_constructor_leaves_seeds_alone(make: Callable[[], nn.Module]) -> None:
    """Constructing does not seed torch's global generator: every user's seed stays theirs."""
    states = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            make()
            states.append(torch.random.get_rng_state())
    assert not torch.equal(*states), (
        "the constructor calls torch.manual_seed: whatever the seed before, torch's global "
        "generator is in the same state after it. Take the call out"
    )
