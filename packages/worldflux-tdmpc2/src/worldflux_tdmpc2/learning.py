"""What an update computes: latents rolled out along a sequence, and the losses on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worldflux.core.batch import Batch, Transitions
from worldflux.core.interfaces import Draws
from worldflux.core.state import State
from worldflux.errors import ContractError
from worldflux_tdmpc2 import draws as random
from worldflux_tdmpc2 import losses
from worldflux_tdmpc2.distribution import cross_entropy
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
class Proposed:
    """What the policy would do at each imagined State: the sample, and its value (B, H+1)."""

    sample: Sample
    value: Tensor


def loss_draws(
    model: TDMPC2WorldModel,
    batch: Batch,
    given: Draws | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The draws of an update: those given, completed.

    "td_eps" (B, H, A), "pi_eps" (B, H+1, A), "td_heads" and "pi_heads" (2,); with dropout
    "q_keep" (E, B H, M) and "pi_keep" (2, B (H+1), M); with images "shift" (B, H+1, 2).
    """
    c, size = model.config.model, model.action.size
    rows, steps = batch.batch_size, batch.length - batch.context - 1
    if steps < 1:
        raise ContractError(
            f"TD-MPC2 learns from transitions: a sequence of {steps + 1} step has none."
        )
    sources = {
        "td_eps": random.normal(rows, steps, size),
        "td_heads": random.heads(c.num_q),
        "pi_eps": random.normal(rows, steps + 1, size),
        "pi_heads": random.heads(c.num_q),
    }
    if c.dropout:
        policy = (random.HEADS, rows * (steps + 1), c.mlp_dim)
        sources["q_keep"] = random.keep_mask(c.dropout, c.num_q, rows * steps, c.mlp_dim)
        sources["pi_keep"] = random.keep_mask(c.dropout, *policy)
    if model.sizes.image is not None:
        sources["shift"] = random.shift(rows, steps + 1)
    return random.complete(sources, given, batch.is_first.device, generator)


def unroll(model: TDMPC2WorldModel, batch: Batch, draws: Draws) -> Unrolled:
    """Roll the latent out from each sequence's first observation, and compare at every step."""
    pairs = batch.map(lambda x: x[:, batch.context :]).transitions()
    shift = draws.get("shift")
    first = {key: value[:, 0] for key, value in pairs.obs.items()}
    start = model.encode(first, draws=None if shift is None else {"shift": shift[:, 0]})
    states = _imagined(model, start, pairs.require("action").transpose(0, 1))
    reached, td = _targets(model, pairs, draws)
    before, after = State.stack(states[:-1]), State.stack(states[1:])  # (B, H, ...)
    output = model.decode(after.flat(), keys=("reward", "continue"))
    lead = pairs.valid.shape  # (B, H)
    action = model.condition(pairs.require("action").flatten(0, 1)).unflatten(0, lead)
    q_logits = model.q(joint(before, action), keep=draws.get("q_keep"))
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


def _imagined(model: TDMPC2WorldModel, start: State, actions: Tensor) -> list[State]:
    """The H+1 States along actions (H, B, A), without predictions where the executor can."""
    own = isinstance(model.rollout_executor, LatentRollout)
    options: dict[str, Any] = {"states_only": True} if own else {}
    return model.rollout(start, actions, **options).states


@torch.no_grad()
def _targets(model: TDMPC2WorldModel, pairs: Transitions, draws: Draws) -> tuple[State, Tensor]:
    """Encoded next observations (B, H, ...), and TD targets (B, H): the lower of two target Qs."""
    lead, shift = pairs.valid.shape, draws.get("shift")
    forced = None if shift is None else {"shift": shift[:, 1:].flatten(0, 1)}
    flat = {key: value.flatten(0, 1) for key, value in pairs.next_obs.items()}
    reached = model.encode(flat, draws=forced)
    action = model.act_on(reached, draws["td_eps"].flatten(0, 1)).action
    value = model.two_q(reached, action, draws["td_heads"], target=True).amin(0)
    td = losses.td_target(
        pairs.require("next_reward"),
        pairs.next_terminal,
        value.unflatten(0, lead),
        model.discount(reached).expand(value.shape).unflatten(0, lead),
    )
    return reached.unflat(tuple(lead)), td


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


def imagine_policy(model: TDMPC2WorldModel, unrolled: Unrolled, draws: Draws) -> Proposed:
    """The policy at the imagined States, which take no gradient, valued by two frozen heads."""
    states = unrolled.states.detach()
    sample = model.act_on(states, draws["pi_eps"])
    q = model.two_q(
        states, sample.action, draws["pi_heads"], frozen=True, keep=draws.get("pi_keep")
    )
    return Proposed(sample, q.mean(0))


def policy_loss(model: TDMPC2WorldModel, unrolled: Unrolled, proposed: Proposed) -> Tensor:
    """Scaled value and entropy, negative, averaged over sequences and time, weighted rho^t."""
    c = model.config.model
    terms = losses.policy_loss(
        proposed.value, proposed.sample.scaled_entropy, model.scale.value, c.scale_entropy
    )
    rho = losses.time_weights(terms.shape[1], c.rho, terms)
    return (terms * unrolled.weight * rho).mean()
