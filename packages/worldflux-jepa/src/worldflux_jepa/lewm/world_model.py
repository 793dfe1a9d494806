"""LeWorldModel: embeddings that predict the next ones, kept apart by SIGReg alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand, normal
from worldflux.core.spec import StateSpec
from worldflux.core.state import State
from worldflux.distributed import gather, mean
from worldflux.errors import CapabilityError, ContractError
from worldflux.specs import Capability, TensorSpec
from worldflux_jepa.acting import require_evaluating
from worldflux_jepa.collapse import spread
from worldflux_jepa.encoder import ViT
from worldflux_jepa.goals import distance_to_goal
from worldflux_jepa.lewm.config import LeWMConfig
from worldflux_jepa.lewm.dynamics import WindowDynamics
from worldflux_jepa.lewm.networks import BlockEncoder
from worldflux_jepa.pixels import image_key
from worldflux_jepa.projected import Convolutions, Projected
from worldflux_jepa.sigreg import sigreg
from worldflux_jepa.window import even

REP = "rep"


class LeWorldModel(WorldModel):
    """Embeddings of images and, from blocks of actions, of the images that follow."""

    capabilities = frozenset({Capability.PLANNING, Capability.GOAL_CONDITIONED})
    composable_support = frozenset({"observation_encoder", "action_conditioner", "dynamics_model"})
    loss_spans_batch = True

    def __init__(
        self,
        config: LeWMConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        """`CapabilityError` where there is no image, or no continuous action."""
        own = config.model
        self.stride = own.stride
        super().__init__(config, obs_spec, action_spec)
        self.own = own
        single = next(iter(self.action_spec.values()), None)
        if single is None or single.discrete:
            raise CapabilityError(f"LeWM needs a continuous action, got {single or 'none'}.")
        width = own.embed
        self.fill("observation_encoder", self._encoder, expects={REP: (width,)})
        self.fill(
            "action_conditioner",
            lambda: BlockEncoder(single, own.stride, width, own.action_mlp, own.action_width),
            expects={"action": (width,)},
        )
        self.fill("dynamics_model", lambda: WindowDynamics(own, width))

    def _encoder(self) -> Projected:
        own, key = self.own, image_key(self.obs_spec, "LeWM")
        spec = self.obs_spec[key]
        if own.encoder == "vit":
            return Projected(ViT(own.vit, key, spec), own.vit.width, own.projector, own.embed)
        trunk = Convolutions(own.conv, key, spec)
        return Projected(trunk, trunk.size, own.projector, own.embed)

    def state_spec(self) -> StateSpec:
        window = TensorSpec((self.own.history, self.own.embed))
        sizes = {REP: TensorSpec((self.own.embed,)), "history": window, "blocks": window}
        return StateSpec({**sizes, "count": TensorSpec((), "int64")})

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """Squared error of the next embeddings, and SIGReg of all of them.

        Gradients go everywhere: there is no slow copy, and nothing is detached.
        """
        rep = self.embedded(batch)  # (B, T, D)
        pairs = batch.transitions()
        action = self.condition(pairs.require("action").flatten(0, 1))
        guess = self._guesses(batch, rep, action.unflatten(0, pairs.valid.shape), rand)
        near = mean((guess - rep[:, 1:]).square().mean(-1), pairs.valid)
        shape = (self.own.embed, self.own.directions)
        directions = (rand or Rand()).draw(
            "directions", shape, normal, device=rep.device, shared=True
        )
        apart = sigreg(gather(rep).transpose(0, 1), directions, self.own.knots)
        loss = near + self.own.sigreg * apart
        return LossOutput(
            loss, {"prediction": near, "sigreg": apart}, {**spread(rep.flatten(0, 1))}
        )

    def embedded(self, batch: Batch) -> Tensor:
        """Embeddings (B, T, D) of all steps; batch norm is over all of them."""
        obs = {key: value.flatten(0, 1) for key, value in batch.obs.items()}
        encoder = self.slot("observation_encoder", "loss")
        features: State = encoder(self.observations(obs))
        return features[REP].unflatten(0, batch.is_first.shape)

    def _guesses(self, batch: Batch, rep: Tensor, action: Tensor, rand: Rand | None) -> Tensor:
        """Predictions (B, T - 1, D) of the embeddings after each of rep (B, T, D) but the last."""
        dynamics, steps = self.slot("dynamics_model", "loss"), action.shape[1]
        fits = steps <= self.own.history or self.own.history == 1
        if isinstance(dynamics, WindowDynamics) and fits:
            dropped = (rand or Rand()).under("dropout/") if self.training else None
            return dynamics.sequence(rep[:, :-1], action, batch.is_first[:, :-1], dropped)
        zero = torch.zeros_like(action[:, :1])
        seen = dynamics.observe_sequence(
            dynamics.initial(len(rep), rep.device),
            torch.cat([zero, action[:, :-1]], 1),
            State({REP: rep[:, :-1]}),
            batch.is_first[:, :-1],
        )
        after = dynamics.transition(seen.flat(), action.flatten(0, 1), rand=rand)
        return after[REP].unflatten(0, (len(rep), steps))

    def score(
        self, state: State, actions: Tensor, conditions: ConditionPayload | None = None,
        *, rand: Rand | None = None,
    ) -> Tensor:  # fmt: skip
        """Scores (B, N) of plans (B, N, H, k, A): how near they come to `conditions.goal`."""
        goal = self._goal(conditions)
        pieces = max(1, self.own.rows // max(1, len(actions)))
        found = [self._costs(state, part, goal) for part in actions.split(pieces, 1)]
        return -torch.cat(found, 1)

    def _goal(self, conditions: ConditionPayload | None) -> Tensor:
        require_evaluating(self, "LeWM")
        if conditions is None or conditions.goal is None:
            raise ContractError(
                "LeWM plans toward a goal and predicts no reward: give conditions.goal, an "
                "embedding (B, D), or an environment whose observations have a 'goal'."
            )
        return conditions.goal

    def _costs(self, state: State, actions: Tensor, goal: Tensor) -> Tensor:
        """Costs (B, N) of plans (B, N, H, k, A)."""
        lead = actions.shape[:3]
        conditioned = self.condition(actions.flatten(0, 2)).unflatten(0, lead)
        dynamics = self.slot("dynamics_model", "score")
        if isinstance(dynamics, WindowDynamics) and even(state):
            path = dynamics.paths(state, conditioned)  # (B, N, H, D)
        else:
            path = _stepped(dynamics, state.repeat(lead[1]), conditioned.flatten(0, 1))
            path = path.unflatten(0, lead[:2])
        return distance_to_goal(path, goal, self.own.distance, self.own.cost)


def _stepped(dynamics: object, state: State, actions: Tensor) -> Tensor:
    """Embeddings (R, H, D) after each of conditioned actions (R, H, A'), one by one."""
    found = []
    for action in actions.unbind(1):
        state = dynamics.transition(state, action, deterministic=True)  # type: ignore[attr-defined]
        found.append(state[REP])
    return torch.stack(found, 1)
