"""DreamerV1's agent: the actor climbs imagined returns by their gradient through the dynamics."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.output import UpdateResult
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.specs import TensorSpec
from worldflux_dreamer.dreamerv1 import losses
from worldflux_dreamer.dreamerv1.config import DreamerV1Config
from worldflux_dreamer.dreamerv1.world_model import DreamerV1WorldModel
from worldflux_dreamer.latent_rssm.actors import Actor
from worldflux_dreamer.latent_rssm.agent import Imagined, ImaginingAgent, measured


class DreamerV1Agent(ImaginingAgent):
    """tanh-normal actor or straight-through choices; all three learn under the same weights."""

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
        self, batch: Batch, phase: str = "train", *, rand: Rand | None = None
    ) -> UpdateResult:
        """One step of each optimiser; every gradient is that of the weights before the update.

        The dreams begin at the very States that the model's step learns from.
        """
        with self.together():
            model = self.model_step(batch, rand)
            found = self.behavior_steps(batch, model.pop("posterior"), rand)
        self.updates += 1
        return UpdateResult(measured({"model": model, **found}))

    def actor_loss(self, imagined: Imagined) -> tuple[Tensor, State, dict[str, Tensor]]:
        """The return's gradient is the actor's; the critic learns the same returns."""
        feat = imagined.feat[:, 1:]  # (N, H, F)
        returns, weight = losses.imagined_returns(
            imagined.reward, imagined.going_on, self.value(feat), imagined.live, self.behavior.lam
        )
        seen = State({"feat": feat[:, :-1].detach(), "target": returns, "weight": weight})
        found = {"return": returns.mean(), "reward": imagined.reward.mean()}
        return losses.actor_loss(returns, weight), seen, {**found, "weight": weight.mean()}
