"""Every conformance check fails on a model that is broken in exactly the way it looks for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from worldflux.core.state import State
from worldflux.errors import StorageError
from worldflux.specs import Capability, TensorSpec
from worldflux.testing import check_world_model
from worldflux.testing.conditions import check_conditions_matter
from worldflux.testing.dummies import TinyConfig, TinyDynamics, TinyModel
from worldflux.testing.family import SPACES
from worldflux.testing.inputs import check_inputs_matter
from worldflux.testing.line_world import LARGE_IMAGE
from worldflux.testing.running import run_checks
from worldflux.testing.world_model import CHECKS

OBS, ACTION = SPACES[0][1:]
CONSTRUCTOR = "check_constructor_leaves_seeds_alone"


class PastTheSeam(TinyModel):
    entries = {}

    def transition(self, state, action, *args, **options):
        return TinyModel.transition.__wrapped__(self, state, action, *args, **options)


class IgnoresArrays(TinyModel):
    entries = {}

    def encode(self, obs, *args, **options):
        if isinstance(obs, dict) and any(isinstance(value, np.ndarray) for value in obs.values()):
            obs = {key: torch.zeros(value.shape) for key, value in obs.items()}
        return super().encode(obs, *args, **options)


class NeedsData(TinyModel):
    def __init__(self, *args):
        super().__init__(*args)
        self.scale = torch.zeros(3).numpy().sum()


class NoStateSpec(TinyModel):
    def state_spec(self):
        return type(super().state_spec())()


class LosesAKey(TinyModel):
    def transition(self, *args, **kwargs):
        return State({"deter": super().transition(*args, **kwargs)["deter"]})


class WritesIntoItsState(TinyModel):
    def transition(self, state, *args, **kwargs):
        after = super().transition(state, *args, **kwargs)
        state["deter"].copy_(after["deter"])
        return after


class RolloutRepeatsActions(TinyModel):
    def rollout(self, initial_state, action_sequence, *args, **kwargs):
        frozen = action_sequence[:1].expand_as(action_sequence)
        return super().rollout(initial_state, frozen, *args, **kwargs)


class RolloutLooksAhead(TinyModel):
    """Rolls out with the actions shifted: correct one by one, acausal as a whole."""

    def rollout(self, initial_state, action_sequence, *args, **kwargs):
        later = torch.cat([action_sequence[1:], action_sequence[:1]])
        return super().rollout(initial_state, later, *args, **kwargs)


class IgnoresActions(TinyModel):
    def condition(self, action, conditions=None):
        return torch.zeros_like(super().condition(action, conditions))


def mixed(value):
    """One per cent of the other rows in each."""
    return value + 0.01 * value.mean(0)


class MixesRowsInEncoder(TinyModel):
    def encode(self, *args, **kwargs):
        state = super().encode(*args, **kwargs)
        return State({key: mixed(value) for key, value in state.tensors.items()})


class MixesRowsInDynamics(TinyModel):
    def transition(self, *args, **kwargs):
        state = super().transition(*args, **kwargs)
        return State({**state.tensors, "stoch": mixed(state["stoch"])})


class MixesRowsInDecoder(TinyModel):
    def decode(self, *args, **kwargs):
        output = super().decode(*args, **kwargs)
        if "reward" in output.predictions:
            output.predictions["reward"] = mixed(output.predictions["reward"])
        return output


class IgnoresHistory(TinyModel):
    def transition(self, state, *args, **kwargs):
        return super().transition(self.initial(state.batch_size), *args, **kwargs)


class BlindEncoder(TinyModel):
    def encode(self, obs, *args, **kwargs):
        return super().encode({key: value * 0 for key, value in obs.items()}, *args, **kwargs)


class ConstantContinue(TinyModel):
    """Advertises continue, and always says that it goes on."""

    def decode(self, *args, **kwargs):
        output = super().decode(*args, **kwargs)
        if "continue" in output.predictions:
            output.predictions["continue"] = torch.ones_like(output.predictions["continue"])
        return output


class BlindReward(TinyModel):
    """Its reward head sees zeros in the place of the State."""

    def decode(self, state, *args, **kwargs):
        output = super().decode(state, *args, **kwargs)
        if "reward" in output.predictions:
            nothing = State({key: value * 0 for key, value in state.tensors.items()})
            blind = super().decode(nothing, *args, **kwargs)
            output.predictions["reward"] = blind.predictions["reward"]
        return output


class SeedsInConstructor(TinyModel):
    def __init__(self, *args):
        torch.manual_seed(7)
        super().__init__(*args)


class LossCrossesEpisodes(TinyModel):
    """Carries its State from an episode into the next one."""

    def loss(self, batch, **options):
        never = torch.zeros_like(batch.is_first)
        never[:, 0] = True
        return super().loss(replace(batch, is_first=never), **options)


class LossNormalisesTheBatch(TinyModel):
    """Its loss depends on the batch as a whole, and it says so."""

    loss_spans_batch = True

    def loss(self, batch, **options):
        scaled = (batch.reward - batch.reward.mean()) / (batch.reward.std() + 1e-3)
        return super().loss(replace(batch, reward=scaled), **options)


class Dynamics(TinyDynamics):
    """A base for broken dynamics."""


class NeverResets(Dynamics):
    def observe(self, state, action, features, is_first, **options):
        return super().observe(state, action, features, torch.zeros_like(is_first), **options)


class ResetsEverything(Dynamics):
    def observe(self, state, action, features, is_first, **options):
        all_rows = is_first.any().expand_as(is_first)
        return super().observe(state, action, features, all_rows, **options)


class SequenceForgetsActions(Dynamics):
    def observe_sequence(self, state, action, features, is_first, **options):
        none = torch.zeros_like(action)
        return super().observe_sequence(state, none, features, is_first, **options)


class SequenceDrawsByOtherNames(Dynamics):
    def observe_sequence(self, *args, rand=None):
        return super().observe_sequence(*args, rand=rand and rand.under("sequence/"))


class UsesGlobalRandomness(Dynamics):
    def transition(self, state, action, *, deterministic=False, rand=None):
        return super().transition(state, action, deterministic=deterministic)


def with_dynamics(cls):
    class Model(TinyModel):
        def __init__(self, config, obs_spec, action_spec):
            super().__init__(config, obs_spec, action_spec)
            size = next(iter(action_spec.values())).size
            self.dynamics_model = cls(config.width, size)

    return Model


class LogitsForContinue(TinyModel):
    def decode(self, *args, **kwargs):
        output = super().decode(*args, **kwargs)
        if "continue" in output.predictions:
            output.predictions["continue"] = output.predictions["continue"] * 8 - 4
        return output


class DecodesEverything(TinyModel):
    def decode(self, state, conditions=None, *, keys=None):
        return super().decode(state, conditions)


class OtherAsync(TinyModel):
    async def async_rollout(self, state, actions, **options):
        return self.rollout(state, actions * 0, **options)


class PromisesValues(TinyModel):
    capabilities = TinyModel.capabilities | {Capability.VALUE_PRED}


class SupportsAnything(TinyModel):
    def require(self, capability, message=None):
        return None


class ScoresRelatively(TinyModel):
    def score(self, state, actions, conditions=None, *, rand=None):
        from worldflux.planning import default_score

        scores = default_score(self, state, actions, conditions, rand=rand)
        return scores - scores.mean(1, keepdim=True)


class ForgetsAHead(TinyModel):
    def loss(self, batch, **options):
        output = super().loss(batch, **options)
        parts = {k: v for k, v in output.components.items() if k != "reward"}
        output.loss, output.components = sum(parts.values()), parts
        return output


class LossBypassesConditioner(TinyModel):
    """Trains through a private copy of the conditioner: a replaced slot changes nothing."""

    def __init__(self, *args):
        super().__init__(*args)
        object.__setattr__(self, "private", self.action_conditioner)

    def loss(self, batch, **options):
        slot, self.action_conditioner = self.action_conditioner, self.private
        try:
            return super().loss(batch, **options)
        finally:
            self.action_conditioner = slot


class HidesAWeight(TinyModel):
    def state_dict(self, *args, **kwargs):
        full = super().state_dict(*args, **kwargs)
        return {name: value for name, value in full.items() if "prior" not in name}


class KeepsACacheInTheModule(TinyModel):
    """Each step also depends on the steps made before it."""

    def transition(self, *args, **kwargs):
        state = super().transition(*args, **kwargs)
        deter = state["deter"] + 0.1 * getattr(self, "last", 0.0)
        self.last = deter.detach()
        return State({**state.tensors, "deter": deter})


class SeesTheFuture(TinyModel):
    """Encodes the observation of one step later with each step."""

    def observe_sequence(self, batch, start=None, *, rand=None):
        later = {key: torch.cat([x[:, 1:], x[:, -1:]], 1) for key, x in batch.obs.items()}
        return super().observe_sequence(replace(batch, obs=later), start, rand=rand)


class IgnoresLabels(TinyModel):
    """Says that it takes labels, and does not look at them."""

    @property
    def condition_spec(self):
        return {"label": TensorSpec((), "int64", n=3)}


BROKEN = {
    CONSTRUCTOR: [SeedsInConstructor],
    "check_builds_on_meta": [NeedsData],
    "check_state_contract": [NoStateSpec],
    "check_transition_keeps_shapes": [LosesAKey],
    "check_transition_leaves_its_state_alone": [WritesIntoItsState, KeepsACacheInTheModule],
    "check_sequence_is_causal": [SeesTheFuture],
    "check_rollout_equals_steps": [RolloutRepeatsActions],
    "check_rows_are_independent": [
        MixesRowsInEncoder,
        MixesRowsInDynamics,
        MixesRowsInDecoder,
    ],
    "check_inputs_matter": [
        IgnoresActions,
        IgnoresHistory,
        BlindEncoder,
        BlindReward,
        ConstantContinue,
    ],
    "check_loss_respects_episodes": [LossCrossesEpisodes],
    "check_refuses_wrong_inputs": [PastTheSeam],
    "check_takes_arrays": [IgnoresArrays],
    "check_reset_touches_only_its_rows": [
        with_dynamics(NeverResets),
        with_dynamics(ResetsEverything),
    ],
    "check_sequence_equals_steps": [
        with_dynamics(SequenceForgetsActions),
        with_dynamics(SequenceDrawsByOtherNames),
    ],
    "check_decode": [LogitsForContinue, DecodesEverything],
    "check_generators_decide": [with_dynamics(UsesGlobalRandomness)],
    "check_async_twins": [OtherAsync],
    "check_capabilities": [PromisesValues, SupportsAnything],
    "check_score": [ScoresRelatively],
    "check_loss_trains_everything": [ForgetsAHead],
    "check_slots_take_effect": [LossBypassesConditioner],
    "check_conditions_matter": [IgnoresLabels],
}


def test_a_sound_model_passes_every_check():
    for obs, action in ((OBS, ACTION), SPACES[1][1:], (LARGE_IMAGE, ACTION)):
        ran = check_world_model(lambda obs=obs, action=action: TinyModel(TinyConfig(), obs, action))
        needed = [check.__name__ for check in CHECKS if check is not check_conditions_matter]
        assert ran == [CONSTRUCTOR, *needed], "it takes no conditions, all others apply"


@pytest.mark.parametrize(
    ("check", "cls"), [(name, cls) for name, classes in BROKEN.items() for cls in classes]
)
def test_each_check_catches_its_fault(check, cls):
    only = [found for found in CHECKS if found.__name__ == check]
    with pytest.raises(AssertionError, match=check):
        run_checks(lambda: cls(TinyConfig(), OBS, ACTION), only, lambda *_: True)


def test_a_look_ahead_rollout_is_caught():
    with pytest.raises(AssertionError, match="check_rollout_(equals_steps|is_causal)"):
        check_world_model(lambda: RolloutLooksAhead(TinyConfig(), OBS, ACTION))


def test_a_lost_weight_is_caught():
    with pytest.raises((AssertionError, StorageError, RuntimeError), match=r"prior"):
        check_world_model(lambda: HidesAWeight(TinyConfig(), OBS, ACTION))


def test_every_check_has_a_broken_model():
    names = {check.__name__ for check in CHECKS} - {"check_pretrained_round_trip"}
    # a causal rollout that ignores its actions is what check_rollout_equals_steps refuses too
    assert names | {CONSTRUCTOR} == set(BROKEN) | {"check_rollout_is_causal"}


@pytest.mark.parametrize(
    ("cls", "sentence"),
    [
        (IgnoresHistory, "transition ignores the State it starts from"),
        (BlindEncoder, "encode ignores observation 'state'"),
    ],
)
def test_the_mistake_is_named(cls, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_world_model(lambda: cls(TinyConfig(), OBS, ACTION))


def test_a_constant_prediction_may_be_declared():
    class Declared(ConstantContinue):
        constant_predictions = frozenset({"continue"})

    check_inputs_matter(Declared(TinyConfig(), OBS, ACTION))


def test_a_loss_over_the_whole_batch_may_be_declared():
    ran = check_world_model(lambda: LossNormalisesTheBatch(TinyConfig(), OBS, ACTION))
    assert "check_loss_respects_episodes" not in ran
