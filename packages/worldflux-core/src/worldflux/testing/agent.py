"""The conformance checks of a learner or agent."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from worldflux.core.agent import Agent, Learner, Mode
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.testing.batches import acting_obs
from worldflux.testing.inputs import randomise
from worldflux.testing.loss_parts import check_loss_parts
from worldflux.testing.mixed_precision import check_bf16_agrees
from worldflux.testing.phases import ROWS, check_update, phase_batch, updated
from worldflux.testing.running import run_checks
from worldflux.testing.slots import PerturbedSlot
from worldflux.testing.wrong_inputs import check_act_refuses_wrong_inputs
from worldflux.training import TrainingPlan

Make = Callable[[], Learner]


def check_agent(make: Make) -> list[str]:
    """Run every check that applies on learners from `make()`; return their names.

    Raises `AssertionError` naming the first check that fails.
    """

    def counted() -> Learner:
        learner = make()
        learner.total = dict.fromkeys(learner.optimizers, 100)  # for schedules
        return learner

    return run_checks(
        counted, CHECKS, lambda check, made: isinstance(made, Agent) or check not in _ACTING
    )


def check_training_plan(learner: Learner) -> None:
    """The training plan is data of core's type and the same every time."""
    plan = learner.training_plan()
    assert isinstance(plan, TrainingPlan), f"training_plan gave {type(plan).__name__}"
    assert plan == learner.training_plan(), "training_plan changes from call to call"


def check_frozen_parts_stay(learner: Learner) -> None:
    """What a user has frozen (`requires_grad_(False)`) is not moved by any phase's update."""
    encoder = learner.world_model.observation_encoder
    frozen = [] if encoder is None else [p for p in encoder.parameters() if p.requires_grad]
    if len(frozen) == sum(p.requires_grad for p in learner.parameters()):
        frozen = frozen[: len(frozen) // 2]  # something must be left to train
    names = {id(p): name for name, p in learner.named_parameters()}
    before = [p.detach().clone() for p in frozen]
    for parameter in frozen:
        parameter.requires_grad_(False)
    for phase in learner.training_plan().phases:
        for seed in range(2):
            updated(learner, phase, seed)
        moved = [
            names[id(p)] for p, old in zip(frozen, before, strict=True) if not torch.equal(p, old)
        ]
        assert not moved, (
            f"the update of phase {phase.name!r} moves frozen parameters: {moved[:3]} have "
            "requires_grad=False and changed. Leave out of the update what takes no gradient"
        )


def check_updates_are_reproducible(learner: Learner) -> None:
    """The same seed of `rand` gives the same update of every phase."""
    for phase in learner.training_plan().phases:
        twin = copy.deepcopy(learner)
        first, second = updated(learner, phase), updated(twin, phase)
        for name, value in first.metrics.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(second.metrics[name])), (
                f"phase {phase.name!r}: metric {name!r} differs between two runs with the same seed"
            )
        _same(learner, twin, f"between two runs of phase {phase.name!r} with the same seed")


def _same(learner: Learner, twin: Learner, when: str) -> None:
    for (name, left), right in zip(
        learner.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), f"{name} differs {when}"


def check_training_state(learner: Learner) -> None:
    """`state_dict` and `training_state` hold all that the next update of any phase depends on."""
    for phase in learner.training_plan().phases:
        twin = copy.deepcopy(learner)
        for seed in range(2):
            updated(learner, phase, seed)
        twin.load_state_dict(learner.state_dict())
        twin.load_training_state({k: v.clone() for k, v in learner.training_state().items()})
        updated(learner, phase, 5)
        updated(twin, phase, 5)
        _same(learner, twin, f"after resuming in phase {phase.name!r}")


def check_replay_writes(learner: Learner) -> None:
    """Values to write back belong to `replay_spec` and have its shapes."""
    for phase in learner.training_plan().phases:
        batch = phase_batch(learner, phase)
        result = learner.update(batch, phase.name, rand=Rand.seeded(0))
        for key, value in result.replay_writes.items():
            assert key in learner.replay_spec, f"writes {key!r}, which is not in replay_spec"
            expected = (ROWS, batch.length - batch.context, *learner.replay_spec[key].shape)
            assert tuple(value.shape) == expected, f"{key!r}: {tuple(value.shape)} != {expected}"


def _act(agent: Agent, mode: Mode, rows: int = ROWS, obs_seed: int = 1) -> Tensor:
    return _acted(agent, mode, rows, obs_seed)[0]


def _acted(agent: Agent, mode: Mode, rows: int = ROWS, obs_seed: int = 1) -> tuple[Tensor, State]:
    obs = acting_obs(agent, rows, obs_seed)
    first = torch.ones(rows, dtype=torch.bool)
    with torch.no_grad():
        payload, state = agent.act(obs, None, first, mode, rand=Rand.seeded(0))
    payload.validate(api_version="v3")
    action = payload.primary()
    assert action is not None, "act returned a payload without data"
    return action, state


def check_acts(learner: Learner) -> None:
    """Actions have the space's shape and bounds in both modes; the same `rand` gives the same."""
    assert isinstance(learner, Agent)
    spec = next(iter(learner.action_spec.values()))
    modes: tuple[Mode, Mode] = ("train", "eval")
    for mode in modes:
        action = _act(learner, mode)
        assert tuple(action.shape) == (ROWS, *spec.shape), f"{mode}: {tuple(action.shape)}"
        if spec.discrete:
            assert not action.is_floating_point(), "discrete actions must be integer indices"
            limit = torch.tensor(spec.counts).reshape(spec.shape)
            inside = bool(((action >= 0) & (action < limit)).all())
        else:
            inside = bool((action.abs() <= 1).all())
        assert inside, f"{mode}: actions out of bounds: {action.tolist()}"
        assert torch.equal(action, _act(learner, mode)), f"{mode}: same seed, other action"


@torch.no_grad()
def check_acts_on_observations(learner: Learner) -> None:
    """Other observations lead to other actions, or to a State that differs for later ones.

    All weights are randomised; one choice among few may well be the same for all observations.
    """
    assert isinstance(learner, Agent)
    randomise(learner, gain=5.0)  # choices that are sampled have to differ clearly
    action, state = _acted(learner, "eval", rows=8, obs_seed=1)
    for obs_seed in range(2, 10):
        other, after = _acted(learner, "eval", rows=8, obs_seed=obs_seed)
        same = all(torch.equal(value, after[key]) for key, value in state.tensors.items())
        if not same or not torch.equal(action, other):
            return
    raise AssertionError(
        "the agent ignores its observation: 9 different ones led to the same actions "
        f"({action.flatten()[:4].tolist()} ...). Pass `obs` on to what chooses the action"
    )


@torch.no_grad()
def check_acting_resets(learner: Learner) -> None:
    """`is_first` makes its row forget the acting State, and leaves the other rows alone."""
    assert isinstance(learner, Agent)
    obs = [acting_obs(learner, seed=s) for s in (1, 2)]
    all_first = torch.ones(ROWS, dtype=torch.bool)

    def after(rows_first: Tensor, state: State | None) -> State:
        return learner.act(obs[1], state, rows_first, "eval", rand=Rand.seeded(3))[1]

    _, state = learner.act(obs[0], None, all_first, "eval", rand=Rand.seeded(0))
    going_on = after(torch.zeros(ROWS, dtype=torch.bool), state)
    mixed = after(torch.tensor([True, False, False]), state)
    fresh = after(all_first, None)
    close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
    for key, value in mixed.tensors.items():
        torch.testing.assert_close(
            value[1:], going_on[key][1:], **close, msg=f"{key}: a reset changed other rows"
        )
        torch.testing.assert_close(
            value[:1], fresh[key][:1], **close, msg=f"{key}: a reset row kept its history"
        )


def check_replay_values(learner: Learner) -> None:
    """`replay_values` gives exactly the columns of `replay_spec`."""
    assert isinstance(learner, Agent)
    obs = acting_obs(learner)
    with torch.no_grad():
        first = torch.ones(ROWS, dtype=torch.bool)
        _, state = learner.act(obs, None, first, "train", rand=Rand.seeded(0))
    values = learner.replay_values(state)
    assert values.keys() == learner.replay_spec.keys(), f"{set(values)} are not replay_spec"
    for key, spec in learner.replay_spec.items():
        assert tuple(values[key].shape) == (ROWS, *spec.shape), f"{key!r} has another shape"


def check_rollout_slot_takes_effect(learner: Learner) -> None:
    """Where the rollout slot is declared replaceable, learning goes through it."""
    model = learner.world_model
    if "rollout_executor" not in model.composable_support:
        return
    assert model.rollout_executor is not None, (
        "declares slot 'rollout_executor' but leaves it empty"
    )
    for phase in learner.training_plan().phases:
        twin, other = copy.deepcopy(learner), copy.deepcopy(learner)
        slot: Any = other.world_model.rollout_executor
        other.world_model.rollout_executor = PerturbedSlot(slot)  # type: ignore[assignment]
        plain, changed = updated(twin, phase).metrics, updated(other, phase).metrics
        for name, value in plain.items():
            if not torch.allclose(torch.as_tensor(value), torch.as_tensor(changed[name])):
                return
    raise AssertionError("replacing 'rollout_executor' does not change the update of any phase")


CHECKS: tuple[Callable[[Learner], None], ...] = (
    check_training_plan,
    check_acts,
    check_acts_on_observations,
    check_acting_resets,
    check_act_refuses_wrong_inputs,
    check_replay_values,
    check_update,
    check_loss_parts,
    check_bf16_agrees,
    check_frozen_parts_stay,
    check_updates_are_reproducible,
    check_training_state,
    check_replay_writes,
    check_rollout_slot_takes_effect,
)
_ACTING = frozenset(
    {check_acts, check_acts_on_observations, check_acting_resets, check_replay_values}
)
