"""DIAMOND's world model: frames by diffusion, rewards and ends of pairs of frames."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.actions import VectorActions
from worldflux.core.batch import Batch
from worldflux.core.interfaces import Decoder, ObservationEncoder
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput, ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.core.state import State
from worldflux.distributed import mean
from worldflux.errors import CapabilityError
from worldflux.specs import Capability, TensorSpec
from worldflux_diamond.diamond.config import DiamondConfig
from worldflux_diamond.diamond.dynamics import DiamondDynamics

PARTS = ("denoiser", "reward_end")
"""Parts of the loss, named as the phases that train them."""


def pixels(image: Tensor) -> Tensor:
    """Images (...), uint8, as frames in [-1, 1]."""
    return image.float().div(255).mul(2).sub(1)


class FrameEncoder(ObservationEncoder):
    """An image (B, C, Y, X) as "frame" in [-1, 1]; nothing is learnt."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def forward(self, obs: dict[str, Tensor]) -> State:
        return State({"frame": pixels(obs[self.key])})


class FrameDecoder(Decoder):
    """The last frame as an image in [0, 1], the expected reward, the chance of going on."""

    def __init__(self, key: str, reward_size: float) -> None:
        super().__init__()
        self.key, self.reward_size = key, reward_size

    def forward(
        self,
        state: State,
        keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> ModelOutput:
        found, aux = {}, {"ended": state["ended"], "reward": self.reward_size * state["reward"]}
        if keys is None or self.key in keys:
            found[self.key] = (state["frames"][..., -1, :, :, :] + 1) / 2
        if keys is None or "reward" in keys:
            chances = state["reward_logits"].softmax(-1)
            found["reward"] = self.reward_size * (chances[..., 2] - chances[..., 0])
        if keys is None or "continue" in keys:
            found["continue"] = state["end_logits"].softmax(-1)[..., 0]
        return ModelOutput(found, aux=aux)


class DiamondWorldModel(WorldModel):
    """State as in `DiamondDynamics`; `loss` has the parts "denoiser" and "reward_end"."""

    capabilities = frozenset(
        {
            Capability.OBS_DECODE,
            Capability.REWARD_PRED,
            Capability.CONTINUE_PRED,
            Capability.PLANNING,
        }
    )
    composable_support = frozenset({"observation_encoder", "action_conditioner", "dynamics_model"})
    config: DiamondConfig
    dynamics_model: DiamondDynamics

    def __init__(
        self,
        config: DiamondConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.key, self.image_spec = only_image(self.obs_spec)
        choices = only_choice(self.action)
        self.fill(
            "observation_encoder",
            lambda: FrameEncoder(self.key),
            expects={"frame": self.image_spec.shape},
        )
        self.fill("action_conditioner", lambda: VectorActions(choices))
        self.fill("dynamics_model", lambda: DiamondDynamics(self))
        self.fill(
            "decoder_module",
            lambda: FrameDecoder(self.key, config.model.reward_end.reward_size),
            expects={"reward": (), "continue": ()},
        )

    def state_spec(self) -> StateSpec:
        tensors = self.dynamics_model.initial(1, torch.device("cpu")).tensors
        return StateSpec({key: TensorSpec(tuple(x.shape[1:])) for key, x in tensors.items()})

    def prediction_spec(self) -> PredictionSpec:
        scalars = {"reward": TensorSpec(()), "continue": TensorSpec((), low=0.0, high=1.0)}
        return PredictionSpec({self.key: self.image_spec, **scalars})

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """Of sequences (B, T, ...): the denoiser's error, cross entropies of rewards and ends."""
        rand, terms = rand or Rand(), {}
        if part in (None, "denoiser"):
            terms["denoiser"] = self._denoiser_loss(batch, rand.under("denoiser/"))
        if part in (None, "reward_end"):
            terms |= self.reward_end_losses(batch, rand.under("reward_end/"))
        return LossOutput(torch.stack(list(terms.values())).sum(), terms)

    def _denoiser_loss(self, batch: Batch, rand: Rand) -> Tensor:
        lead = (batch.batch_size, batch.length)
        images = {self.key: batch.obs[self.key].flatten(0, 1)}
        encoder = self.slot("observation_encoder", "loss")
        frames = encoder(self.observations(images))["frame"].unflatten(0, lead)
        actions = self.condition(batch.require("action").flatten(0, 1)).unflatten(0, lead)
        return self.dynamics_model.denoiser.loss(
            frames, actions, batch.is_first, batch.context, batch.mask, rand
        )

    def reward_end_losses(self, batch: Batch, rand: Rand) -> dict[str, Tensor]:
        """Cross entropies of reward signs and ends over the steps of the batch (B, T, ...)."""
        seen = self.observe_sequence(batch, rand=rand)
        pairs = batch.without_context().transitions()
        signs = pairs.require("next_reward").sign().long() + 1
        targets = {"reward": signs, "end": pairs.next_terminal.long()}
        return {
            name: mean(_cross_entropy(seen[f"{name}_logits"][:, 1:], target), pairs.valid)
            for name, target in targets.items()
        }


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Of logits (B, T, K) and classes (B, T), each by itself: (B, T)."""
    return F.cross_entropy(logits.transpose(1, 2).float(), target, reduction="none")


def only_image(obs_spec: Mapping[str, TensorSpec]) -> tuple[str, TensorSpec]:
    """The one observation there is, which has to be an image."""
    if len(obs_spec) == 1:
        key, spec = next(iter(obs_spec.items()))
        if spec.image:
            return key, spec
    found = ", ".join(f"{key!r} {spec.shape} {spec.dtype}" for key, spec in obs_spec.items())
    raise CapabilityError(
        f"DIAMOND predicts frames: it takes one image (C, Y, X) of uint8, got {found or 'none'}. "
        "Use env.obs=pixels where the environment draws itself."
    )


def only_choice(action: TensorSpec | None) -> TensorSpec:
    """The action space, which has to be one choice among several."""
    if action is not None and isinstance(action.n, int):
        return action
    raise CapabilityError(
        f"DIAMOND's policy chooses one of several actions, got the action space {action}. Use an "
        "environment with discrete actions."
    )
