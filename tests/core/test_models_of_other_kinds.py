"""The published checks drive a model by what it has: no dynamics, no vectors, no actions."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from worldflux import get_model_spec, registry
from worldflux.columns import step_columns
from worldflux.core.agent import Learner
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.errors import CapabilityError
from worldflux.session import Session
from worldflux.specs import Capability, CheckSettings, ModelSpec, TensorSpec
from worldflux.testing import check_family
from worldflux.testing.dummies import TinyAgent, TinyConfig, TinyDecoder, TinyDynamics, TinyEncoder
from worldflux.testing.dummies import TinyModel as Tiny
from worldflux.testing.family import check_family_learns
from worldflux.testing.world_model import check_rollout_equals_steps
from worldflux.training import Phase, TrainingPlan


def only_images(obs_spec):
    if not all(spec.image for spec in obs_spec.values()):
        raise CapabilityError("This family sees images only.")


class PictureDecoder(nn.Module):
    """A linear map of the code back to the picture (B, C, Y, X)."""

    def __init__(self, spec, width):
        super().__init__()
        self.spec, self.net = spec, nn.Linear(width, spec.size)

    def forward(self, state, keys=None, conditions=None):
        found = self.net(state["embed"]).unflatten(-1, self.spec.shape)
        return {"image": found} if keys is None or "image" in keys else {}


class Pictures(WorldModel):
    """An autoencoder of images: no dynamics, no actions, no rewards, no vectors."""

    capabilities = frozenset({Capability.OBS_DECODE, Capability.STATELESS})
    composable_support = frozenset({"observation_encoder", "decoder_module"})

    def __init__(self, config, obs_spec, action_spec):
        super().__init__(config, obs_spec, action_spec)
        only_images(self.obs_spec)
        self.fill("observation_encoder", lambda: TinyEncoder(self.obs_spec, config.width))
        width = self.features["embed"].size
        self.fill("decoder_module", lambda: PictureDecoder(self.obs_spec["image"], width))

    def state_spec(self):
        return StateSpec({"embed": TensorSpec((self.features["embed"].size,))})

    def prediction_spec(self):
        return PredictionSpec(dict(self.obs_spec))

    def loss(self, batch, part=None, *, rand=None):
        seen = batch.without_context()
        drawn = self.decode(self.observe_sequence(batch, rand=rand).flat()).predictions["image"]
        parts = {"image": F.mse_loss(drawn, seen.obs["image"].flatten(0, 1) / 255.0)}
        return LossOutput(parts["image"], parts)


class PictureLearner(Learner):
    """The inherited update on single images, as an episode of one step each."""

    model = Pictures

    def __init__(self, config, obs_spec, action_spec):
        super().__init__(config, obs_spec, action_spec)
        self.world_model = self.model(config, obs_spec, action_spec)
        self.optimizers = {"model": torch.optim.Adam(self.world_model.parameters(), lr=config.lr)}

    @property
    def columns(self):
        return step_columns(self.obs_spec)

    def training_plan(self):
        return TrainingPlan([Phase("images", 8, 1, updates_per_step=1, trains=("model",))])


class Video(Tiny):
    """Image sequences without actions and rewards."""

    capabilities = frozenset(
        {Capability.OBS_DECODE, Capability.CONTINUE_PRED, Capability.UNCONDITIONAL}
    )
    composable_support = frozenset({"observation_encoder", "dynamics_model", "decoder_module"})

    def __init__(self, config, obs_spec, action_spec):
        WorldModel.__init__(self, config, obs_spec, action_spec)
        only_images(self.obs_spec)
        if self.action_spec:
            raise CapabilityError("This family has no actions.")
        width = self.width = config.width
        self.fill("observation_encoder", lambda: TinyEncoder(self.obs_spec, width))
        embed = self.features["embed"].size
        self.fill("dynamics_model", lambda: TinyDynamics(width, 0, embed))
        self.fill("decoder_module", lambda: self.without_reward(TinyDecoder(self.obs_spec, width)))

    @staticmethod
    def without_reward(decoder):
        del decoder.heads["reward"]
        return decoder

    def prediction_spec(self):
        return PredictionSpec({**self.obs_spec, "continue": TensorSpec(())})

    def loss(self, batch, part=None, *, rand=None):
        assert batch.action is None and batch.reward is None
        post, seen = self.observe_sequence(batch, rand=rand), batch.without_context()
        found = self.decode(post.flat()).predictions
        going_on = (~seen.is_terminal).flatten().float()
        prior = torch.tanh(self.dynamics_model.prior(post["deter"]))
        parts = {
            "image": F.mse_loss(found["image"], seen.obs["image"].flatten(0, 1) / 255.0),
            "continue": F.binary_cross_entropy(found["continue"], going_on),
            "dynamics": F.mse_loss(prior, post["mean"]),
        }
        return LossOutput(sum(parts.values()), parts)


class VideoLearner(PictureLearner):
    model = Video

    def training_plan(self):
        return TrainingPlan([Phase("video", 4, 8, updates_per_step=1, trains=("model",))])


class Seeing(Tiny):
    """An image-only family that acts."""

    def __init__(self, config, obs_spec, action_spec):
        only_images(obs_spec)
        super().__init__(config, obs_spec, action_spec)


class SeeingAgent(TinyAgent):
    def __init__(self, config, obs_spec, action_spec):
        only_images(obs_spec)
        super().__init__(config, obs_spec, action_spec)


class Shuffled(Pictures):
    """Broken: it learns to draw another picture than the one it sees."""

    def loss(self, batch, part=None, *, rand=None):
        drawn = self.decode(self.observe_sequence(batch).flat()).predictions["image"]
        target = batch.obs["image"].flatten(0, 1).roll(1, 0) / 255.0
        parts = {"image": F.mse_loss(drawn, target)}
        return LossOutput(parts["image"], parts)


class ShuffledLearner(PictureLearner):
    model = Shuffled


def given(monkeypatch, model, agent):
    """The family `fake` out of these two classes of this file."""
    monkeypatch.setitem(sys.modules, "other_kinds", sys.modules[__name__])
    spec = ModelSpec(
        family="fake",
        config=TinyConfig,
        presets={"a": TinyConfig()},
        default_preset="a",
        model=f"other_kinds:{model}",
        agent=f"other_kinds:{agent}",
        description="fake",
        capabilities=globals()[model].capabilities,
        # An autoencoder of large images collapses at the videos' rate.
        check=CheckSettings({"lr": 1e-3 if agent == "PictureLearner" else 1e-2}, updates=150),
    )
    monkeypatch.setattr(registry.models, "get", lambda *_: spec)


DYNAMICS = {"check_transition_keeps_shapes", "check_rollout_equals_steps", "check_async_twins"}


@pytest.mark.parametrize(
    ("model", "agent", "absent"),
    [
        ("Pictures", "PictureLearner", {*DYNAMICS, "check_acts", "check_rollout_is_causal"}),
        ("Video", "VideoLearner", {"check_acts", "check_rollout_is_causal"}),
        ("Seeing", "SeeingAgent", set()),
    ],
)
def test_a_family_is_driven_by_what_it_has(monkeypatch, model, agent, absent):
    given(monkeypatch, model, agent)
    ran = check_family("fake")
    assert not absent & set(ran)
    learnt = "check_learns_shapes" if model == "Pictures" else "check_learns_known_world"
    always = {"check_update", "check_slots_take_effect", learnt}
    always |= {"check_sequence_is_causal", "check_other_sizes"}
    assert always <= set(ran)
    assert (set(ran) >= DYNAMICS) == (model != "Pictures")


def test_a_model_without_dynamics_has_to_learn_too(monkeypatch):
    given(monkeypatch, "Shuffled", "ShuffledLearner")
    with pytest.raises(AssertionError, match="the drawn shapes are not learnt: .* another class"):
        check_family_learns(get_model_spec("fake"))


def video(cls=Video):
    images = {"image": TensorSpec((1, 16, 16), "uint8", low=0, high=255)}
    return cls(TinyConfig(), images, {})


@torch.no_grad()
def test_none_is_the_action_of_a_model_that_has_none():
    model = video()
    obs = {"image": torch.zeros(2, 1, 16, 16, dtype=torch.uint8)}
    start = model.encode(obs, deterministic=True)
    nothing = torch.zeros(2, 0)
    for step in (
        lambda action: model.transition(start, action, deterministic=True),
        lambda action: model.update(start, action, obs, deterministic=True),
    ):
        assert torch.equal(step(None)["deter"], step(nothing)["deter"])
    along = model.rollout(start, None, horizon=3, deterministic=True)
    assert along.actions.shape == (3, 2, 0)
    check_rollout_equals_steps(model)
    assert Session(model, start, rows=2).step().image.shape == (2, 1, 16, 16)


class Jumps(Video):
    """Broken: without an action it goes elsewhere than with an empty one."""

    def transition(self, state, action, *args, **options):
        after = super().transition(state, action, *args, **options)
        return after if action is not None else after.with_({"deter": after["deter"] + 1})


def test_a_rollout_without_actions_is_that_of_empty_ones():
    with pytest.raises(AssertionError, match=r"without actions \(None\): deter differs"):
        check_rollout_equals_steps(video(Jumps))
