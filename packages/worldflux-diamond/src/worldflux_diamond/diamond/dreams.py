"""Dreams: episodes in the world model that live on from one update to the next.

A dream ends where the model says so, or after `dream_length` steps; another one begins in its
place, from the next of the real histories that the update was given. Its State is the world
model's with "actor.h" and "actor.c" (B, D), the policy's memory, "actor.age" (B,), steps dreamt,
and "actor.over" (B,), 1 where a dream has ended and there was no history left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux_diamond.diamond.actor_critic import ActorCritic, sampled
from worldflux_diamond.diamond.world_model import DiamondWorldModel


@dataclass(frozen=True)
class Dreamt:
    """Imagined steps (B, H, ...): `live` is False where there was no dream."""

    logits: Tensor
    action: Tensor
    value: Tensor
    next_value: Tensor
    reward: Tensor
    ended: Tensor
    cut: Tensor
    live: Tensor
    frame: Tensor


def starts(model: DiamondWorldModel, actor: ActorCritic, batch: Batch, rand: Rand) -> State:
    """What dreams may begin from: the last steps of histories (B, T, ...), as States (B, ...).

    The policy has seen all of a history but its last frame.
    """
    with torch.no_grad():
        state = model.observe_sequence(batch, rand=rand).at(-1)
    frames, seen = state["frames"], state["seen"]
    far = torch.arange(frames.shape[1], 1, -1, device=frames.device)  # how far back each is
    h, c = actor.burned_in(frames[:, :-1], far <= seen[:, None])
    zeros = torch.zeros_like(seen)
    own = {"actor.h": h, "actor.c": c, "actor.age": zeros, "actor.over": zeros.clone()}
    return state.with_(own)


def restarted(dreams: State, pool: State, used: Tensor, over: Tensor) -> tuple[State, Tensor]:
    """Dreams (B, ...) that are `over` (B,) begun anew, from `pool` (N, ...), in order.

    `used` (0-d) histories are gone already. What is over and finds none left is marked so.
    """
    index = used + over.long().cumsum(0) - 1
    found = over & (index < pool.batch_size)
    fresh = pool.rows(index.clamp(0, pool.batch_size - 1))
    left = dreams.with_({"actor.over": over.float()})
    return fresh.where(found, left), used + over.sum()


def dream(
    model: DiamondWorldModel,
    actor: ActorCritic,
    dreams: State,
    pool: State,
    used: Tensor,
    *,
    horizon: int,
    length: int,
    rand: Rand,
) -> tuple[Dreamt, State]:
    """`horizon` steps of every dream (B, ...), and the dreams as they go on.

    Gradients run through the policy's memory, burn-in included. Draws, each with an axis for the
    step first: "action" (gumbel), and those of the model's `transition`.
    """
    steps: list[dict[str, Tensor]] = []
    for t in range(horizon):
        now = rand.at(t)
        live = dreams["actor.over"] == 0
        frame = dreams["frames"][:, -1]
        logits, value, (h, c) = actor(frame, (dreams["actor.h"], dreams["actor.c"]))
        action = sampled(logits, now)
        with torch.no_grad():
            after = model.transition(dreams.detach(), action, rand=now)
            next_value = actor(after["frames"][:, -1], (h, c))[1]
        age = dreams["actor.age"] + 1
        ended, cut = after["ended"].bool(), age >= length
        steps.append(
            {
                "logits": logits, "action": action, "value": value, "next_value": next_value,
                "reward": after["reward"], "ended": ended, "cut": cut, "live": live,
                "frame": frame,
            }
        )  # fmt: skip
        own = {"actor.h": h, "actor.c": c, "actor.age": age, "actor.over": (~live).float()}
        dreams, used = restarted(after.with_(own), pool, used, ended | cut | ~live)
    found = {key: torch.stack([step[key] for step in steps], 1) for key in steps[0]}
    return Dreamt(**found), dreams
