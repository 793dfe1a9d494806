"""DiT as a world model of single images: no time, no action, no reward."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand, normal, randint, uniform
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.distributed import mean
from worldflux.errors import CapabilityError
from worldflux.nn.diffusion import bounds
from worldflux.specs import Capability, TensorSpec
from worldflux_diamond.dit.config import DiTConfig
from worldflux_diamond.dit.parts import LABEL, DiTDynamics, Labels, Scaled, ToImage


class DiTWorldModel(WorldModel):
    """State: "x" (B, C, Y, X), an image in [-1, 1]. A transition samples another one.

    Labels (B,) come as the condition "wf.data.label".
    """

    capabilities = frozenset(
        {Capability.UNCONDITIONAL, Capability.OBS_DECODE, Capability.STATELESS}
    )
    composable_support = frozenset({"observation_encoder", "action_conditioner", "dynamics_model"})
    starts_anew = True
    config: DiTConfig
    dynamics_model: DiTDynamics

    def __init__(
        self,
        config: DiTConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        c = config.model
        self.key, self.image_spec = only_picture(self.obs_spec, self.action_spec, c.patch)
        self.fill(
            "observation_encoder",
            lambda: Scaled(self.key, self.image_spec),
            expects={"x": self.image_spec.shape},
        )
        self.fill(
            "action_conditioner",
            lambda: Labels(c.classes, c.class_dropout > 0, c.width),
            expects={"action": (2 * c.width,)},
            trial=lambda part: {"action": part(None, _first_label(c.classes))},
        )
        self.fill(
            "dynamics_model",
            lambda: DiTDynamics(self),
            expects={"x": self.image_spec.shape},
            trial=lambda part: part.initial(1, torch.device("cpu")).tensors,  # a sample takes long
        )
        self.fill("decoder_module", lambda: ToImage(self.key, self.image_spec))

    @property
    def condition_spec(self) -> Mapping[str, TensorSpec]:
        """The label, of a model that knows any."""
        classes = self.config.model.classes
        return {} if classes is None else {"label": TensorSpec((), "int64", n=classes)}

    def state_spec(self) -> StateSpec:
        return StateSpec({"x": TensorSpec(self.image_spec.shape)})

    def prediction_spec(self) -> PredictionSpec:
        return PredictionSpec(dict(self.obs_spec))

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """Of images (B, T, ...), each by itself: the error of the noise, and the bound in bits.

        Draws: "t" and "drop" (B, T), "noise" (B, T, C, Y, X).
        """
        c, rand, lead = self.config.model, rand or Rand(), (batch.batch_size, batch.length)
        state = self.observe_sequence(batch, rand=rand)
        x, device = state["x"].flatten(0, 1), state.device
        t = rand.draw("t", lead, randint(c.steps), device=device).flatten()
        noise = rand.draw("noise", (*lead, *x.shape[1:]), normal, device=device).flatten(0, 1)
        label = self.condition(None, self._labels(batch, rand))[:, : c.width]
        process = self.dynamics_model.process
        noisy = process.noisy(x, t, noise)
        output = self.dynamics_model.output(noisy, process.original_step(t), label).float()
        terms = bounds.losses(process, output, x, noisy, t, noise)
        parts = {name: mean(term.unflatten(0, lead), batch.mask) for name, term in terms.items()}
        return LossOutput(torch.stack(list(parts.values())).sum(), parts)

    def _labels(self, batch: Batch, rand: Rand) -> ConditionPayload | None:
        """The labels (B * T,), some of them left out at random; None of a model without any."""
        c, lead = self.config.model, (batch.batch_size, batch.length)
        if c.classes is None:
            return None
        device = batch.is_first.device
        label = batch.extra.get("label")
        if label is None:
            label = torch.full(lead, c.classes if c.class_dropout > 0 else 0, device=device)
        if c.class_dropout > 0:
            drops = rand.draw("drop", lead, uniform, device=device) < c.class_dropout
            label = torch.where(drops, c.classes, label)
        return ConditionPayload(extras={LABEL: label.flatten()})


def _first_label(classes: int | None) -> ConditionPayload | None:
    """The condition of one row's label, to try a part with; None for a model without labels."""
    label = torch.zeros(1, dtype=torch.int64)
    return None if classes is None else ConditionPayload(extras={LABEL: label})


def labelled(labels: Tensor) -> ConditionPayload:
    """The condition that asks for images of `labels` (B,)."""
    return ConditionPayload(extras={LABEL: labels})


def only_picture(
    obs_spec: Mapping[str, TensorSpec], action_spec: Mapping[str, TensorSpec], patch: int
) -> tuple[str, TensorSpec]:
    """The one observation there is: an image, or latents of one, that patches divide."""
    if len(obs_spec) != 1 or len(next(iter(obs_spec.values())).shape) != 3:
        found = ", ".join(f"{key!r} {spec.shape}" for key, spec in obs_spec.items()) or "none"
        raise CapabilityError(f"DiT makes images: it takes one of shape (C, Y, X), got {found}.")
    if action_spec:
        raise CapabilityError(
            f"DiT makes images by themselves: it takes no actions, got {', '.join(action_spec)}. "
            "As a denoiser of frames after actions it is a part of diamond: "
            "slots.dynamics_model=worldflux_diamond.dit.denoiser:DiTFrames."
        )
    key, spec = next(iter(obs_spec.items()))
    if spec.shape[1] % patch or spec.shape[2] % patch:
        raise CapabilityError(
            f"Images of {spec.shape[1]}x{spec.shape[2]} cannot be cut into patches of {patch}: set "
            "model.patch to a number that divides both sides."
        )
    return key, spec
