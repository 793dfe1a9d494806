"""A small real model, agent and environment: they learn, and test suites need nothing more."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.config import Config
from worldflux.core.actions import VectorActions, no_actions
from worldflux.core.agent import Agent, Mode
from worldflux.core.batch import Batch
from worldflux.core.interfaces import Decoder, DynamicsModel, ObservationEncoder
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput, UpdateResult, metrics
from worldflux.core.payloads import ActionKind, ActionPayload, ConditionPayload
from worldflux.core.rand import Rand, exponential, normal
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.core.state import State
from worldflux.specs import Capability, TensorSpec
from worldflux.training import Phase, TrainingPlan


class TinyConfig(Config):
    """Sizes of the tiny model."""

    width: int = 16
    """Units of the latent."""
    lr: float = 3e-3
    """Learning rate of Adam."""


class TinyEncoder(ObservationEncoder):
    """Every observation raveled, scaled and projected to features `embed` (B, D)."""

    def __init__(self, obs_spec: Mapping[str, TensorSpec], width: int) -> None:
        super().__init__()
        self.obs_spec = dict(obs_spec)
        self.net = nn.Linear(sum(spec.size for spec in obs_spec.values()), width)

    def forward(self, obs: dict[str, Tensor]) -> State:
        parts = [obs[key].float().flatten(1) for key in self.obs_spec]
        scale = [255.0 if spec.image else 1.0 for spec in self.obs_spec.values()]
        flat = torch.cat([part / by for part, by in zip(parts, scale, strict=True)], -1)
        return State({"embed": torch.tanh(self.net(flat))})


class TinyDynamics(DynamicsModel):
    """A GRU cell `deter`, and a Gaussian `stoch` around its projection (prior or posterior)."""

    recurrent = True

    def __init__(self, width: int, actions: int, embed: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.cell = nn.GRUCell(width + actions, width)
        self.prior = nn.Linear(width, width)
        self.post = nn.Linear(width + (width if embed is None else embed), width)

    def initial(self, batch_size: int, device: torch.device) -> State:
        zeros = torch.zeros(batch_size, self.width, device=device)
        return State({"deter": zeros, "stoch": zeros.clone(), "mean": zeros.clone()})

    def transition(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        deter = self.cell(torch.cat([state["stoch"], action], -1), state["deter"])
        return self._sample(deter, self.prior(deter), deterministic, rand)

    def observe(
        self,
        state: State,
        action: Tensor,
        features: State,
        is_first: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        keep = (~is_first).float()[:, None]
        joined = torch.cat([state["stoch"] * keep, action * keep], -1)
        deter = self.cell(joined, state["deter"] * keep)
        mean = self.post(torch.cat([deter, features["embed"]], -1))
        return self._sample(deter, mean, deterministic, rand)

    def _sample(
        self,
        deter: Tensor,
        mean: Tensor,
        deterministic: bool,
        rand: Rand | None,
    ) -> State:
        mean = torch.tanh(mean)
        if deterministic:
            return State({"deter": deter, "stoch": mean, "mean": mean})
        noise = (rand or Rand()).draw("stoch", tuple(mean.shape), normal, device=mean.device)
        return State({"deter": deter, "stoch": mean + 0.1 * noise, "mean": mean})


class TinyDecoder(Decoder):
    """Linear heads for every observation, the reward and the continue probability."""

    def __init__(self, obs_spec: Mapping[str, TensorSpec], width: int) -> None:
        super().__init__()
        self.obs_spec = dict(obs_spec)
        sizes = {key: spec.size for key, spec in obs_spec.items()} | {"reward": 1, "continue": 1}
        self.heads = nn.ModuleDict({key: nn.Linear(2 * width, n) for key, n in sizes.items()})

    def forward(
        self,
        state: State,
        keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> dict[str, Tensor]:
        feat = torch.cat([state["deter"], state["stoch"]], -1)
        found: dict[str, Tensor] = {}
        for key, head in self.heads.items():
            if keys is not None and key not in keys:
                continue
            value = head(feat)
            if key in self.obs_spec:
                found[key] = value.unflatten(-1, self.obs_spec[key].shape)
            else:
                found[key] = value.squeeze(-1)
        if "continue" in found:
            found["continue"] = torch.sigmoid(found["continue"])
        return found


class TinyModel(WorldModel):
    """A recurrent Gaussian latent model of a few hundred parameters, for any spaces."""

    capabilities = frozenset(
        {
            Capability.OBS_DECODE,
            Capability.REWARD_PRED,
            Capability.CONTINUE_PRED,
            Capability.PLANNING,
        }
    )
    composable_support = frozenset(
        {
            "observation_encoder",
            "action_conditioner",
            "dynamics_model",
            "decoder_module",
            "rollout_executor",
        }
    )

    def __init__(
        self,
        config: TinyConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        action = self.required_action()
        self.fill(
            "observation_encoder",
            lambda: TinyEncoder(self.obs_spec, config.width),
            expects={"embed": (None,)},
        )
        self.fill("action_conditioner", lambda: VectorActions(action), expects={"action": (None,)})
        embed, actions = self.features["embed"].size, self.features["action"].size
        latent = {"deter": (config.width,), "stoch": (config.width,), "mean": (config.width,)}
        self.fill(
            "dynamics_model", lambda: TinyDynamics(config.width, actions, embed), expects=latent
        )
        wanted = {key: spec.shape for key, spec in self.prediction_spec().tensors.items()}
        self.fill(
            "decoder_module", lambda: TinyDecoder(self.obs_spec, config.width), expects=wanted
        )
        self.width = config.width

    def state_spec(self) -> StateSpec:
        spec = TensorSpec((self.width,))
        return StateSpec({"deter": spec, "stoch": spec, "mean": spec})

    def prediction_spec(self) -> PredictionSpec:
        scalar = TensorSpec(())
        return PredictionSpec({**self.obs_spec, "reward": scalar, "continue": scalar})

    def loss(
        self,
        batch: Batch,
        part: str | None = None,
        *,
        rand: Rand | None = None,
    ) -> LossOutput:
        post = self.observe_sequence(batch, rand=rand)
        batch = batch.without_context()
        flat = post.flat()
        predicted = self.decode(flat).predictions
        parts = {
            key: F.mse_loss(
                predicted[key], batch.obs[key].flatten(0, 1).float() / (255 if spec.image else 1)
            )
            for key, spec in self.obs_spec.items()
        }
        parts["reward"] = F.mse_loss(predicted["reward"], batch.require("reward").flatten())
        going_on = (~batch.is_terminal).flatten().float()
        parts["continue"] = F.binary_cross_entropy(predicted["continue"], going_on)
        prior = torch.tanh(self.dynamics_model.prior(post["deter"]))  # type: ignore[union-attr,operator]
        parts["dynamics"] = F.mse_loss(prior, post["mean"])
        return LossOutput(sum(parts.values(), torch.zeros(())), parts)


class TinyAgent(Agent):
    """Learns `TinyModel`, and by REINFORCE a linear policy on its state; enough to improve."""

    whole_batch = True  # the mean gain

    def __init__(
        self,
        config: TinyConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec],
    ) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.world_model: TinyModel = TinyModel(config, obs_spec, action_spec)
        self.spec = next(iter(self.action_spec.values()))
        self.policy = nn.Linear(2 * config.width, self.spec.size)
        self.optimizers = {"adam": torch.optim.Adam(self.parameters(), lr=config.lr)}

    @property
    def replay_spec(self) -> Mapping[str, TensorSpec]:
        return {"deter": TensorSpec((self.world_model.config.width,))}  # type: ignore[attr-defined]

    def replay_values(self, state: State) -> dict[str, Tensor]:
        return {"deter": state["deter"]}

    def training_plan(self) -> TrainingPlan:
        phase = Phase(
            "all", 4, 8, updates_per_step=0.25, context=1, start=16, trains=tuple(self.optimizers)
        )
        return TrainingPlan([phase], prefill=16)

    def act(
        self,
        obs: Mapping[str, Tensor],
        state: State | None,
        is_first: Tensor,
        mode: Mode = "eval",
        *,
        rand: Rand | None = None,
    ) -> tuple[ActionPayload, State]:
        model, rows = self.world_model, is_first.shape[0]
        if state is None:
            state = model.initial(rows, is_first.device)
            state.tensors["action"] = no_actions(self.spec, (rows,), is_first.device)
        latent = State({key: state[key] for key in ("deter", "stoch", "mean")})
        after = model.observe(latent, state["action"], dict(obs), is_first, rand=rand)
        action = self._sample(self._logits(after), rand)
        kind: ActionKind = "discrete" if self.spec.discrete else "continuous"
        return ActionPayload(kind, tensor=action), State({**after.tensors, "action": action})

    def update(
        self,
        batch: Batch,
        phase: str,
        *,
        rand: Rand | None = None,
    ) -> UpdateResult:
        rand = rand or Rand()
        start = self.world_model.observe_sequence(batch, rand=rand.under("start/")).detach()

        def compute(b: Batch, r: Rand | None) -> tuple[Tensor, dict[str, Tensor]]:
            output = self.world_model.loss(b, rand=r)
            policy = self._policy_loss(start, r or Rand())
            parts = {f"loss/{key}": value for key, value in output.items()}
            return output.loss + policy, {**parts, "loss/policy": policy}

        found = self.step("adam", compute, batch, rand)
        return UpdateResult(metrics(found), {"deter": start["deter"]})

    def _policy_loss(self, start: State, rand: Rand) -> Tensor:
        """REINFORCE on three imagined steps from every State (B, T, ...)."""
        flat = start.flat()
        chosen = rand.under("policy/")
        imagined = self.world_model.rollout(
            flat,
            lambda state, t: self._sample(self._logits(state), chosen.at(t)),
            horizon=3,
            rand=rand.under("imagined/"),
        )
        logp = self._logp(self._logits(flat), imagined.actions[0])
        gain = imagined.require("rewards").sum(0).detach()
        return -(logp * (gain - gain.mean())).mean()

    def _logits(self, state: State) -> Tensor:
        logits: Tensor = self.policy(torch.cat([state["deter"], state["stoch"]], -1))
        return logits

    def _sample(self, logits: Tensor, rand: Rand | None) -> Tensor:
        sampler = exponential if self.spec.discrete else normal
        noise = (rand or Rand()).draw("action", tuple(logits.shape), sampler, device=logits.device)
        if not self.spec.discrete:
            flat = (torch.tanh(logits) + 0.3 * noise).clamp(-1, 1).detach()
            return flat.unflatten(-1, self.spec.shape)
        parts = [
            (part.softmax(-1) / by).argmax(-1, keepdim=True)
            for part, by in zip(
                logits.split(self.spec.counts, -1), noise.split(self.spec.counts, -1), strict=True
            )
        ]
        return torch.cat(parts, -1).reshape(-1, *self.spec.shape)

    def _logp(self, logits: Tensor, action: Tensor) -> Tensor:
        if not self.spec.discrete:
            return -((action.flatten(1) - torch.tanh(logits)) ** 2).sum(-1) / (2 * 0.3**2)
        choices = action.reshape(action.shape[0], -1)
        parts = logits.split(self.spec.counts, -1)
        picked = [
            part.log_softmax(-1).gather(-1, choices[:, i : i + 1]) for i, part in enumerate(parts)
        ]
        return torch.cat(picked, -1).sum(-1)
