"""What an update computes: latents rolled out along a sequence, and the losses on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worldflux.core.batch import Batch, Transitions
from worldflux.core.rand import Rand, normal
from worldflux.core.state import State
from worldflux.errors import ContractError
from worldflux_tdmpc2 import losses
from worldflux_tdmpc2.distribution import cross_entropy
from worldflux_tdmpc2.draws import HEADS, keep_mask
from worldflux_tdmpc2.latent import LatentRollout, joint
from worldflux_tdmpc2.policy import Sample

if TYPE_CHECKING:
    from worldflux_tdmpc2.world_model import TDMPC2WorldModel


@dataclass(frozen=True)
class Unrolled:
    """A sequence's loss terms (B, H), its imagined States (B, H+1, ...), and what they came from.

    `weight` (B, H+1) is 0 for States behind an episode boundary or on padding.
    """

    terms: dict[str, Tensor]
    states: State
    weight: Tensor
    td_target: Tensor
    terminal: Tensor
    termination_logit: Tensor | None


@dataclass(frozen=True)
class ValuedSample:
    """What the policy would do at each imagined State: the sample, and its value (B, H+1)."""

    sample: Sample
    value: Tensor


def unroll(model: TDMPC2WorldModel, batch: Batch, rand: Rand) -> Unrolled:
    """Roll the latent out from each sequence's first observation, and compare at every step.

    Draws: "td_eps" (B, H, A) and "td_heads" (2,) of the targets; with dropout "q_keep"
    (B, H, E, M); with images "shift" (B, H+1, 2).
    """
    pairs = _pairs(model, batch, rand)
    start = model.encode({key: value[:, 0] for key, value in pairs.obs.items()}, True)
    states = _imagined(model, start, pairs.require("action").transpose(0, 1), rand)
    reached, td = _targets(model, pairs, rand)
    before, after = State.stack(states[:-1]), State.stack(states[1:])  # (B, H, ...)
    output = model.decode(after.flat(), keys=("reward", "continue"), rand=rand)
    lead = tuple(pairs.valid.shape)  # (B, H)
    action = model.condition(pairs.require("action").flatten(0, 1)).unflatten(0, lead)
    keep = dropout_mask(model, "q_keep", (*lead, model.q.members), rand)
    q_logits = model.q(joint(before, action), keep=by_head(keep))
    reward_logits = output.aux["reward_logits"].unflatten(0, lead)
    terms = {
        "consistency": losses.consistency(after["latent"], reached["latent"]),
        "reward": cross_entropy(reward_logits, pairs.require("next_reward"), model.bins),
        "value": losses.value_cross_entropy(q_logits, td, model.bins),
    }
    logit = None
    if model.config.model.episodic:
        logit = output.aux["termination_logit"].unflatten(0, lead)
        terms["termination"] = losses.termination_cross_entropy(logit, pairs.next_terminal)
    for name, term in terms.items():
        assert term.shape == lead, (name, term.shape, lead)
    alive = pairs.valid.float().cumprod(1)
    weight = torch.cat([torch.ones_like(alive[:, :1]), alive], 1)
    return Unrolled(terms, State.stack(states), weight, td, pairs.next_terminal, logit)


def _pairs(model: TDMPC2WorldModel, batch: Batch, rand: Rand) -> Transitions:
    """The transitions (B, H, ...) of a batch's sequences, their images shifted at random."""
    batch = batch.without_context()
    if batch.length < 2:
        raise ContractError(
            f"TD-MPC2 learns from transitions: a sequence of {batch.length} step has none."
        )
    return replace(batch, obs=model.augmented(batch.obs, rand)).transitions()


def _imagined(model: TDMPC2WorldModel, start: State, actions: Tensor, rand: Rand) -> list[State]:
    """The H+1 States along actions (H, B, A), without predictions where the executor can."""
    own = isinstance(model.rollout_executor, LatentRollout)
    options: dict[str, Any] = {"states_only": True} if own else {}
    return model.rollout(start, actions, rand=rand.under("imagined/"), **options).states


@torch.no_grad()
def _targets(model: TDMPC2WorldModel, pairs: Transitions, rand: Rand) -> tuple[State, Tensor]:
    """Encoded next observations (B, H, ...), and TD targets (B, H): the lower of two target Qs."""
    lead, device = tuple(pairs.valid.shape), pairs.valid.device
    eps = rand.draw("td_eps", (*lead, model.action.size), normal, device=device)
    flat = {key: value.flatten(0, 1) for key, value in pairs.next_obs.items()}
    reached = model.encode(flat, True)
    action = model.act_on(reached, eps.flatten(0, 1)).action
    value = model.two_q(reached, action, model.drawn_heads("td_heads", rand), target=True).amin(0)
    td = losses.td_target(
        pairs.require("next_reward"),
        pairs.next_terminal,
        value.unflatten(0, lead),
        model.discount(reached).expand(value.shape).unflatten(0, lead),
    )
    return reached.unflat(lead), td


def dropout_mask(
    model: TDMPC2WorldModel, name: str, lead: tuple[int, ...], rand: Rand
) -> Tensor | None:
    """The draw `name` (B, T, E, M) for `lead` (B, T, E) inputs and heads; None without dropout."""
    c = model.config.model
    if not c.dropout:
        return None
    shape = (*lead, c.mlp_dim)
    return rand.draw(name, shape, keep_mask(c.dropout), device=model.bins.device)


def by_head(mask: Tensor | None) -> Tensor | None:
    """A mask (B, T, E, M) as the ensemble takes it, (E, B * T, M)."""
    return None if mask is None else mask.flatten(0, 1).transpose(0, 1)


def model_loss(model: TDMPC2WorldModel, unrolled: Unrolled) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum to minimise, and its named parts: means over sequences and time, weighted rho^t."""
    c, alive = model.config.model, unrolled.weight[:, 1:]
    rho = losses.time_weights(alive.shape[1], c.rho, alive)
    weights = {"consistency": rho, "reward": rho, "value": rho, "termination": torch.ones_like(rho)}
    scales = {
        "consistency": c.scale_consistency,
        "reward": c.scale_reward,
        "value": c.scale_value,
        "termination": c.scale_termination,
    }
    parts = {name: (term * alive * weights[name]).mean() for name, term in unrolled.terms.items()}
    total = torch.stack([scales[name] * part for name, part in parts.items()]).sum()
    return total, parts


def policy_batch(model: TDMPC2WorldModel, states: State, weight: Tensor, rand: Rand) -> State:
    """What the policy learns from: imagined States (B, H+1, ...), without gradient, and noise.

    Added are "weight" (B, H+1) and the draws "pi_eps" (B, H+1, A) and, with dropout, "pi_keep"
    (B, H+1, 2, M): two passes over the same numbers, the value scale's and the loss's.
    """
    lead = tuple(weight.shape)
    eps = rand.draw("pi_eps", (*lead, model.action.size), normal, device=weight.device)
    keep = dropout_mask(model, "pi_keep", (*lead, HEADS), rand)
    added = {"weight": weight, "pi_eps": eps, **({} if keep is None else {"pi_keep": keep})}
    return states.detach().with_(added)


def imagine_policy(model: TDMPC2WorldModel, batch: State, heads: Tensor) -> ValuedSample:
    """The policy at the States of a `policy_batch`, valued by two frozen heads (2,)."""
    sample = model.act_on(batch, batch["pi_eps"])
    keep = by_head(batch.get("pi_keep"))
    q = model.two_q(batch, sample.action, heads, frozen=True, keep=keep)
    return ValuedSample(sample, q.mean(0))


@torch.no_grad()
def first_values(model: TDMPC2WorldModel, batch: State, heads: Tensor) -> Tensor:
    """Values (B,) of the policy where each sequence of a `policy_batch` begins."""
    return imagine_policy(model, batch.map(lambda x: x[:, :1]), heads).value[:, 0]


def policy_loss(model: TDMPC2WorldModel, batch: State, proposed: ValuedSample) -> Tensor:
    """Scaled value and entropy, negative, averaged over sequences and time, weighted rho^t."""
    c = model.config.model
    terms = losses.policy_loss(
        proposed.value, proposed.sample.scaled_entropy, model.scale.value, c.scale_entropy
    )
    rho = losses.time_weights(terms.shape[1], c.rho, terms)
    return (terms * batch["weight"] * rho).mean()
