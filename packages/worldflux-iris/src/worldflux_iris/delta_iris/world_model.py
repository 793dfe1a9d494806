"""Delta-IRIS's world model: changes as tokens, given the frame they start from (2406.19320)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput
from worldflux.core.rand import Rand
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.distributed import mean
from worldflux.errors import ContractError
from worldflux.nn.pixels import unit
from worldflux.nn.symlog import symlog
from worldflux.nn.two_hot import two_hot_cross_entropy
from worldflux.nn.vector_quantizer import perplexity
from worldflux.specs import Capability, TensorSpec
from worldflux_iris.delta_iris.config import DeltaIRISConfig
from worldflux_iris.delta_iris.dynamics import ENDS, LIMIT, DeltaTransformer, OneHot
from worldflux_iris.delta_iris.parts import FrameReader, Frames
from worldflux_iris.delta_iris.tokenizer import COMMITMENT, L1, WORST, Change
from worldflux_iris.dropout import dropping
from worldflux_iris.rollout import TokenRollout
from worldflux_iris.spaces import KEY, discrete_action, only_image

Metrics = dict[str, Tensor | float]


class DeltaIRISWorldModel(WorldModel):
    """State: "frame" (B, C, Y, X) as bytes, the "tokens" (B, K) of the change that led to it.

    Also "steps" (B,) seen in the window, what was drawn ("reward", "ended", (B,)), its logits, and
    caches. All that is learned is in the dynamics, whose frames follow from its tokens.
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
    config: DeltaIRISConfig
    dynamics_model: DeltaTransformer

    def __init__(
        self,
        config: DeltaIRISConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        image = only_image(obs_spec, "Delta-IRIS")
        action = discrete_action(self.action, "Delta-IRIS")
        self.fill("observation_encoder", Frames, expects={"frame": tuple(image.shape)})
        self.fill("action_conditioner", lambda: OneHot(action), expects={"action": (action.size,)})
        self.fill(
            "dynamics_model",
            lambda: DeltaTransformer(config.model, image, action.size),
            expects={"frame": tuple(image.shape), "end_logits": (ENDS,)},
        )
        self.fill("decoder_module", lambda: FrameReader(self.reward_mean))
        self.fill("rollout_executor", TokenRollout)

    def reward_mean(self, logits: Tensor) -> Tensor:
        """Expected rewards (...) of logits (..., R)."""
        found: Tensor = self.dynamics_model.reward_mean(logits)
        return found

    def state_spec(self) -> StateSpec:
        names = ("frame", "steps", "tokens", "reward", "ended", "reward_logits", "end_logits")
        return StateSpec({name: self.features[name] for name in names})

    def prediction_spec(self) -> PredictionSpec:
        scalar = TensorSpec(())
        return PredictionSpec({**self.obs_spec, "reward": scalar, "continue": scalar})

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """The terms of the tokenizer, the transformer, or both, of a Batch (B, T, ...)."""
        if part == "tokenizer":
            return self.tokenizer_loss(batch)[0]
        if part == "world_model":
            return self._prediction_loss(batch, rand)
        parts = [self.tokenizer_loss(batch)[0], self._prediction_loss(batch, rand)]
        return LossOutput(
            parts[0].loss + parts[1].loss,
            parts[0].components | parts[1].components,
            parts[0].metrics | parts[1].metrics,
        )

    def tokenizer_loss(self, batch: Batch) -> tuple[LossOutput, Change]:
        """The tokenizer's terms of a Batch (B, T, ...), and the changes (B * (T-1), ...) in it.

        Padding counts for the commitment, as published; nothing does across episodes.
        """
        tokenizer, pairs = self.dynamics_model.tokenizer, batch.transitions()
        frames, action = unit(batch.obs[KEY]), self._actions(batch)
        before, after = (x.flatten(0, 1) for x in (frames[:, :-1], frames[:, 1:]))
        change = tokenizer.change(before, action[:, :-1].flatten(0, 1), after)
        found = tokenizer.decode(before, action[:, :-1].flatten(0, 1), change.restored)
        lead, error = pairs.valid.shape, found - tokenizer.pixels(after)
        whole = (~batch.is_first[:, 1:]).flatten()
        valid = pairs.valid.flatten()
        terms = {
            "commitment": mean(change.found.commitment_loss(), whole),
            "l1": mean(error.abs(), valid),
            "l2": mean(error.square(), valid),
            "worst": mean(error.square().flatten(1).amax(1), valid),
        }
        total = COMMITMENT * terms["commitment"] + L1 * terms["l1"]
        total = total + terms["l2"] + WORST * terms["worst"]
        with torch.no_grad():
            apart = mean((tokenizer.pixels.back(found) - after).square(), valid)
            psnr = -10 * torch.log10(apart.clamp(min=1e-10))
            used = perplexity(change.found.index, self.config.model.vocab)
        assert len(before) == lead[0] * lead[1], lead
        return LossOutput(total, terms, {"psnr": psnr, "perplexity": used}), change

    def _prediction_loss(self, batch: Batch, rand: Rand | None) -> LossOutput:
        c, dynamics = self.config.model, self.dynamics_model
        blocks = batch.length - 1
        if blocks > c.max_blocks:
            raise ContractError(
                f"Delta-IRIS learns from at most model.max_blocks + 1 = {c.max_blocks + 1} steps "
                f"at once, got {batch.length}: shorten the phase, or raise model.max_blocks."
            )
        action, pairs = self._actions(batch)[:, :-1], batch.transitions()
        frames = batch.obs[KEY][:, :-1]  # (B, T, C, Y, X)
        tokens = self.sequence_tokens(frames, action)
        with dropping(self, c.dropout, rand):
            out = dynamics.sequence(frames, action, tokens, batch.is_first[:, :-1])
        terms, metrics = self.terms(out, tokens, batch)
        scales = {"tokens": c.scale_tokens, "rewards": c.scale_reward, "ends": c.scale_end}
        total = torch.stack([scales[name] * term for name, term in terms.items()]).sum()
        assert pairs.valid.shape[1] == blocks, pairs.valid.shape
        return LossOutput(total, terms, metrics)

    @torch.no_grad()
    def sequence_tokens(self, frames: Tensor, action: Tensor) -> Tensor:
        """Tokens (B, T, K) of the changes behind frames (B, T, C, Y, X); 0 behind the last."""
        seen = unit(frames)
        before, after = (x.flatten(0, 1) for x in (seen[:, :-1], seen[:, 1:]))
        found: Tensor = self.dynamics_model.tokenizer.tokens(
            before, action[:, :-1].flatten(0, 1), after
        ).unflatten(0, (frames.shape[0], frames.shape[1] - 1))
        return (
            torch.cat([found, torch.zeros_like(found[:, :1])], 1)
            if found.shape[1]
            else (torch.zeros(*frames.shape[:2], self.config.model.tokens, dtype=torch.int64))
        )

    def terms(self, out: Tensor, tokens: Tensor, batch: Batch) -> tuple[dict[str, Tensor], Metrics]:
        """Cross entropies of outputs (B, T, K + 2, D), of tokens (B, T, K), of T + 1 steps."""
        dynamics, pairs = self.dynamics_model, batch.transitions()
        acted, valid = out[:, :, 1], pairs.valid
        logits = dynamics.token(out[:, :-1, 1:-1]).float()  # (B, T-1, K, V)
        ends = dynamics.end(acted).float()
        entropy = F.cross_entropy(
            logits.flatten(0, 2), tokens[:, :-1].flatten(), reduction="none"
        ).view(tokens[:, :-1].shape)
        ended = F.cross_entropy(
            ends.flatten(0, 1), pairs.next_terminal.long().flatten(), reduction="none"
        ).view(valid.shape)
        right = (logits.detach().argmax(-1) == tokens[:, :-1]).float()
        terms = {
            "tokens": mean(entropy, valid[:, :-1]),
            "rewards": mean(self._reward_terms(acted, pairs.require("next_reward")), valid),
            "ends": mean(ended, valid),
        }
        same = (ends.detach().argmax(-1) == pairs.next_terminal.long()).float()
        accuracy = {
            "tokens_accuracy": mean(right, valid[:, :-1]), "ends_accuracy": mean(same, valid),
        }  # fmt: skip
        return terms, dict(accuracy)

    def _reward_terms(self, acted: Tensor, reward: Tensor) -> Tensor:
        """Cross entropy (B, T) to rewards (B, T): of their signs, or of two-hot symlogs."""
        dynamics = self.dynamics_model
        logits = dynamics.reward(acted).float()
        if dynamics.two_hot:
            target = symlog(reward).clamp(-LIMIT, LIMIT - 1e-5)
            return two_hot_cross_entropy(logits.log_softmax(-1), target, dynamics.bins)
        sign = reward.sign().long() + 1
        return F.cross_entropy(logits.flatten(0, 1), sign.flatten(), reduction="none").view(
            reward.shape
        )

    def _actions(self, batch: Batch) -> Tensor:
        """The actions as weights (B, T, A)."""
        taken = batch.require("action")
        return self.condition(taken.flatten(0, 1)).unflatten(0, taken.shape[:2])
