"""Trajectory: what must fit together, and what can be read off it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from worldflux.core.state import State
from worldflux.core.trajectory import Trajectory
from worldflux.errors import CapabilityError, ContractError

T, B = 3, 2


def states(count: int = T + 1, B: int = B) -> list[State]:
    return [State({"deter": torch.full((B, 4), float(t))}) for t in range(count)]


def trajectory(**changes: Any) -> Trajectory:
    parts = {
        "states": states(),
        "actions": torch.zeros(T, B, 1),
        "rewards": torch.zeros(T, B),
        "values": torch.zeros(T + 1, B),
        "continues": torch.ones(T, B),
        "observations": {"image": torch.zeros(T + 1, B, 3)},
    }
    return Trajectory(**(parts | changes))


def test_length_horizon_and_batch_size():
    found = trajectory()
    assert len(found) == found.horizon == T
    assert found.batch_size == B


def test_the_predictions_are_optional():
    found = Trajectory(states(), torch.zeros(T, B, 1))
    assert found.rewards is found.values is found.continues is found.observations is None
    with pytest.raises(CapabilityError, match=r"no rewards: .* It has: states and actions alone\."):
        found.require("rewards")
    with pytest.raises(CapabilityError, match=r"no values: .* It has: rewards, continues\."):
        trajectory(values=None).require("values")


def test_a_prediction_that_is_there_is_given():
    found = trajectory()
    assert found.require("rewards") is found.rewards
    assert found.require("values") is found.values


def test_no_actions_is_one_state():
    assert len(Trajectory(states(1), torch.zeros(0, B, 1))) == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"states": states(T)},
            "Trajectory state/action mismatch: 3 actions .* 4 .*, got 3 states",
        ),
        ({"states": []}, "Trajectory state/action mismatch: .* got 0 states"),
        ({"actions": torch.zeros(T)}, r"Trajectory actions are \(T, B, ...\), got shape \(3,\)"),
        ({"rewards": torch.zeros(T + 1, B)}, "Rewards length 4 does not fit .* expected 3"),
        ({"rewards": torch.zeros(())}, "Rewards length 0"),
        ({"values": torch.zeros(T, B)}, "Values length 3 does not fit .* expected 4"),
        ({"continues": torch.zeros(T + 1, B)}, "Continues length 4 does not fit .* expected 3"),
        (
            {"actions": torch.zeros(T, 5, 1)},
            "Inconsistent batch size: .* has 2, but {'actions': 5}",
        ),
        ({"states": [*states(T), *states(1, B=7)]}, r"Inconsistent batch size: .*'states\[3\]': 7"),
        ({"rewards": torch.zeros(T, 1)}, "Inconsistent batch size: .*'rewards': 1"),
        ({"values": torch.zeros(T + 1)}, "Inconsistent batch size: .*'values': -1"),
        ({"continues": torch.zeros(T, 3)}, "Inconsistent batch size: .*'continues': 3"),
    ],
)
def test_what_does_not_fit_is_said_at_construction(changes: dict, text: str):
    with pytest.raises(ContractError, match=text):
        trajectory(**changes)


def test_to_tensor_stacks_over_time():
    stacked = trajectory().to_tensor("deter")
    assert stacked.shape == (T + 1, B, 4)
    assert stacked[:, 0, 0].tolist() == [0, 1, 2, 3]


def test_to_tensor_names_the_first_step_without_the_key():
    found = trajectory()
    found.states[2] = State({"other": torch.zeros(B, 1)})
    with pytest.raises(ContractError, match=r"states\[2\] .* no tensor 'deter'; it has: other"):
        found.to_tensor("deter")


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_to_moves_everything(device: str | torch.device):
    moved = trajectory().to(device)
    assert moved.observations is not None
    parts = [moved.actions, moved.rewards, moved.values, moved.continues]
    parts += [moved.observations["image"], *(state["deter"] for state in moved.states)]
    assert {part.device.type for part in parts if part is not None} == {"meta"}
    assert trajectory(rewards=None).to(device).rewards is None


def test_detach_cuts_everything_off():
    weight = torch.ones((), requires_grad=True)
    found = trajectory(
        states=[state.map(lambda t: t * weight) for state in states()],
        actions=torch.zeros(T, B, 1) * weight,
        rewards=torch.zeros(T, B) * weight,
    )
    cut = found.detach()
    assert found.actions.requires_grad
    assert not (cut.actions.requires_grad or cut.rewards.requires_grad)
    assert not any(state["deter"].requires_grad for state in cut.states)
