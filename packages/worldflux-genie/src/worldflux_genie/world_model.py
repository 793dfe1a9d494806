"""Genie's world model: tokenizer, latent actions, dynamics and decoder behind the one protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worldflux.core.actions import Actions
from worldflux.core.batch import Batch
from worldflux.core.interfaces import DynamicsModel, Policy
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput
from worldflux.core.payloads import ActionPayload, ActionSequence, ConditionPayload
from worldflux.core.rand import Rand, uniform
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.core.state import State
from worldflux.core.trajectory import Trajectory
from worldflux.core.zeros import zeros_of
from worldflux.distributed import mean
from worldflux.errors import CapabilityError, ContractError
from worldflux.nn.vector_quantizer import Quantized
from worldflux.specs import Capability, TensorSpec
from worldflux_genie import history, losses
from worldflux_genie.config import GenieConfig
from worldflux_genie.dynamics import TokenDynamics
from worldflux_genie.latent_action import LatentActionModel
from worldflux_genie.patches import pixels
from worldflux_genie.rollout import VideoRollout
from worldflux_genie.tokenizer import FrameDecoder, VideoTokenizer, reconstruct

Computed = tuple[Tensor, dict[str, Any]]


class GenieWorldModel(WorldModel):
    """A world learned from video alone; its actions are latent ones that it found itself.

    Actions that are in the data are not looked at: `action_spec` stays empty. `action` is the
    space of latent actions, or that of the environment's once `fit_action_map` has run.
    """

    observation_encoder: VideoTokenizer
    action_conditioner: LatentActionModel
    dynamics_model: TokenDynamics
    decoder_module: FrameDecoder
    config: GenieConfig
    capabilities = frozenset({Capability.OBS_DECODE, Capability.LATENT_ACTIONS})
    composable_support = frozenset({"dynamics_model"})

    def __init__(
        self,
        config: GenieConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        super().__init__(config, obs_spec, {})
        c, (self.key, spec) = config.model, _only_image(obs_spec)
        self.action = action_space(config)
        self.action_code = TensorSpec((c.latent_action.quantizer.width,))
        tokenizer, codes = c.tokenizer.quantizer, c.latent_action.quantizer.width
        self.fill("observation_encoder", lambda: VideoTokenizer(c, self.key, spec.shape))
        tokens = self.observation_encoder.tokens
        self.fill("action_conditioner", lambda: LatentActionModel(c, spec.shape))
        self.fill(
            "dynamics_model",
            lambda: TokenDynamics(c, tokens, tokenizer.size, codes, spec.shape),
            expects={"tokens": (c.frames, tokens)},
            trial=self._tried,
        )
        self.fill(
            "decoder_module",
            lambda: FrameDecoder(c, self.key, spec.shape, self.observation_encoder.quantizer),
            expects={self.key: spec.shape},
        )
        self.fill("rollout_executor", VideoRollout)

    def _tried(self, part: DynamicsModel) -> State:
        """What a dynamics gives for zeros; ours is not sampled from, which takes many passes."""
        given = zeros_of(self.features, (1,))
        action, device = given.pop("action"), given["token"].device
        first = torch.ones(1, dtype=torch.bool, device=device)
        seen = part.observe(part.initial(1, device), action, State(given), first)
        return seen if type(part) is TokenDynamics else part.transition(seen, action, rand=Rand())

    def state_spec(self) -> StateSpec:
        c = self.config.model
        tokens, codes = c.tokenizer.quantizer.size, c.latent_action.quantizer.width
        shape = (c.frames, self.observation_encoder.tokens)
        return StateSpec(
            {
                "tokens": TensorSpec(shape, "int64", low=0, high=tokens - 1),
                "actions": TensorSpec((c.frames, codes)),
                "length": TensorSpec((), "int64"),
            }
        )

    def prediction_spec(self) -> PredictionSpec:
        return PredictionSpec({self.key: self.obs_spec[self.key]})

    # Actions

    def condition(
        self, action: ActionPayload | Tensor | None, conditions: ConditionPayload | None = None
    ) -> Tensor:
        """The code (B, L) of an action.

        A payload of kind "latent" holds a latent action's number (B,) or code (B, L), one of kind
        "discrete" (or a tensor) a choice among `action`.
        """
        if isinstance(action, ActionPayload) and action.kind == "latent":
            action.validate(api_version=self.api_version)
            assert action.latent is not None
            return self.latent_codes(action.latent)
        return super().condition(action, conditions)

    def latent_codes(self, latent: Tensor) -> Tensor:
        """Codes (..., L) of latent actions: their numbers (...), or codes as they are."""
        return latent if latent.is_floating_point() else self.action_conditioner.codes(latent)

    def rollout(
        self,
        initial_state: State,
        action_sequence: Actions | Policy | None,
        conditions: ConditionPayload | None = None,
        deterministic: bool = False,
        mode: str = "autoregressive",
        **options: Any,
    ) -> Trajectory:
        """As everywhere; latent payloads (T, B) or (T, B, L) go in as codes."""
        found = action_sequence
        if isinstance(found, ActionSequence):
            found = found.payload
        if isinstance(found, ActionPayload) and found.latent is not None:
            found.validate(api_version=self.api_version)
            found = self.latent_codes(found.latent)
        return super().rollout(initial_state, found, conditions, deterministic, mode, **options)

    def infer_actions(self, video: Tensor, is_first: Tensor | None = None) -> Tensor:
        """The numbers (B, T-1) of the latent actions in videos (B, T, C, Y, X).

        Entry t led from frame t to t + 1. A video is at most `frames` long. Across the start of an
        episode (`is_first` (B, T)) the number means nothing.
        """
        most = self.config.model.frames
        if video.ndim != 5 or not 2 <= video.shape[1] <= most:
            raise ContractError(
                f"infer_actions got a video of shape {tuple(video.shape)}, expected (B, T, C, Y, "
                f"X) with T from 2 to {most} (model.frames): cut it into such pieces."
            )
        return self.action_conditioner.inferred(video, is_first)

    def tokens(self, batch: Batch) -> Tensor:
        """The tokens (B, T, N) of a batch's frames, without gradient."""
        with torch.no_grad():
            encoder, video = self.observation_encoder, batch.obs[self.key]
            place, mask = history.places(batch.is_first)
            return encoder.quantizer(encoder.features(video, mask, place)).index

    # Learning

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """The loss of a phase (`tokenizer`, `latent_action`, `dynamics`), or the sum of all."""
        self.validate_batch_contract(batch)
        compute = {
            "tokenizer": self.tokenizer_loss,
            "latent_action": self.latent_action_loss,
            "dynamics": self.dynamics_loss,
        }
        if part is not None and part not in compute:
            raise ContractError(f"Genie has no phase {part!r}. Phases: {', '.join(compute)}.")
        names = compute if part is None else (part,)
        rand, parts = rand or Rand(), {}
        for name in names:
            parts[name] = compute[name](batch, rand.under(f"{name}/"))[0]
        return LossOutput(torch.stack(list(parts.values())).sum(), parts)

    def tokenizer_loss(self, batch: Batch, rand: Rand | None = None) -> Computed:
        """Squared error of frames, and the code-book's losses. Draw: "keep" (see `CodeBook`)."""
        batch = batch.without_context()
        video = pixels(batch.obs[self.key])
        found = reconstruct(
            self.observation_encoder, self.decoder_module, video, batch.is_first, rand
        )
        terms = {"mse": mean(losses.reconstruction(found.video, video), batch.mask)}
        terms |= losses.code_terms(self.observation_encoder.quantizer, found.codes, batch.mask)
        return _summed(terms), {**_detached(terms), **_chosen(found.codes)}

    def latent_action_loss(self, batch: Batch, rand: Rand | None = None) -> Computed:
        """Squared error of next frames, told by the frames before and the action alone."""
        batch = batch.without_context()
        video, valid = pixels(batch.obs[self.key]), batch.transitions().valid
        found = self.action_conditioner.explained(video, batch.is_first, rand)
        terms = {"mse": mean(losses.reconstruction(found.frames, video[:, 1:]), valid)}
        terms |= losses.code_terms(self.action_conditioner.quantizer, found.actions, valid)
        return _summed(terms), {**_detached(terms), **_chosen(found.actions)}

    def dynamics_loss(self, batch: Batch, rand: Rand | None = None) -> Computed:
        """Cross-entropy of hidden tokens; tokenizer and latent actions are taken as they are."""
        batch = batch.without_context()
        tokens = self.tokens(batch)
        with torch.no_grad():
            index = self.action_conditioner.inferred(batch.obs[self.key], batch.is_first)
            codes = self.action_conditioner.codes(index)
        return self.token_loss(tokens, codes, batch, rand)

    def token_loss(
        self, tokens: Tensor, codes: Tensor, batch: Batch, rand: Rand | None = None
    ) -> Computed:
        """The same of tokens (B, T, N) and the codes (B, T-1, L) of the actions between frames.

        Draws: "share" (B,), from which each row's share of hidden tokens follows, and "hidden"
        (B, T, N): what is below that share is hidden. The first frame of an episode never is.
        """
        dynamics, first = self.dynamics_model, batch.is_first.clone()
        first[:, 0] = True
        taken = torch.cat([torch.zeros_like(codes[:, :1]), codes], 1)  # (B, T, L)
        hidden = None if dynamics.causal else self._hidden(tokens, rand or Rand())
        if hidden is not None:
            hidden = hidden & ~first[..., None]
        counts = torch.ones_like(tokens, dtype=torch.bool) if hidden is None else hidden
        if batch.mask is not None:
            counts = counts & batch.mask[..., None]
        logits = dynamics.logits(tokens, taken, batch.is_first, hidden)
        found = losses.hidden_tokens(logits, tokens, counts)
        return found.pop("loss"), found

    def _hidden(self, tokens: Tensor, rand: Rand) -> Tensor:
        c, device = self.config.model.dynamics, tokens.device
        drawn = rand.draw("share", (tokens.shape[0],), uniform, device=device)
        share = c.mask_low + (c.mask_high - c.mask_low) * drawn
        each = rand.draw("hidden", tuple(tokens.shape), uniform, device=device)
        return each < share[:, None, None]

    def with_actions(self, action_map: tuple[int, ...], labels: tuple[str, ...] = ()) -> None:
        """From now on `action` is an environment's: choice i stands for latent `action_map[i]`."""
        new = {"model.action_map": action_map, "model.action_labels": labels}
        self.config = self.config.with_(**new)
        self.action, self.action_conditioner.map = action_space(self.config), action_map


def action_space(config: GenieConfig) -> TensorSpec:
    """The choices of action: an environment's, where there is a map of them, or latent ones."""
    c = config.model
    count = len(c.action_map) or c.latent_action.quantizer.size
    return TensorSpec((), "int64", n=count, labels=c.action_labels or None)


def _only_image(obs_spec: Mapping[str, TensorSpec]) -> tuple[str, TensorSpec]:
    if len(obs_spec) == 1 and all(spec.image for spec in obs_spec.values()):
        return next(iter(obs_spec.items()))
    found = ", ".join(f"{key} {spec.shape} {spec.dtype}" for key, spec in obs_spec.items())
    raise CapabilityError(
        f"Genie learns from one image, uint8 (C, Y, X), got: {found or 'nothing'}. Record the data "
        "with pixels alone."
    )


def _chosen(codes: Quantized) -> dict[str, Tensor]:
    return {"index": codes.index, "inputs": codes.inputs.detach()}


def _summed(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _detached(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in terms.items()}
