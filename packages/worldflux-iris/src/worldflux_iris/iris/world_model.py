"""IRIS's world model: a tokenizer, and a transformer that predicts tokens (2209.00588)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput, ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.core.state import State
from worldflux.distributed import mean
from worldflux.errors import ContractError
from worldflux.nn.pixels import unit
from worldflux.nn.vector_quantizer import perplexity
from worldflux.specs import Capability, TensorSpec
from worldflux_iris.dropout import dropping
from worldflux_iris.iris import losses
from worldflux_iris.iris.config import IRISConfig
from worldflux_iris.iris.dynamics import ENDS, SIGNS, ActionTokens, TokenTransformer
from worldflux_iris.iris.tokenizer import TokenDecoder, Tokenizer
from worldflux_iris.perceptual import Perceptual
from worldflux_iris.rollout import TokenRollout
from worldflux_iris.spaces import KEY, discrete_action, only_image


class IRISWorldModel(WorldModel):
    """State: "tokens" (B, N), what was drawn ("reward", "ended", (B,)) and its logits, caches.

    `decode` puts the tokens' "words" (B, N, code_dim) into the State it hands to the decoder, so
    that the code-book stays the encoder's. Encoder and decoder are trained as one, and cannot be
    replaced one without the other.
    """

    capabilities = frozenset(
        {
            Capability.OBS_DECODE,
            Capability.REWARD_PRED,
            Capability.CONTINUE_PRED,
            Capability.PLANNING,
        }
    )
    composable_support = frozenset({"action_conditioner", "dynamics_model", "rollout_executor"})
    config: IRISConfig
    observation_encoder: Tokenizer
    dynamics_model: TokenTransformer
    decoder_module: TokenDecoder

    def __init__(
        self,
        config: IRISConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        c, image = config.model, only_image(obs_spec, "IRIS")
        action = discrete_action(self.action, "IRIS")
        tokens = (image.shape[1] // c.downscale) ** 2
        self.fill("observation_encoder", lambda: Tokenizer(c, image), expects={"tokens": (tokens,)})
        self.fill(
            "action_conditioner", lambda: ActionTokens(action, c.dim), expects={"action": (c.dim,)}
        )
        self.fill(
            "dynamics_model",
            lambda: TokenTransformer(c, tokens),
            expects={"tokens": (tokens,), "reward_logits": (SIGNS,), "end_logits": (ENDS,)},
        )
        self.fill(
            "decoder_module",
            lambda: TokenDecoder(c, image, self.observation_encoder.pixels),
            expects={KEY: tuple(image.shape), "reward": (), "continue": ()},
            trial=self._decode_nothing,
        )
        self.fill("rollout_executor", TokenRollout)
        self.perceptual = Perceptual()

    def _decode_nothing(self, part: TokenDecoder) -> ModelOutput:
        """What a decoder makes of one row of zeros, words among them."""
        specs = {name: spec for name, spec in self.features.items() if name != "action"}
        found = {
            name: torch.zeros(1, *spec.shape, dtype=getattr(torch, spec.dtype))
            for name, spec in specs.items()
        }
        size = self.config.model.code_dim
        return part(State({**found, "words": torch.zeros(1, specs["tokens"].shape[0], size)}))

    def state_spec(self) -> StateSpec:
        c = self.config.model
        return StateSpec(
            {
                "tokens": TensorSpec(
                    self.features["tokens"].shape, "int64", low=0, high=c.vocab - 1
                ),
                "reward": TensorSpec(()),
                "ended": TensorSpec(()),
                "reward_logits": TensorSpec((SIGNS,)),
                "end_logits": TensorSpec((ENDS,)),
            }
        )

    def prediction_spec(self) -> PredictionSpec:
        scalar = TensorSpec(())
        return PredictionSpec({**self.obs_spec, "reward": scalar, "continue": scalar})

    def decode(
        self,
        state: State,
        conditions: ConditionPayload | None = None,
        *,
        keys: Collection[str] | None = None,
        rand: Rand | None = None,
    ) -> ModelOutput:
        """Predictions (B, ...) from a State; see `WorldModel.decode`."""
        given = state
        if keys is None or {KEY, "obs"} & set(keys):
            given = state.with_({"words": self.observation_encoder.words(state["tokens"])})
        output = super().decode(given, conditions, keys=keys, rand=rand)
        output.state = state
        return output

    def reconstructed(self, image: Tensor) -> Tensor:
        """Images (..., C, Y, X) as a dream shows them: through their tokens, in [0, 1]."""
        lead = image.shape[:-3]
        tokens = self.observation_encoder({KEY: image.flatten(0, -4)})["tokens"]
        words = self.observation_encoder.words(tokens)
        normal = self.decoder_module.reconstruct(words)
        return self.observation_encoder.pixels.back(normal).unflatten(0, lead)

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """The terms of the tokenizer, the transformer, or both, of a Batch (B, T, ...)."""
        c = self.config.model
        terms: dict[str, Tensor] = {}
        metrics: dict[str, Tensor | float] = {}
        if part in (None, "tokenizer"):
            terms |= self._tokenizer_terms(batch, metrics)
        if part in (None, "world_model"):
            terms |= self._prediction_terms(batch, metrics, rand)
        weights = {"perceptual": c.perceptual, "commitment": c.commitment}
        total = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
        return LossOutput(total, terms, metrics)

    def _tokenizer_terms(
        self, batch: Batch, metrics: dict[str, Tensor | float]
    ) -> dict[str, Tensor]:
        c, tokenizer = self.config.model, self.observation_encoder
        image = batch.obs[KEY].flatten(0, 1)
        held = None if batch.mask is None else batch.mask.flatten()
        seen, quantized = tokenizer.quantized(image)
        found, target = self.decoder_module.reconstruct(seen), tokenizer.pixels(image)
        error = (found - target).abs() if c.reconstruction == "l1" else (found - target).square()
        used = tokenizer.quantizing.float()
        terms = {
            "reconstruction": mean(error, held),
            "codebook": used * mean(quantized.codebook_loss(), held),
            "commitment": used * mean(quantized.commitment_loss(), held),
        }
        if c.perceptual:
            frames = [2 * unit(x) - 1 for x in (image, tokenizer.pixels.raw(found))]
            terms["perceptual"] = mean(self.perceptual(*frames), held)
        with torch.no_grad():
            apart = (tokenizer.pixels.back(found) - unit(image)).square()
            metrics["psnr"] = -10 * torch.log10(mean(apart, held).clamp(min=1e-10))
            metrics["perplexity"] = perplexity(quantized.index, c.vocab)
        return terms

    def _prediction_terms(
        self, batch: Batch, metrics: dict[str, Tensor | float], rand: Rand | None
    ) -> dict[str, Tensor]:
        blocks, most = batch.length - 1, self.config.model.max_blocks
        if blocks > most:
            raise ContractError(
                f"IRIS learns from at most model.max_blocks + 1 = {most + 1} steps at once, got "
                f"{batch.length}: shorten the phase, or raise model.max_blocks."
            )
        with torch.no_grad():
            image = batch.obs[KEY][:, :-1]
            obs = {KEY: image.flatten(0, 1)}
            tokens = self.observation_encoder(obs)["tokens"].unflatten(0, image.shape[:2])
        action = self.condition(batch.require("action")[:, :-1].flatten(0, 1))
        action = action.unflatten(0, (batch.batch_size, blocks))
        with dropping(self, self.config.model.dropout, rand):
            out = self.dynamics_model.sequence(tokens, action, batch.is_first[:, :-1])
        wanted = losses.labels(batch, tokens, self.config.model.predict_last)
        logits = {
            "tokens": losses.in_order(self.dynamics_model.ahead(out)),
            "signs": self.dynamics_model.sign(out[:, :, -1]).float(),
            "ends": self.dynamics_model.end(out[:, :, -1]).float(),
        }
        terms = {}
        for name, target in wanted._asdict().items():
            counts = target != losses.IGNORED
            terms[name] = mean(losses.cross_entropy(logits[name], target), counts)
            right = (logits[name].detach().argmax(-1) == target).float()
            metrics[f"{name}_accuracy"] = mean(right, counts)
        return terms

    def parameters_of(self, phase: str) -> list[torch.nn.Parameter]:
        """The parameters that phase "tokenizer" or "world_model" trains."""
        slots = {
            "tokenizer": (self.observation_encoder, self.decoder_module),
            "world_model": (self.action_conditioner, self.dynamics_model),
        }[phase]
        return [p for slot in slots for p in cast(torch.nn.Module, slot).parameters()]
