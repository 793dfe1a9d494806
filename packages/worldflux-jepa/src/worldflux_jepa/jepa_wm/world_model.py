"""A JEPA world model: the next frames' tokens, from tokens of an encoder and actions."""

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
from worldflux_jepa.goals import distance_to_goal
from worldflux_jepa.jepa_wm.config import JEPAWMConfig
from worldflux_jepa.jepa_wm.dynamics import TokenDynamics
from worldflux_jepa.jepa_wm.losses import rolled_out, token_error
from worldflux_jepa.jepa_wm.networks import FlatBlocks, ImageTokens
from worldflux_jepa.pixels import image_key
from worldflux_jepa.sigreg import sigreg
from worldflux_jepa.window import even

REP, BODY = "rep", "proprio"
GOAL_BODY = "wf.row.goal_proprio"
"""Extra of a plan's conditions: the body's state (B, S) at the goal."""


class JEPAWorldModel(WorldModel):
    """Tokens of frames and, from blocks of actions, of the frames that follow."""

    capabilities = frozenset({Capability.PLANNING, Capability.GOAL_CONDITIONED})
    composable_support = frozenset({"observation_encoder", "action_conditioner", "dynamics_model"})

    def __init__(
        self,
        config: JEPAWMConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        """`CapabilityError` where there is no image, no body to feel or no continuous action."""
        own = self.own_config = config.model
        self.stride = own.stride
        super().__init__(config, obs_spec, action_spec)
        self.loss_spans_batch = own.sigreg > 0
        single = self._single_action()
        self.body_key = self._body_key()
        body = None if self.body_key is None else self.obs_spec[self.body_key].size
        expects: dict[str, tuple[int | None, ...]] = {REP: (None, None)}
        expects |= {} if body is None else {BODY: (body,)}
        self.fill("observation_encoder", self._encoder, expects=expects)
        count, width = self.features[REP].shape
        encoder = self.slot("observation_encoder")
        if own.frozen:
            encoder.requires_grad_(False)
        self.fill("action_conditioner", lambda: FlatBlocks(single, own.stride))
        conditioner = self.slot("action_conditioner")
        adder = conditioner if isinstance(conditioner, FlatBlocks) else None
        grid = _grid(encoder, count)
        self.fill(
            "dynamics_model",
            lambda: TokenDynamics(
                own, (count, width), grid, self.features["action"].size, body, adder
            ),
        )

    def _single_action(self) -> TensorSpec:
        single = next(iter(self.action_spec.values()), None)
        if single is None or single.discrete:
            raise CapabilityError(
                f"JEPA world models need a continuous action, got {single or 'none'}."
            )
        return single

    def _body_key(self) -> str | None:
        key = self.own_config.proprio
        if key == "auto":
            vectors = [name for name, spec in self.obs_spec.items() if len(spec.shape) == 1]
            return vectors[0] if len(vectors) == 1 else None
        if key is None:
            return None
        if key not in self.obs_spec or len(self.obs_spec[key].shape) != 1:
            has = ", ".join(self.obs_spec) or "nothing"
            raise CapabilityError(
                f"model.proprio={key!r} is no vector among the observations ({has}): name one, or "
                "set model.proprio to null."
            )
        return key

    def _encoder(self) -> ImageTokens:
        own, key = self.own_config, image_key(self.obs_spec, "A JEPA world model")
        return ImageTokens(own.conv or own.encoder, key, self.obs_spec[key], self.body_key)

    def state_spec(self) -> StateSpec:
        initial = self.slot("dynamics_model").initial(1, torch.device("cpu"))
        return StateSpec(
            {
                name: TensorSpec(tuple(x.shape[1:]), str(x.dtype).removeprefix("torch."))
                for name, x in initial.tensors.items()
            }
        )

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """Errors of the next frames' tokens: from true frames, and from own predictions."""
        own, dynamics = self.own_config, self.slot("dynamics_model", "loss")
        seen = self._tokens(batch)
        rep = seen[REP]  # (B, T, N, D)
        pairs = batch.transitions()
        action = self.condition(pairs.require("action").flatten(0, 1))
        action = action.unflatten(0, pairs.valid.shape)  # (B, T - 1, A')
        body = seen[BODY][:, :-1] if BODY in seen else None
        fits = own.window == 1 or action.shape[1] <= own.window
        if not isinstance(dynamics, TokenDynamics) or not fits:
            return self._stepwise(batch, seen, action, rand)
        pose = batch.extra.get("extrinsics")
        pose = None if pose is None or not own.predictor.use_extrinsics else pose[:, :-1].float()
        first = batch.is_first[:, :-1]
        guess, said = dynamics.sequence(rep[:, :-1], action, body, first, pose)
        wanted = self._wanted(rep)
        parts = {"teacher": mean(token_error(guess, wanted, own.exponent), pairs.valid)}
        steps = min(own.rollout, action.shape[1])
        if steps > 1:
            far = rolled_out(dynamics, rep, action, body, first, guess, steps, pose)
            error = token_error(far, wanted[:, :steps], own.exponent)
            whole = pairs.valid[:, :steps].cumprod(1).bool()  # a rollout ends with its episode
            parts["rollout"] = mean(error, whole)
        if said is not None:
            error = (said - seen[BODY][:, 1:]).square().mean(-1)
            parts["proprio"] = mean(error, pairs.valid)
        return self._with_sigreg(rep, parts, rand)

    def _wanted(self, rep: Tensor) -> Tensor:
        """The frames to predict (B, T - 1, N, D); of a frozen encoder they take no gradient."""
        return rep[:, 1:].detach() if self.own_config.frozen else rep[:, 1:]

    def _stepwise(self, batch: Batch, seen: State, action: Tensor, rand: Rand | None) -> LossOutput:
        """The loss along sequences longer than the window, or through a caller's dynamics."""
        dynamics, pairs = self.slot("dynamics_model", "loss"), batch.transitions()
        zero = torch.zeros_like(action[:, :1])
        before = State({name: x[:, :-1] for name, x in seen.tensors.items()})
        states = dynamics.observe_sequence(
            dynamics.initial(batch.batch_size, action.device),
            torch.cat([zero, action[:, :-1]], 1),
            before,
            batch.is_first[:, :-1],
        )
        after = dynamics.transition(states.flat(), action.flatten(0, 1))
        guess = after[REP].unflatten(0, pairs.valid.shape)
        wanted = self._wanted(seen[REP])
        error = token_error(guess, wanted, self.own_config.exponent)
        parts = {"teacher": mean(error, pairs.valid)}
        if BODY in seen and self.own_config.proprio_next == "predict":
            said = after[BODY].unflatten(0, pairs.valid.shape)
            parts["proprio"] = mean((said - seen[BODY][:, 1:]).square().mean(-1), pairs.valid)
        return self._with_sigreg(seen[REP], parts, rand)

    def _with_sigreg(self, rep: Tensor, parts: dict[str, Tensor], rand: Rand | None) -> LossOutput:
        own = self.own_config
        loss = torch.stack(list(parts.values())).sum()
        if own.sigreg:
            shape = (rep.shape[-1], own.directions)
            directions = (rand or Rand()).draw(
                "directions", shape, normal, device=rep.device, shared=True
            )
            tokens = gather(rep).flatten(1, 2).transpose(0, 1)  # (T * N, B, D)
            parts["sigreg"] = sigreg(tokens, directions)
            loss = loss + own.sigreg * parts["sigreg"]
        return LossOutput(loss, parts, dict(spread(rep.flatten(2).flatten(0, 1))))

    def _tokens(self, batch: Batch) -> State:
        """Tokens (B, T, N, D) of all frames, with bodies (B, T, S) where there are some."""
        obs = {key: value.flatten(0, 1) for key, value in batch.obs.items()}
        encoder = self.slot("observation_encoder", "loss")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.own_config.frozen):
            features: State = encoder(self.observations(obs))
        dynamics = self.slot("dynamics_model", "loss")
        if isinstance(dynamics, TokenDynamics):
            features = State(dynamics.newest(features))
        return features.unflat(tuple(batch.is_first.shape))

    def score(
        self, state: State, actions: Tensor, conditions: ConditionPayload | None = None,
        *, rand: Rand | None = None,
    ) -> Tensor:  # fmt: skip
        """Scores (B, K) of plans (B, K, H, k, A): how near they come to `conditions.goal`."""
        if conditions is None or conditions.goal is None:
            raise ContractError(
                "A JEPA world model plans toward a goal and predicts no reward: give "
                "conditions.goal, tokens (B, N, D), or an environment whose observations have a "
                "'goal'."
            )
        require_evaluating(self, "A JEPA world model")
        pieces = max(1, self.own_config.rows // max(1, len(actions)))
        found = [self._costs(state, part, conditions) for part in actions.split(pieces, 1)]
        return -torch.cat(found, 1)

    def _costs(self, state: State, actions: Tensor, conditions: ConditionPayload) -> Tensor:
        """Costs (B, K) of plans (B, K, H, k, A)."""
        own, lead = self.own_config, actions.shape[:3]
        single = self.required_action()
        conditioned = self.condition(actions.reshape(-1, *single.shape)).unflatten(0, lead)
        dynamics = self.slot("dynamics_model", "score")
        if isinstance(dynamics, TokenDynamics) and even(state):
            path, bodies = dynamics.paths(state, conditioned)
        else:
            path, bodies = _stepped(dynamics, state.repeat(lead[1]), conditioned.flatten(0, 1))
            path = path.unflatten(0, lead[:2])
            bodies = None if bodies is None else bodies.unflatten(0, lead[:2])
        assert conditions.goal is not None
        cost = distance_to_goal(path, conditions.goal, own.distance, own.cost)
        goal = conditions.extras.get(GOAL_BODY)
        if own.proprio_weight and bodies is not None and goal is not None:
            far = distance_to_goal(bodies, goal, own.distance, own.cost)
            cost = cost + own.proprio_weight * far
        return cost


def _grid(encoder: object, count: int) -> tuple[int, int]:
    """Rows and columns of an encoder's tokens: its own, or a square of them."""
    inner = getattr(encoder, "vit", encoder)
    grid = getattr(inner, "grid", None)
    if isinstance(grid, tuple) and len(grid) == 2 and grid[0] * grid[1] == count:
        return grid
    side = round(count**0.5)
    return (side, side) if side * side == count else (1, count)


def _stepped(dynamics: object, state: State, actions: Tensor) -> tuple[Tensor, Tensor | None]:
    """Tokens (R, H, N, D) and bodies (R, H, S) after each of conditioned actions (R, H, A')."""
    found, bodies = [], []
    for action in actions.unbind(1):
        state = dynamics.transition(state, action, deterministic=True)  # type: ignore[attr-defined]
        found.append(state[REP])
        bodies += [state[BODY]] if BODY in state else []
    return torch.stack(found, 1), torch.stack(bodies, 1) if bodies else None
