"""Every agent check fails on an agent that is broken in exactly the way it looks for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from worldflux.core.output import UpdateResult
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.testing import check_agent
from worldflux.testing.agent import CHECKS
from worldflux.testing.dummies import TinyAgent, TinyConfig
from worldflux.testing.family import SPACES
from worldflux.training import TrainingPlan

OBS, ACTION = SPACES[0][1:]
CONSTRUCTOR = "check_constructor_leaves_seeds_alone"


class RestlessPlan(TinyAgent):
    def training_plan(self):
        self.calls = getattr(self, "calls", 0) + 1
        plan = super().training_plan()
        object.__setattr__(plan, "prefill", self.calls)
        return plan


class OutOfBounds(TinyAgent):
    def act(self, *args, **kwargs):
        payload, state = super().act(*args, **kwargs)
        payload.tensor = payload.tensor * 3
        return payload, state


class NeverForgets(TinyAgent):
    def act(self, obs, state, is_first, mode="eval", **options):
        never = torch.zeros_like(is_first) if state is not None else is_first
        return super().act(obs, state, never, mode, **options)


class OtherColumns(TinyAgent):
    def replay_values(self, state):
        return {"deterministic": state["deter"]}


class LearnsNothing(TinyAgent):
    def update(self, *args, **kwargs):
        before = {name: value.clone() for name, value in self.state_dict().items()}
        result = super().update(*args, **kwargs)
        self.load_state_dict(before)
        return result


class IdleSecondPhase(TinyAgent):
    """Its second phase is in the plan and trains nothing."""

    def training_plan(self):
        (phase,) = super().training_plan().phases
        return TrainingPlan([phase, replace(phase, name="policy")], prefill=16)

    def update(self, batch, phase, **options):
        if phase == "policy":
            return UpdateResult({"loss/policy": torch.zeros(())})
        return super().update(batch, phase, **options)


class NotANumber(TinyAgent):
    def update(self, *args, **kwargs):
        result = super().update(*args, **kwargs)
        return type(result)({**result.metrics, "loss/nan": torch.tensor(float("nan"))})


class IgnoresItsGenerator(TinyAgent):
    def update(self, batch, phase, *, rand=None):
        return super().update(batch, phase, rand=None)


class ForgetsItsOptimizer(TinyAgent):
    def load_training_state(self, flat):
        return None


class WritesOtherShapes(TinyAgent):
    def update(self, *args, **kwargs):
        result = super().update(*args, **kwargs)
        return type(result)(result.metrics, {"deter": result.replay_writes["deter"][:, 1:]})


class ImaginesPastTheSlot(TinyAgent):
    """Imagines through a private copy of the executor."""

    def update(self, *args, **kwargs):
        model = self.world_model
        slot = model.rollout_executor
        model.rollout_executor = getattr(slot, "inner", slot)
        try:
            return super().update(*args, **kwargs)
        finally:
            model.rollout_executor = slot


class SeedsInConstructor(TinyAgent):
    def __init__(self, *args):
        super().__init__(*args)
        torch.manual_seed(7)


class BlindAgent(TinyAgent):
    def act(self, obs, *args, **kwargs):
        return super().act({key: value * 0 for key, value in obs.items()}, *args, **kwargs)


class MovesFrozenParts(TinyAgent):
    """Decays all weights by hand, whether they may be trained or not."""

    def update(self, *args, **kwargs):
        result = super().update(*args, **kwargs)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(0.999)
        return result


BROKEN = {
    CONSTRUCTOR: [SeedsInConstructor],
    "check_acts_on_observations": [BlindAgent],
    "check_frozen_parts_stay": [MovesFrozenParts],
    "check_training_plan": [RestlessPlan],
    "check_acts": [OutOfBounds],
    "check_acting_resets": [NeverForgets],
    "check_replay_values": [OtherColumns],
    "check_update": [LearnsNothing, NotANumber, IdleSecondPhase],
    "check_updates_are_reproducible": [IgnoresItsGenerator],
    "check_training_state": [ForgetsItsOptimizer],
    "check_replay_writes": [WritesOtherShapes],
    "check_rollout_slot_takes_effect": [ImaginesPastTheSlot],
}


def test_a_sound_agent_passes_every_check():
    for _, obs, action in SPACES:
        ran = check_agent(lambda obs=obs, action=action: TinyAgent(TinyConfig(), obs, action))
        assert ran == [CONSTRUCTOR, *(check.__name__ for check in CHECKS)]


@pytest.mark.parametrize(
    ("check", "cls"), [(name, cls) for name, classes in BROKEN.items() for cls in classes]
)
def test_each_check_catches_its_fault(check, cls):
    with pytest.raises(AssertionError, match=check):
        check_agent(lambda: cls(TinyConfig(), OBS, ACTION))


@pytest.mark.parametrize(
    ("cls", "sentence"),
    [
        (IdleSecondPhase, "phase 'policy' is idle: 3 updates changed none"),
        (SeedsInConstructor, "the constructor calls torch.manual_seed"),
        (BlindAgent, "the agent ignores its observation: 9 different ones"),
        (MovesFrozenParts, r"phase 'all' moves frozen parameters: .*observation_encoder"),
    ],
)
def test_the_mistake_is_named(cls, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_agent(lambda: cls(TinyConfig(), OBS, ACTION))


def test_every_check_has_a_broken_agent():
    assert {CONSTRUCTOR, *(check.__name__ for check in CHECKS)} == set(BROKEN)


def test_the_tiny_agent_learns():
    """The loss on a fixed batch falls: the dummy is a real learner."""
    from worldflux.testing.agent import phase_batch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        agent = TinyAgent(TinyConfig(), OBS, ACTION)
        batch = phase_batch(agent, agent.training_plan().phases[0])
        rand = Rand.seeded(0)
        losses = [
            float(agent.update(batch, "all", rand=rand).metrics["loss/state"]) for _ in range(60)
        ]
    assert losses[-1] < 0.8 * losses[0]


def test_a_state_is_only_tensors():
    assert isinstance(TinyAgent(TinyConfig(), OBS, ACTION).world_model.initial(2), State)
