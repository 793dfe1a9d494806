"""The one time convention, walked along one known episode."""

from __future__ import annotations

import pytest
import torch

from worldflux.columns import FLAGS, step_columns
from worldflux.core.batch import Batch
from worldflux.errors import ContractError
from worldflux.specs import TensorSpec
from worldflux.testing import random_batch
from worldflux.testing.batches import random_steps


def two_episodes() -> Batch:
    """Observations 0,1,2 (terminal) then 10,11: rewards and actions tell where they belong."""
    return Batch(
        obs={"state": torch.tensor([[0.0, 1.0, 2.0, 10.0, 11.0]])[..., None]},
        action=torch.tensor([[5, 6, 0, 7, 8]]),
        reward=torch.tensor([[0.0, 1.0, 2.0, 0.0, 11.0]]),
        is_first=torch.tensor([[True, False, False, True, False]]),
        is_last=torch.tensor([[False, False, True, False, False]]),
        is_terminal=torch.tensor([[False, False, True, False, False]]),
    )


def test_transitions_pair_an_action_with_what_it_led_to():
    pairs = two_episodes().transitions()
    assert pairs.valid.tolist() == [[True, True, False, True]]
    kept = pairs.valid[0]
    assert pairs.obs["state"][0, kept, 0].tolist() == [0, 1, 10]
    assert pairs.action[0, kept].tolist() == [5, 6, 7]
    assert pairs.next_reward[0, kept].tolist() == [1, 2, 11]
    assert pairs.next_obs["state"][0, kept, 0].tolist() == [1, 2, 11]
    assert pairs.next_terminal[0, kept].tolist() == [False, True, False]


def test_padding_makes_pairs_invalid():
    batch = two_episodes()
    batch.mask = torch.tensor([[True, True, True, True, False]])
    assert batch.transitions().valid.tolist() == [[True, True, False, False]]


def test_map_and_to_reach_every_tensor():
    batch = two_episodes()
    batch.stored = {"deter": torch.zeros(1, 1, 4)}
    doubled = batch.map(lambda tensor: torch.cat([tensor, tensor]))
    assert doubled.batch_size == 2 and doubled.length == 5
    assert doubled.stored["deter"].shape == (2, 1, 4)
    assert batch.to("meta").obs["state"].device.type == "meta"


def broken(**changes) -> Batch:
    batch = two_episodes()
    for name, value in changes.items():
        setattr(batch, name, value)
    return batch


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (broken(is_first=torch.zeros(5)), r"is_first has shape \(5,\), expected \(B, T\)"),
        (broken(reward=torch.zeros(1, 4)), r"reward has shape \(1, 4\)"),
        (broken(extra={"label": torch.zeros(1, 4)}), r"extra\['label'\] has shape \(1, 4\)"),
        (broken(action=torch.zeros(1, 4)), r"action has shape \(1, 4\)"),
        (broken(obs={"state": torch.zeros(5, 1, 1)}), r"obs\['state'\] has shape"),
        (broken(context=5), "context is 5, expected 0 to 4"),
        (broken(is_last=torch.zeros(1, 5, dtype=torch.bool)), "is_terminal without is_last"),
        (broken(reward=torch.ones(1, 5)), "reward at is_first"),
    ],
)
def test_validate_names_what_breaks_the_convention(batch, text):
    with pytest.raises(ContractError, match=text):
        batch.validate()


def test_random_batches_keep_the_convention():
    obs = {"image": TensorSpec((3, 4, 4), "uint8"), "state": TensorSpec((2,))}
    batch = random_batch(obs, {"action": TensorSpec((2,), "int64", n=(3, 4))}, 3, 7)
    batch.validate()
    assert batch.is_terminal.any() and batch.is_first[:, 1:].any()
    assert batch.action.shape == (3, 7, 2)
    assert batch.action[..., 0].max() < 3


def test_a_batch_of_images_has_neither_actions_nor_rewards():
    columns = step_columns(
        {"image": TensorSpec((1, 2, 2), "uint8")}, extra={"label": TensorSpec((), "int64", n=3)}
    )
    assert list(columns) == ["obs.image", *FLAGS, "extra.label"]
    batch = random_steps(columns, 4, 1)
    batch.validate()
    assert (batch.batch_size, batch.length) == (4, 1)
    assert batch.action is None and batch.reward is None
    assert batch.transitions().action is None and batch.transitions().next_reward is None
    for owner, name in ((batch, "action"), (batch.transitions(), "next_reward")):
        with pytest.raises(ContractError, match="has no (action|reward), which the learner needs"):
            owner.require(name)
    found = batch.conditions(0)
    assert found is not None
    found.validate(api_version="v3")
    assert found.extras["wf.data.label"].tolist() == batch.extra["label"][:, 0].tolist()
    assert two_episodes().conditions() is None


def test_a_reward_may_come_without_an_action_and_the_other_way_round():
    obs, action = {"state": TensorSpec((2,))}, TensorSpec((1,))
    assert "reward" in step_columns(obs, reward=True) and "action" not in step_columns(obs)
    assert "reward" not in step_columns(obs, action, reward=False)
    with pytest.raises(ContractError, match="the condition wf.data.a b, so its name takes"):
        step_columns(obs, extra={"a b": TensorSpec(())})


def test_without_context_only_the_compared_steps_are_left():
    batch = two_episodes()
    batch.context, batch.stored = 2, {"deter": torch.zeros(1, 2, 4)}
    batch.index, batch.extra = torch.arange(5)[None], {"label": torch.arange(5)[None]}
    rest = batch.without_context()
    rest.validate()
    assert (rest.context, rest.length, rest.stored) == (0, 3, {})
    assert rest.obs["state"].flatten().tolist() == [2, 10, 11]
    assert rest.index is not None and rest.index.tolist() == [[2, 3, 4]]
    assert rest.action is not None and rest.action.tolist() == [[0, 7, 8]]
    assert rest.extra["label"].tolist() == [[2, 3, 4]]
    assert batch.length == 5
