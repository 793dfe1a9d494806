"""DreamerV1's agent: the actor climbs imagined returns by their gradient through the dynamics."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.interfaces import Draws
from worldflux.core.output import UpdateResult
from worldflux.specs import TensorSpec
from worldflux_dreamer.ancestors.actors import Actor
from worldflux_dreamer.ancestors.agent import Imagined, ImaginingAgent
from worldflux_dreamer.dreamerv1 import losses
from worldflux_dreamer.dreamerv1.config import DreamerV1Config
from worldflux_dreamer.dreamerv1.world_model import DreamerV1WorldModel


class DreamerV1Agent(ImaginingAgent):
    """tanh-normal actor or straight-through choices; all three optimisers step at once."""

    config: DreamerV1Config

    def __init__(
        self,
        config: DreamerV1Config,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, DreamerV1WorldModel(config, obs_spec, action_spec))

    def make_actor(self, size_in: int) -> Actor:
        sizes, c = self.config.model, self.config.agent
        return Actor(
            size_in,
            self.spec,
            continuous="tanh_normal",
            units=sizes.units,
            layers=c.actor_layers,
            activation=sizes.activation,
            min_std=c.min_std,
            init_std=c.init_std,
            mean_scale=c.mean_scale,
        )

    def update(
        self,
        batch: Batch,
        phase: str = "train",
        *,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> UpdateResult:
        """All three losses under the same weights, then one step of each optimiser."""
        data = self.world_model.sequences(batch)
        draws = draws or self.noise(data, generator)
        with self.autocast():
            posterior = self.world_model.observe_sequence(data, draws, None)
            model = self.world_model.reduced(data, posterior)
            imagined = self.imagine(posterior, data.is_terminal, draws)
            actor, critic, metrics = self.behavior_losses(imagined)
        found = {"model": model.loss, "actor": actor, "critic": critic}
        norms = {name: self.differentiate(name, loss) for name, loss in found.items()}
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        metrics |= {f"loss/{name}": loss.detach() for name, loss in found.items()}
        metrics |= {f"loss/{name}": term.detach() for name, term in model.items()}
        metrics |= {f"grad_norm/{name}": norm for name, norm in norms.items()}
        return UpdateResult(metrics)

    def behavior_losses(self, imagined: Imagined) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Actor and critic loss and metrics; the return's gradient is the actor's."""
        feat = imagined.feat[:, 1:]  # (N, H, F)
        returns, weight = losses.imagined_returns(
            imagined.reward, imagined.going_on, self.value(feat), imagined.live, self.behavior.lam
        )
        value = self.value(feat[:, :-1].detach())
        metrics = {"return": returns.mean().detach(), "value": value.mean().detach()}
        metrics |= {"reward": imagined.reward.mean().detach(), "weight": weight.mean()}
        critic = losses.critic_loss(value, returns, weight)
        return losses.actor_loss(returns, weight), critic, metrics
