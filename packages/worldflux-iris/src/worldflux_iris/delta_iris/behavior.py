"""Actor and critic learn in dreams that go on from recorded frames."""

from __future__ import annotations

from dataclasses import replace
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
from worldflux.nn.symlog import symlog
from worldflux.nn.two_hot import two_hot_cross_entropy
from worldflux_iris.delta_iris.actor import Memory
from worldflux_iris.delta_iris.dynamics import LIMIT
from worldflux_iris.sampling import sampled
from worldflux_iris.spaces import KEY

if TYPE_CHECKING:
    from worldflux_iris.delta_iris.agent import DeltaIRISAgent

Computed = tuple[Tensor, dict[str, Tensor]]


def loss(agent: DeltaIRISAgent, batch: Batch, rand: Rand) -> Computed:
    """The actor's and critic's loss in dreams from the last step of a Batch (B, T, ...)."""
    start, player = started(agent, batch, rand)
    return learnt(agent, player, dreamt(agent, start, player, rand.under("imagined/")))


@torch.no_grad()
def started(agent: DeltaIRISAgent, batch: Batch, rand: Rand) -> tuple[State, Player]:
    """The State (B, ...) after all steps of the Batch, and the actor that saw those before it."""
    with evaluating(agent.world_model):
        states = agent.world_model.observe_sequence(replace(batch, context=0))
    frames, first = agent.normal(batch.obs[KEY][:, :-1]), batch.is_first
    memories = [net.burned_in(frames, first[:, :-1]) for net in (agent.actor, agent.target)]
    begun = first[:, -1:]
    own, target = (tuple(x.masked_fill(begun, 0) for x in memory) for memory in memories)
    return states.at(-1), Player(agent, own, target, rand.under("policy/"))  # type: ignore[arg-type]


class Player:
    """Actor and target network in a dream: what they made of each frame."""

    def __init__(self, agent: DeltaIRISAgent, own: Memory, target: Memory, rand: Rand) -> None:
        self.agent, self.own, self.target, self.rand = agent, own, target, rand
        self.logits: list[Tensor] = []
        self.values: list[Tensor] = []
        self.targets: list[Tensor] = []

    def __call__(self, state: State, t: int) -> Tensor:
        """An action (B,) for State (B, ...) of imagined step t; gradients reach the actor."""
        frame, actor = self.agent.normal(state["frame"]), self.agent.actor
        with torch.enable_grad():
            self.own = actor(frame, *self.own)
            logits, value = actor.heads(self.own[0])
        self.logits.append(logits)
        self.values.append(value)
        self.judge(state)
        return sampled(logits.detach(), "action", self.rand.at(t))

    @torch.no_grad()
    def judge(self, state: State) -> None:
        """What the target network makes of the frame of State (B, ...)."""
        target = self.agent.target
        self.target = target(self.agent.normal(state["frame"]), *self.target)
        self.targets.append(target.scalar(target.heads(self.target[0])[1]))


def dreamt(agent: DeltaIRISAgent, start: State, player: Player, rand: Rand) -> Trajectory:
    """A dream of `horizon` steps from State (B, ...); gradients reach the player alone."""
    with torch.no_grad(), evaluating(agent.world_model):
        path = agent.world_model.rollout(
            start, player, horizon=agent.config.agent.horizon, rand=rand
        )
        player.judge(path.states[-1])
    return path


def learnt(agent: DeltaIRISAgent, player: Player, path: Trajectory) -> Computed:
    """The loss of a dream up to its end: REINFORCE against the target network's values."""
    c = agent.config.agent
    logits, value = torch.stack(player.logits, 1), torch.stack(player.values, 1)
    target = torch.stack(player.targets, 1)  # (B, H + 1)
    reward, ended = (path.to_tensor(key)[1:].transpose(0, 1) for key in ("reward", "ended"))
    returns = lambda_returns(reward, ended, target[:, 1:], c.gamma, c.lam)
    terms = reinforce(logits, path.actions.transpose(0, 1), returns - target[:, :-1], c.entropy)
    if agent.actor.two_hot:
        aim = symlog(returns).clamp(-LIMIT, LIMIT - 1e-5)
        terms["value"] = two_hot_cross_entropy(value.log_softmax(-1), aim, agent.actor.bins)
    else:
        terms["value"] = (value[..., 0] - returns).square()
    held = before_end(ended)
    means = {name: mean(term, held) for name, term in terms.items()}
    told = {
        "return": mean(returns, held),
        "dream_value": mean(target[:, :-1], held),
        "dream_reward": mean(reward, held),
        "dream_ended": ended.mean(),
    }
    losses = {f"loss/{name}": term for name, term in means.items()}
    return torch.stack(list(means.values())).sum(), losses | told
