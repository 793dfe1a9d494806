"""Every agent check fails on an agent that is broken in exactly the way it looks for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from worldflux.core.output import LossOutput, UpdateResult, metrics
from worldflux.core.rand import Rand
from worldflux.core.schedules import Schedule
from worldflux.core.state import State
from worldflux.testing import check_agent
from worldflux.testing.agent import CHECKS, check_training_state
from worldflux.testing.dummies import TinyAgent, TinyConfig, TinyModel
from worldflux.testing.family import SPACES
from worldflux.testing.loss_parts import check_loss_parts
from worldflux.testing.mixed_precision import check_bf16_agrees
from worldflux.testing.phases import check_update
from worldflux.testing.running import run_checks
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


class PastTheSeam(TinyAgent):
    entries = {}

    def act(self, obs, state, is_first, mode="eval", *, rand=None):
        return TinyAgent.act.__wrapped__(self, obs, state, is_first, mode, rand=rand)


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


class TwoPhases(TinyAgent):
    """The model and the policy learn in phases of their own, each with its optimiser."""

    model = TinyModel
    names = {"model": ("model",), "behavior": ("policy",)}

    def __init__(self, *args):
        super().__init__(*args)
        self.world_model = self.model(*args)
        parts = {"model": self.world_model, "policy": self.policy}
        self.optimizers = {
            name: torch.optim.Adam(part.parameters(), lr=3e-3) for name, part in parts.items()
        }

    def training_plan(self):
        (phase,) = super().training_plan().phases
        return TrainingPlan(
            [replace(phase, name=name, trains=trains) for name, trains in self.names.items()]
        )

    def update(self, batch, phase, *, rand=None):
        return UpdateResult(metrics(self.first(batch, phase, rand or Rand())))

    def first(self, batch, phase, rand):
        if phase == "behavior":
            start = self.world_model.observe_sequence(batch, rand=rand.under("start/")).detach()
            return self.step("policy", lambda b, r: (self._policy_loss(start, r), {}), batch, rand)
        return self.step(
            "model", lambda b, r: self.world_model.loss(b, self.part(phase), rand=r), batch, rand
        )

    def part(self, phase):
        return None


class MovesTheModelToo(TwoPhases):
    """Its second phase also decays a part of the model."""

    def update(self, batch, phase, **options):
        result = super().update(batch, phase, **options)
        if phase == "behavior":
            with torch.no_grad():
                self.world_model.decoder_module.heads["reward"].weight.mul_(0.999)
        return result


class MovesABuffer(TwoPhases):
    """A count of updates that no phase names."""

    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("updates", torch.zeros(()))

    def update(self, *args, **options):
        self.updates += 1
        return super().update(*args, **options)


class FollowsAsItSays(MovesABuffer):
    def training_plan(self):
        phases = [replace(phase, follows=("updates",)) for phase in super().training_plan().phases]
        return TrainingPlan(phases)


class FollowsNothing(TwoPhases):
    def training_plan(self):
        phases = [replace(phase, follows=("slow",)) for phase in super().training_plan().phases]
        return TrainingPlan(phases)


class PromisesToTrainMore(TwoPhases):
    names = {"model": ("model", "policy"), "behavior": ("policy",)}


class StepsTwiceUnderASchedule(TwoPhases):
    """Its learning rate would be at its end after half of the run."""

    def __init__(self, *args):
        super().__init__(*args)
        self.schedules["policy.lr"] = Schedule("cosine", start=1e-3, end=1e-4)
        self.total = {"policy": 100}

    def first(self, batch, phase, rand):
        if phase == "behavior":
            super().first(batch, phase, rand)
        return super().first(batch, phase, rand)


class TrainsNobody(TwoPhases):
    names = {"model": ("modle",), "behavior": ("policy",)}


class StaleWeights(TwoPhases):
    """Both steps of an update under one autocast context, with the optimisers stepped by hand."""

    names = {"both": ("model", "policy")}

    def update(self, batch, phase, *, rand=None):
        rand = rand or Rand()
        with self.autocast():
            first = self.world_model.loss(batch, rand=rand.under("model/")).loss
            self.stepped("model", first)
            start = self.world_model.observe_sequence(batch, rand=rand.under("start/")).detach()
            second = self._policy_loss(start, rand)
            reward = self.world_model.decode(start.flat()).predictions["reward"].mean()
            self.stepped("policy", second)
        return UpdateResult({"loss/model": first.detach(), "reward": reward.detach()})

    def stepped(self, name, loss):
        self.optimizers[name].zero_grad()
        loss.backward(retain_graph=True)
        self.optimizers[name].step()


class MixesTypes(TinyModel):
    """Puts what autocast computed into a tensor of another type."""

    def loss(self, batch, part=None, *, rand=None):
        output = super().loss(batch, rand=rand)
        embed = self.observation_encoder.net(batch.obs["state"].flatten(0, 1))
        torch.zeros_like(embed, dtype=torch.float32).index_put_((torch.arange(len(embed)),), embed)
        return output


class FailsUnderBf16(TwoPhases):
    model = MixesTypes


class FreshWeights(StaleWeights):
    """The same, right: autocast's copies are dropped after each step."""

    def stepped(self, name, loss):
        super().stepped(name, loss)
        torch.clear_autocast_cache()


class InParts(TinyModel):
    """Trains its dynamics in a phase of its own."""

    def loss(self, batch, part=None, *, rand=None):
        output = super().loss(batch, rand=rand)
        terms = {
            name: term
            for name, term in output.components.items()
            if part is None or (name == "dynamics") == (part == "dynamics")
        }
        return LossOutput(self.total(terms, part), terms)

    def total(self, terms, part):
        return sum(terms.values())


class PartsThatDoNotSum(InParts):
    def total(self, terms, part):
        return sum(terms.values()) / (1 if part is None else 2)


class PhasesOfTheModel(TwoPhases):
    model = InParts
    names = {"heads": ("model",), "dynamics": ("model",), "behavior": ("policy",)}

    def part(self, phase):
        return phase


class PhasesThatDoNotSum(PhasesOfTheModel):
    model = PartsThatDoNotSum


BROKEN = {
    CONSTRUCTOR: [SeedsInConstructor],
    "check_acts_on_observations": [BlindAgent],
    "check_act_refuses_wrong_inputs": [PastTheSeam],
    "check_frozen_parts_stay": [MovesFrozenParts],
    "check_training_plan": [RestlessPlan],
    "check_acts": [OutOfBounds],
    "check_acting_resets": [NeverForgets],
    "check_replay_values": [OtherColumns],
    "check_update": [
        LearnsNothing,
        NotANumber,
        IdleSecondPhase,
        MovesTheModelToo,
        MovesABuffer,
        FollowsNothing,
        PromisesToTrainMore,
        TrainsNobody,
        StepsTwiceUnderASchedule,
    ],
    "check_loss_parts": [PhasesThatDoNotSum],
    "check_bf16_agrees": [StaleWeights, FailsUnderBf16],
    "check_updates_are_reproducible": [IgnoresItsGenerator],
    "check_training_state": [ForgetsItsOptimizer],
    "check_replay_writes": [WritesOtherShapes],
    "check_rollout_slot_takes_effect": [ImaginesPastTheSlot],
}


def test_a_sound_agent_passes_every_check():
    for _, obs, action in SPACES:
        ran = check_agent(lambda obs=obs, action=action: TinyAgent(TinyConfig(), obs, action))
        assert ran == [CONSTRUCTOR, *(check.__name__ for check in CHECKS)]


@pytest.mark.parametrize("cls", [TwoPhases, FollowsAsItSays, FreshWeights, PhasesOfTheModel])
def test_phases_that_move_what_they_name_pass(cls):
    def make():
        return cls(TinyConfig(), OBS, ACTION)

    for check in (check_update, check_loss_parts, check_bf16_agrees, check_training_state):
        torch.manual_seed(0)
        check(make())


@pytest.mark.parametrize(
    ("check", "cls"), [(name, cls) for name, classes in BROKEN.items() for cls in classes]
)
def test_each_check_catches_its_fault(check, cls):
    only = [found for found in CHECKS if found.__name__ == check]
    with pytest.raises(AssertionError, match=check):
        run_checks(lambda: cls(TinyConfig(), OBS, ACTION), only, lambda *_: True)


@pytest.mark.parametrize(
    ("cls", "sentence"),
    [
        (
            MovesTheModelToo,
            r"'behavior' moves 'world_model.decoder_module.heads.reward.weight' \(a p",
        ),
        (MovesABuffer, r"phase 'model' moves 'updates' \(a buffer, one of 1\), .* in `follows`"),
        (FollowsNothing, "has 'slow' in `follows`, but no name in state_dict begins so"),
        (PromisesToTrainMore, "phase 'model' says that it trains 'policy', but 3 updates"),
        (TrainsNobody, "trains 'modle', which is no optimiser. Did you mean 'model'?"),
        (FailsUnderBf16, "phase 'model' does not run under bf16 .* dtypes match"),
        (PhasesThatDoNotSum, r"loss\(batch\) is [\d.]+, but its parts sum to [\d.]+ \(heads: "),
    ],
)
def test_the_mistake_is_named(cls, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_agent(lambda: cls(TinyConfig(), OBS, ACTION))


def test_every_check_has_a_broken_agent():
    assert {CONSTRUCTOR, *(check.__name__ for check in CHECKS)} == set(BROKEN)


def test_the_tiny_agent_learns():
    """The loss on a fixed batch falls: the dummy is a real learner."""
    from worldflux.testing.phases import phase_batch

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
