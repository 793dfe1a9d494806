"""One known episode as rows, random prefill, and the weights collection acts on."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from worldflux.core.rand import Rand
from worldflux.specs import TensorSpec
from worldflux.testing.dummies import TinyAgent, TinyConfig
from worldflux_train.collector import Chunk, Collector, random_action
from worldflux_train.evaluation import evaluate
from worldflux_train.stepping import Stepper


class Count(gymnasium.Env[Any, Any]):
    """Observes (episode, step); pays 10 * step + action; lasts 3 steps, then ends or is cut."""

    observation_space = gymnasium.spaces.Dict(
        {"state": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)}
    )
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, cut: bool = False, first_length: int = 3) -> None:
        self.episode, self.step_number, self.cut = -1, 0, cut
        self.first_length = first_length

    def reset(self, **kwargs: Any) -> Any:
        self.episode, self.step_number = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        self.step_number += 1
        over = self.step_number == (self.first_length if self.episode == 0 else 3)
        reward = 10.0 * self.step_number + float(action)
        return self._obs(), reward, over and not self.cut, over and self.cut, {}

    def _obs(self) -> dict[str, np.ndarray]:
        return {"state": np.array([self.episode, self.step_number], np.float32)}


def _stepper(*envs: Any) -> Stepper:
    mode = gymnasium.vector.AutoresetMode.NEXT_STEP
    vector = gymnasium.vector.SyncVectorEnv(
        [lambda env=env: env for env in envs], autoreset_mode=mode
    )
    return Stepper(vector, list(range(len(envs))))


def _collector(stepper: Stepper, seed: int = 0) -> Collector:
    torch.manual_seed(0)
    agent = TinyAgent(TinyConfig(), stepper.obs_spec, stepper.action_spec)
    return Collector(agent, stepper, Rand.seeded(seed), torch.device("cpu"))


def _columns(chunk: Chunk) -> dict[str, np.ndarray]:
    return {key: np.stack([np.asarray(row[key]) for row in chunk.rows], 1) for key in chunk.rows[0]}


@pytest.mark.parametrize(
    ("advice", "cut", "expected"),
    [("Set episodic=true.", False, 1), ("Set episodic=true.", True, 0), ("", False, 0)],
)
def test_an_agent_that_ignores_terminations_is_warned_about_once(
    advice: str, cut: bool, expected: int
) -> None:
    collector = _collector(_stepper(Count(cut)))
    collector.agent.ignores_terminations = advice
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for step in (0, 7, 14):
            collector.collect(9, step)  # two episodes or three in each
    text = "An episode has terminated, which TinyAgent ignores. Set episodic=true."
    assert [str(warning.message) for warning in found] == [text] * expected


@pytest.mark.parametrize("cut", [False, True])
def test_rows_of_a_known_episode(cut: bool) -> None:
    chunk = _collector(_stepper(Count(cut))).collect(9, step=0)
    rows = _columns(chunk)
    # Three actions, the last observation as a row of its own, then the next episode's first.
    assert rows["obs.state"][0].tolist() == [
        [0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [1, 3], [2, 0]
    ]  # fmt: skip
    assert rows["is_first"][0].tolist() == [i in (0, 4, 8) for i in range(9)]
    assert rows["is_last"][0].tolist() == [i in (3, 7) for i in range(9)]
    assert rows["is_terminal"][0].tolist() == [i in (3, 7) and not cut for i in range(9)]
    action, reward = rows["action"][0], rows["reward"][0]
    assert reward[[0, 4, 8]].tolist() == [0, 0, 0]
    for t in (1, 2, 3):  # a reward arrives with the observation its action led to
        assert reward[t] == 10 * t + action[t - 1]
    assert chunk.steps == 7  # 3 + 3 + 1: neither last rows nor resets count
    assert [episode["episode/length"] for episode in chunk.episodes] == [3, 3]
    assert chunk.episodes[0]["episode/return"] == reward[1:4].sum()
    assert chunk.episodes[0]["step"] == 3


def test_stored_values_are_those_of_the_acting_state() -> None:
    collector = _collector(_stepper(Count(), Count()))
    chunk = collector.collect(3, step=0)
    assert collector.state is not None
    assert torch.equal(torch.as_tensor(chunk.rows[-1]["stored.deter"]), collector.state["deter"])


def test_prefill_acts_at_random_and_the_state_knows() -> None:
    collector = _collector(_stepper(*[Count() for _ in range(8)]))
    with torch.no_grad():
        collector.agent.policy.bias.copy_(torch.tensor([100.0, -100.0]))  # always 0 on its own
    chunk = collector.collect(2, step=0, prefill=16)
    actions = torch.stack([torch.as_tensor(row["action"]) for row in chunk.rows])
    assert actions.float().mean() not in (0, 1)
    assert collector.state is not None
    assert torch.equal(collector.state["action"], actions[-1])
    later = collector.collect(2, step=16, prefill=16)
    assert all((torch.as_tensor(row["action"]) == 0).all() for row in later.rows)


def test_random_actions_cover_their_space() -> None:
    rand = Rand.seeded(0)
    box = random_action(TensorSpec((3,)), 500, rand)
    assert box.shape == (500, 3)
    assert -1 <= box.min() < -0.9 < 0.9 < box.max() <= 1
    many = random_action(TensorSpec((2,), "int64", n=(2, 5)), 500, rand)
    assert many.shape == (500, 2)
    assert [set(many[:, i].tolist()) for i in (0, 1)] == [{0, 1}, set(range(5))]
    assert random_action(TensorSpec((), "int64", n=3), 4, rand).shape == (4,)


def test_a_chunk_is_a_message_that_refers_to_nothing() -> None:
    collector = _collector(_stepper(Count(), Count()))
    collector.follow(collector.agent.state_dict(), version=7)
    chunk = collector.collect(2, step=0)
    assert (chunk.lanes, chunk.version) == ((0, 1), 7)
    before = {key: value.copy() for key, value in _columns(chunk).items()}
    collector.collect(5, step=2)
    for parameter in collector.agent.parameters():
        parameter.zero_()
    for key, value in _columns(chunk).items():
        assert (value == before[key]).all(), key
    assert all(v.device.type == "cpu" for v in chunk.rows[0].values() if torch.is_tensor(v))


def test_borrowed_weights_are_given_back() -> None:
    collector = _collector(_stepper(Count()))
    before = {name: value.clone() for name, value in collector.agent.state_dict().items()}
    other = {name: value + 1 for name, value in before.items() if name.startswith("policy")}
    with collector.borrowed(other) as agent:
        assert torch.equal(agent.policy.bias, before["policy.bias"] + 1)  # type: ignore[attr-defined]
    for name, value in collector.agent.state_dict().items():
        assert torch.equal(value, before[name])


def test_follow_copies_and_does_not_share() -> None:
    one, other = _collector(_stepper(Count())), _collector(_stepper(Count()))
    with torch.no_grad():
        for parameter in one.agent.parameters():
            parameter.add_(1)
    other.follow(one.agent.state_dict(), version=1)
    for ours, theirs in zip(other.agent.parameters(), one.agent.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()


def test_every_environment_plays_its_share_of_an_evaluation() -> None:
    agent = _collector(_stepper(Count())).agent
    mode = gymnasium.vector.AutoresetMode.NEXT_STEP

    def make(count: int) -> Any:  # the first environment's episodes are the shortest
        lengths = [1, *[3] * (count - 1)]
        makes = [lambda length=length: Count(first_length=length) for length in lengths]
        return gymnasium.vector.SyncVectorEnv(makes, autoreset_mode=mode)

    found = evaluate(agent, make, 3, seed=0, device=torch.device("cpu"))
    assert found.lengths == [1, 3, 3]
    assert found.row()["eval/episodes"] == 3
    assert evaluate(agent, make, 3, seed=0, device=torch.device("cpu")) == found
