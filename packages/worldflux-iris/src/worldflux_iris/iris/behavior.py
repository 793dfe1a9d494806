"""Actor and critic learn in dreams that start from recorded frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.core.trajectory import Trajectory
from worldflux.distributed import mean
from worldflux.nn.actor_critic import before_end, lambda_returns, reinforce
from worldflux.nn.modes import evaluating
from worldflux_iris.sampling import sampled
from worldflux_iris.spaces import KEY

if TYPE_CHECKING:
    from worldflux_iris.iris.agent import IRISAgent

Computed = tuple[Tensor, dict[str, Tensor]]


def loss(agent: IRISAgent, batch: Batch, rand: Rand) -> Computed:
    """The actor's and critic's loss in dreams from the last step of a Batch (B, T, ...)."""
    start, memory, seen = started(agent, batch)
    player = Player(agent, memory, seen, rand.under("policy/"))
    return learnt(agent, player, dreamt(agent, start, player, rand.under("imagined/")))


@torch.no_grad()
def started(agent: IRISAgent, batch: Batch) -> tuple[State, tuple[Tensor, Tensor], Tensor]:
    """Where dreams start: the State (B, ...) of the last frame alone, as published.

    Also the actor's memory of the frames before it, (B, memory) twice, and how the last one looks
    to the actor (B, C, Y, X).
    """
    model, image = agent.world_model, batch.obs[KEY]
    seen = agent.normal(model.reconstructed(image))  # (B, T, C, Y, X)
    mask = None if batch.mask is None else batch.mask[:, :-1]
    memory = agent.actor.burned_in(seen[:, :-1], mask)
    return model.encode({KEY: image[:, -1]}), memory, seen[:, -1]


class Player:
    """The actor in a dream: what it made of each frame beside the States, with gradients if it
    learns."""

    def __init__(
        self,
        agent: IRISAgent,
        memory: tuple[Tensor, Tensor],
        seen: Tensor,
        rand: Rand,
        learns: bool = True,
    ) -> None:
        self.learns = learns
        self.agent, self.memory, self.rand = agent, memory, rand
        self.logits: list[Tensor] = []
        self.values: list[Tensor] = []
        self.frames: list[Tensor] = [seen]

    def __call__(self, state: State, t: int) -> Tensor:
        """An action (B,) for State (B, ...) of imagined step t."""
        self.look(state, t)
        return sampled(self.logits[-1].detach(), "action", self.rand.at(t))

    def look(self, state: State, t: int) -> None:
        """See the frame of State (B, ...); it is decoded without gradient, but for the start's."""
        if t:
            shown = self.agent.world_model.decode(state, keys=(KEY,)).predictions[KEY]
            self.frames.append(self.agent.normal(shown).detach())
        with torch.set_grad_enabled(self.learns):
            self.memory = self.agent.actor(self.frames[-1], *self.memory)
            logits, value = self.agent.actor.heads(self.memory[0])
        self.logits.append(logits)
        self.values.append(value)


def dreamt(agent: IRISAgent, start: State, player: Player, rand: Rand) -> Trajectory:
    """A dream of `horizon` frames from State (B, ...); gradients reach the player alone."""
    horizon = agent.config.agent.horizon - 1
    with torch.no_grad(), evaluating(agent.world_model):
        path = agent.world_model.rollout(start, player, horizon=horizon, rand=rand)
        player.look(path.states[-1], horizon)
    return path


def learnt(agent: IRISAgent, player: Player, path: Trajectory) -> Computed:
    """The loss of a dream: REINFORCE with the value as its baseline, and the value's own."""
    c = agent.config.agent
    logits, value = torch.stack(player.logits[:-1], 1), torch.stack(player.values, 1)
    reward, ended = (path.to_tensor(key)[1:].transpose(0, 1) for key in ("reward", "ended"))
    value, following = value[:, :-1], value[:, 1:].detach()  # (B, H-1)
    returns = lambda_returns(reward, ended, following, c.gamma, c.lam)
    terms = reinforce(logits, path.actions.transpose(0, 1), returns - value, c.entropy)
    terms["value"] = (value - returns).square()
    held = before_end(ended) if c.mask_ended else None
    means = {name: mean(term, held) for name, term in terms.items()}
    told = {
        "return": returns.mean(),
        "dream_value": value.mean(),
        "dream_reward": reward.mean(),
        "dream_ended": ended.mean(),
    }
    losses = {f"loss/{name}": term for name, term in means.items()}
    return torch.stack(list(means.values())).sum(), losses | told
