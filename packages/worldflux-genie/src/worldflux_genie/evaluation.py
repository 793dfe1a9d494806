"""How good a Genie is on video it was not trained on: does the action decide what comes next?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.evaluation import Evaluation, held_out_batches
from worldflux.core.rand import Rand, randint
from worldflux.core.source import Source
from worldflux.nn.vector_quantizer import perplexity
from worldflux_genie.patches import pixels
from worldflux_genie.pictures import pictures
from worldflux_genie.world_model import GenieWorldModel

if TYPE_CHECKING:
    from worldflux_genie.agent import GenieLearner


def psnr(video: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB (...) of images (..., C, Y, X), each by itself."""
    error = (video.clamp(0, 1) - target).square().mean((-3, -2, -1))
    return -10 * error.clamp(min=1e-10).log10()


@dataclass(frozen=True)
class Effect:
    """PSNR (H, B) of predictions along the inferred actions, and along random ones."""

    inferred: Tensor
    random: Tensor

    def delta(self) -> Tensor:
        """The paper's delta_t PSNR at every step (H,), in dB: what the actions are good for."""
        return (self.inferred - self.random).mean(1)


@torch.no_grad()
def effect_of_actions(
    model: GenieWorldModel, batch: Batch, rand: Rand, horizon: int, shuffled: bool = False
) -> Effect:
    """Predict frames (B, H) after a prompt, along inferred and along random latent actions.

    The prompt is all that the sequences (B, T) leave before the horizon. `shuffled` gives each
    row the actions of another one, the control: they say nothing then.
    """
    video = batch.obs[model.key]
    index = model.infer_actions(video, batch.is_first)  # (B, T - 1)
    prompt = video.shape[1] - horizon
    start = model.observe_sequence(_with(batch, index).map(lambda x: x[:, :prompt])).at(-1)
    start = start.with_({"actions": _led(model, start["actions"], index, prompt)})
    own = index[:, prompt - 1 :].T  # (H, B)
    other = rand.draw("random", tuple(own.shape), randint(model.action_conditioner.quantizer.codes))
    if shuffled:
        own = own.roll(1, 1)
    target = pixels(video[:, prompt:]).transpose(0, 1)
    found = {}
    for name, actions in (("inferred", own), ("random", other.to(own))):
        path = model.rollout(
            start, model.latent_codes(actions), decode=True, rand=rand.under(f"{name}/")
        )
        assert path.observations is not None
        found[name] = psnr(path.observations[model.key][1:], target)
    return Effect(**found)


def _with(batch: Batch, index: Tensor) -> Batch:
    return replace(batch, action=None)


def _led(model: GenieWorldModel, actions: Tensor, index: Tensor, prompt: int) -> Tensor:
    """The history's actions (B, T, L) with those that were inferred between the prompt's frames."""
    codes = model.latent_codes(index[:, : prompt - 1])
    return torch.cat([actions[:, :1], codes, actions[:, prompt:]], 1)


def evaluated(learner: GenieLearner, source: Source, rand: Rand, limit: int) -> Evaluation:
    """The score is the delta PSNR at step `agent.horizon`; with it what is on the way there.

    The losses of all phases, the tokenizer's PSNR, and how many tokens and actions are in use.
    """
    model, plan = learner.world_model, learner.training_plan()
    found = learner.held_out_losses(plan.phases, source, rand, limit)
    effects, tokens, actions, seen = [], [], [], []
    first: Batch | None = None
    horizon = min(learner.config.agent.horizon, learner.config.model.frames - 1)
    for number, batch in enumerate(held_out_batches(source, plan.phase("dynamics"), limit)):
        first = first or batch
        with learner.autocast():
            index = model.tokens(batch)
            effects.append(effect_of_actions(model, batch, rand.under(f"{number}/"), horizon))
            video = model.decoder_module.of_tokens(index)
        seen.append(psnr(video, pixels(batch.obs[model.key])))
        tokens.append(index.flatten())
        actions.append(model.infer_actions(batch.obs[model.key], batch.is_first).flatten())
    if first is None:
        return Evaluation(metrics=found)
    effect = Effect(
        torch.cat([e.inferred for e in effects], 1), torch.cat([e.random for e in effects], 1)
    )
    used, taken = torch.cat(tokens), torch.cat(actions)
    delta = effect.delta()
    found |= {
        "psnr/tokenizer": float(torch.cat(seen).mean()),
        "psnr/inferred": float(effect.inferred[-1].mean()),
        "psnr/random": float(effect.random[-1].mean()),
        "codes_used/tokens": float(perplexity(used, model.config.model.tokenizer.quantizer.size)),
        "codes_used/actions": float(perplexity(taken, model.action_conditioner.quantizer.codes)),
        **{f"delta_psnr/{t + 1}": float(x) for t, x in enumerate(delta)},
    }
    shown = pictures(model, first, used, delta, rand.under("pictures/"))
    return Evaluation(float(delta[-1]), found, shown)
