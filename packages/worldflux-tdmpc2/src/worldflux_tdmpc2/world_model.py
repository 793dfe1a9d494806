"""TD-MPC2's world model: latent dynamics without a decoder, with policy prior and Q functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from worldflux.core.actions import VectorActions
from worldflux.core.batch import Batch
from worldflux.core.conditions import repeated_conditions
from worldflux.core.interfaces import SLOTS
from worldflux.core.model import Observation, WorldModel
from worldflux.core.output import LossOutput, ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand, normal, randint
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.core.state import State
from worldflux.core.trial import Shape
from worldflux.nn.slow import slow_copy
from worldflux.specs import Capability, TensorSpec
from worldflux_tdmpc2 import learning
from worldflux_tdmpc2.config import TDMPC2Config
from worldflux_tdmpc2.distribution import expected
from worldflux_tdmpc2.draws import HEADS, heads
from worldflux_tdmpc2.images import SHIFTS, shifted
from worldflux_tdmpc2.latent import (
    TASK,
    LatentDecoder,
    LatentDynamics,
    LatentEncoder,
    LatentRollout,
    features,
    joint,
)
from worldflux_tdmpc2.networks import QEnsemble
from worldflux_tdmpc2.policy import Policy, Sample
from worldflux_tdmpc2.scale import RunningScale
from worldflux_tdmpc2.spaces import Sizes, check_action


class TDMPC2WorldModel(WorldModel):
    """State: "latent" (B, D) and "cause", see `worldflux_tdmpc2.latent`. Predicts reward and value.

    `policy` and the Q functions sit beside the slots, since learning and planning both need them.
    """

    capabilities = frozenset(
        {
            Capability.REWARD_PRED,
            Capability.VALUE_PRED,
            Capability.PLANNING,
            Capability.STATELESS,
        }
    )
    composable_support = frozenset(SLOTS)
    config: TDMPC2Config
    bins: Tensor
    discounts: Tensor
    masks: Tensor

    def __init__(
        self,
        config: TDMPC2Config,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        c = config.model
        self.action: TensorSpec = check_action(c, self.required_action())
        self.sizes = Sizes.of(c, obs_spec)
        if c.episodic:
            self.capabilities = self.capabilities | {Capability.CONTINUE_PRED}
        bins = torch.linspace(c.vmin, c.vmax, c.bins)
        self.register_buffer("bins", bins, persistent=False)
        self._register_tasks()
        size = c.latent_dim + self.sizes.embed
        cause = size + self.action.size
        latent: dict[str, Shape] = {"latent": (c.latent_dim,), "cause": (cause,)}
        self.fill("observation_encoder", lambda: LatentEncoder(c, obs_spec, cause), expects=latent)
        self.fill(
            "action_conditioner",
            lambda: VectorActions(self.action),
            expects={"action": (self.action.size,)},
        )
        self.fill("dynamics_model", lambda: LatentDynamics(c, cause), expects=latent)
        self.fill(
            "decoder_module",
            lambda: LatentDecoder(c, cause, bins),
            expects={"reward": (), **({"continue": ()} if c.episodic else {})},
        )
        self.fill("rollout_executor", LatentRollout)
        self.policy = Policy(size, c.mlp_dim, self.action.size, c.log_std_min, c.log_std_max)
        self.q = QEnsemble(c.num_q, size + self.action.size, c.mlp_dim, c.bins)
        self.target_q = slow_copy(self.q)
        self.scale = RunningScale(c.tau)

    def _register_tasks(self) -> None:
        c = self.config.model
        used = [task.action_dim for task in c.tasks] or [self.action.size]
        masks = torch.arange(self.action.size)[None] < torch.tensor(used)[:, None]
        discounts = torch.tensor([c.discount(length) for length in c.lengths])
        self.register_buffer("discounts", discounts, persistent=False)
        self.register_buffer("masks", masks.float(), persistent=False)

    def state_spec(self) -> StateSpec:
        c = self.config.model
        cause = c.latent_dim + self.sizes.embed + self.action.size
        spec = {"latent": TensorSpec((c.latent_dim,)), "cause": TensorSpec((cause,))}
        if c.tasks:
            spec |= {
                TASK: TensorSpec((), "int64", n=len(c.tasks)),
                "embed": TensorSpec((c.task_dim,)),
            }
        return StateSpec(spec)

    def prediction_spec(self) -> PredictionSpec:
        scalars = {"reward": TensorSpec(()), "value": TensorSpec(())}
        if self.config.model.episodic:
            scalars["continue"] = TensorSpec((), low=0.0, high=1.0)
        return PredictionSpec(scalars)

    # Inference

    def encode(
        self,
        obs: Observation,
        deterministic: bool = False,
        *,
        rand: Rand | None = None,
    ) -> State:
        """Observations (B, ...) to a State. Images are shifted at random, unless deterministic."""
        found = self.observations(obs)
        if not deterministic:
            found = self.augmented(found, rand or Rand())
        return super().encode(found, deterministic, rand=rand)

    def augmented(self, obs: Mapping[str, Tensor], rand: Rand) -> dict[str, Tensor]:
        """Observations (..., *shape), an image among them moved by the draw "shift" (..., 2)."""
        image = self.sizes.image
        if image is None:
            return dict(obs)
        pixels = obs[image]
        lead = tuple(pixels.shape[:-3])
        shift = rand.draw("shift", (*lead, 2), randint(SHIFTS), device=pixels.device)
        moved = shifted(pixels.reshape(-1, *pixels.shape[-3:]), shift.reshape(-1, 2))
        return {**obs, image: moved.reshape(pixels.shape)}

    def decode(
        self,
        state: State,
        conditions: ConditionPayload | None = None,
        *,
        keys: Collection[str] | None = None,
        rand: Rand | None = None,
    ) -> ModelOutput:
        """Reward, "continue" if episodic, and the value: all Q functions at the policy's mean."""
        output = super().decode(state, conditions, keys=keys, rand=rand)
        if keys is None or "value" in keys:
            action = self.act_on(state).mean
            logits = self.q(joint(state, action))
            output.predictions["value"] = expected(logits, self.bins).mean(0)
        return output

    def act_on(self, state: State, eps: Tensor | None = None) -> Sample:
        """The policy's sample at a State, with noise `eps` (B, A); None takes the mean."""
        seen = features(state)
        if eps is None:
            eps = seen.new_zeros(*seen.shape[:-1], self.action.size)
        return self.policy(seen, eps, self.action_mask(state))  # type: ignore[no-any-return]

    def two_q(
        self,
        state: State,
        action: Tensor,
        heads: Tensor,
        *,
        target: bool = False,
        frozen: bool = False,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Values (2, ...) by the two chosen heads; the target network never drops out."""
        assert keep is None or not target
        network = self.target_q if target else self.q
        logits = network(joint(state, action), heads, frozen=frozen, keep=keep)
        return expected(logits, self.bins)

    def drawn_heads(self, name: str, rand: Rand) -> Tensor:
        """Two different of the Q functions (2,), the same for all rows and ranks."""
        sampler, device = heads(self.config.model.num_q), self.bins.device
        return rand.draw(name, (HEADS,), sampler, device=device, shared=True)

    def action_mask(self, state: State) -> Tensor | None:
        """1 on the action dimensions that a State's task uses (..., A); None with one task."""
        return self.masks[state[TASK].long()] if TASK in state else None

    def discount(self, state: State) -> Tensor:
        """The discount of a State's task (...), or the one there is, ()."""
        return self.discounts[state[TASK].long()] if TASK in state else self.discounts[0]

    # Planning

    @torch.no_grad()
    def score(
        self,
        state: State,
        actions: Tensor,
        conditions: ConditionPayload | None = None,
        *,
        rand: Rand | None = None,
    ) -> Tensor:
        """Returns (B, N) of plans (B, N, H, A): predicted rewards, then the value of two heads.

        Draws: "eps" (B, N, A) of the policy at the end, "heads" (2,). A plan that is predicted to
        terminate earns nothing after it.
        """
        batch, count = actions.shape[:2]
        rand, device = rand or Rand(), actions.device
        eps = rand.draw("eps", (batch, count, self.action.size), normal, device=device)
        two = self.drawn_heads("heads", rand)
        many = repeated_conditions(conditions, batch, count)
        first, *later = actions.unbind(2)
        now, total, weight = self._first_steps(state, first, many)
        discount = self.discount(now)
        for action in later:
            now, reward, goes_on = self._step(now, action.flatten(0, 1), many)
            total = total + weight * reward
            weight = weight * discount * goes_on
        last = self.act_on(now, eps.flatten(0, 1)).action
        value = self.two_q(now, last, two).mean(0)
        return (total + weight * value).nan_to_num(0).unflatten(0, (batch, count))

    def _step(
        self, state: State, action: Tensor, conditions: ConditionPayload | None
    ) -> tuple[State, Tensor, Tensor | float]:
        """The next State, its reward, and 0 where it is predicted to be terminal."""
        after = self.plan_step(state, action, conditions, deterministic=True)
        keys = ("reward", "continue") if self.config.model.episodic else ("reward",)
        found = self.decode(after, conditions, keys=keys).predictions
        return after, found["reward"], _going_on(found)

    def _first_steps(
        self, state: State, actions: Tensor, conditions: ConditionPayload | None
    ) -> tuple[State, Tensor, Tensor]:
        """N steps (B, N, A) from each State: reached States and rewards (B * N, ...), weights next.

        What the N have in common is computed once, unless a slot does not know how.
        """
        batch, count = actions.shape[:2]
        dynamics, decoder = self.dynamics_model, self.decoder_module
        flat = actions.flatten(0, 1)
        goes_on: Tensor | float
        if type(dynamics) is LatentDynamics and type(decoder) is LatentDecoder:
            taken = self.condition(flat, conditions).unflatten(0, (batch, count))
            after, reward = dynamics.fan_out(state, taken), decoder.fan_out(state, taken)
            goes_on = _going_on(decoder(after, ("continue",)).predictions)
        else:
            many = _without_cause(state).repeat(count)
            after, reward, goes_on = self._step(many, flat, conditions)
        return after, reward, torch.ones_like(reward) * self.discount(after) * goes_on

    @torch.no_grad()
    def propose(
        self,
        state: State,
        count: int,
        horizon: int,
        conditions: ConditionPayload | None = None,
        *,
        rand: Rand | None = None,
    ) -> Tensor:
        """Plans (B, N, H, A) of the policy, sampled along the imagined path; "eps" likewise."""
        batch, rand = state.batch_size, rand or Rand()
        shape = (batch, count, horizon, self.action.size)
        eps = rand.draw("eps", shape, normal, device=state.device).flatten(0, 1)
        now = _without_cause(state).repeat(count)
        many, actions = repeated_conditions(conditions, batch, count), []
        for t in range(horizon):
            actions.append(self.act_on(now, eps[:, t]).action)
            if t + 1 < horizon:
                now = self.plan_step(now, actions[-1], many, deterministic=True)
        return torch.stack(actions, 1).unflatten(0, (batch, count))

    # Learning

    def loss(
        self,
        batch: Batch,
        part: str | None = None,
        *,
        rand: Rand | None = None,
    ) -> LossOutput:
        """Every term in one sum, the policy's too: their gradients meet in no parameter.

        Every phase trains all of it. `TDMPC2Agent.update` takes the policy's step after the
        model's, as the paper does. Draws: those of `learning.unroll` and `learning.policy_batch`,
        and "pi_heads" (2,).
        """
        self.validate_batch_contract(batch)
        rand = rand or Rand()
        unrolled = learning.unroll(self, batch, rand)
        loss, components = learning.model_loss(self, unrolled)
        states = learning.policy_batch(self, unrolled.states, unrolled.weight, rand)
        found = learning.imagine_policy(self, states, self.drawn_heads("pi_heads", rand))
        policy = learning.policy_loss(self, states, found)
        return LossOutput(loss + policy, {**components, "policy": policy})


def _going_on(predictions: Mapping[str, Tensor]) -> Tensor | float:
    """0 where a State is predicted to be terminal, 1 elsewhere."""
    return (predictions["continue"] >= 0.5).float() if "continue" in predictions else 1.0


def _without_cause(state: State) -> State:
    return state.only(state.tensors.keys() - {"cause"})
