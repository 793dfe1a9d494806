"""An agent out of any world model and a planner."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.config import Config
from worldflux.core.agent import Agent, Mode
from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput, UpdateResult, metrics
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import ContractError
from worldflux.planning.config import PlanningAgentConfig
from worldflux.planning.create import create_planner
from worldflux.planning.planner import MEMORY
from worldflux.planning.score import goal_tensor
from worldflux.training import Phase, TrainingPlan

_OWN = "planner."
_MEMORY = "memory."


class PlanningAgent(Agent):
    """Trains a world model on its own loss, and acts by planning in it.

    A family subclasses it with its usual constructor, or overrides `update` to learn more than
    the model. The acting State holds the model's latent beside `planner.*`: the last action,
    the plan under way and the memory that warms the next one.
    """

    stride: int = 1
    """Steps of an environment that one planned action spans; it agrees with the model's."""

    def __init__(
        self, world_model: WorldModel, settings: PlanningAgentConfig, config: Config | None = None
    ) -> None:
        super().__init__(config or settings, world_model.obs_spec, world_model.action_spec)
        self.world_model = world_model
        self.settings = settings
        action = world_model.required_action()
        self.planner = create_planner(settings.planner.kind, action, settings.planner)
        parameters = inspect.signature(world_model.loss).parameters
        self._samples = "rand" in parameters  # a loss that samples nothing takes a batch only
        trainable = [p for p in world_model.parameters() if p.requires_grad]
        if trainable:
            adam = torch.optim.Adam(trainable, lr=settings.lr, eps=settings.eps)
            self.optimizers = {"model": adam}
            self.clip_norm = {"model": settings.clip}

    def training_plan(self) -> TrainingPlan:
        settings = self.settings
        phase = Phase(
            "model",
            batch=settings.batch,
            length=settings.length,
            updates_per_step=settings.updates_per_step,
            start=settings.prefill,
            stride=self.stride,
            boundary="cross" if self.stride == 1 else "within",
            trains=tuple(self.optimizers),
        )
        return TrainingPlan([phase], prefill=settings.prefill)

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        """One step on the world model's loss."""
        return UpdateResult(metrics(self.step("model", self._loss, batch, rand)))

    def _loss(self, batch: Batch, rand: Rand | None) -> LossOutput:
        model = self.world_model
        return model.loss(batch, rand=rand) if self._samples else model.loss(batch)

    def conditions(self, obs: Mapping[str, Tensor]) -> ConditionPayload | None:
        """What plans are conditioned on: the encoded `obs["goal"]` (B, ...), where there is one."""
        if "goal" not in obs:
            return None
        keys = [key for key in self.obs_spec if key != "goal"]
        if len(keys) != 1:
            raise ContractError(
                f"The goal could be any of {', '.join(keys) or 'no observation'}: override "
                f"{type(self).__name__}.conditions to encode it."
            )
        seen = {**obs, keys[0]: obs["goal"]}
        encoded = self.world_model.encode(seen, deterministic=True)
        return ConditionPayload(goal=goal_tensor(encoded, self.settings.planner.score.goal_key))

    @torch.no_grad()
    def act(
        self,
        obs: Mapping[str, Tensor],
        state: State | None,
        is_first: Tensor,
        mode: Mode = "eval",
        *,
        rand: Rand | None = None,
    ) -> tuple[ActionPayload, State]:
        """Observe (B, ...), plan where a plan is due, and execute its next action (B, ...).

        The model's `observe` asks `rand` for "model/NAME"; all other draws are the planner's.
        """
        rand = rand or Rand()
        latent = self._observed(obs, state, is_first, rand)
        current = self._plan_in_progress(state, is_first)
        due = current["step"] >= self.settings.planner.execute
        if self.settings.planner.execute == 1 or bool(due.any()):
            plan = self.planner(
                self.world_model,
                latent,
                conditions=self.conditions(obs),
                previous=_under(current, _MEMORY),
                rand=rand,
                explore=mode == "train",
            )
            current = self._new_plan(plan).where(due, current)
        step = current["step"]
        action = current["plan"][torch.arange(len(step), device=step.device), step]
        after = current.with_({"step": step + 1, "action": action})
        return ActionPayload(self.planner.space.kind, tensor=action), _with_planner(latent, after)

    @property
    def plans(self) -> bool:
        return True

    @property
    def remembers(self) -> bool:
        """Whether its world model does; a plan under way is dropped for another's action anyway."""
        return self.world_model.recurrent or bool(self.replay_spec)

    @torch.no_grad()
    def observe(
        self,
        obs: Mapping[str, Tensor],
        state: State | None,
        is_first: Tensor,
        *,
        rand: Rand | None = None,
    ) -> State:
        """The State after an observation (B, ...), unplanned; `took` is told of its action."""
        latent = self._observed(obs, state, is_first, rand or Rand())
        return _with_planner(latent, self._plan_in_progress(state, is_first))

    def took(self, state: State, action: Tensor) -> State:
        """The State after another action (B, ...) than the plan's: the next step plans anew."""
        own, step = state[_OWN + "action"], state[_OWN + "step"]
        told = {
            _OWN + "action": action.to(own).reshape(own.shape),
            _OWN + "step": torch.full_like(step, self.settings.planner.execute),
        }
        return state.with_(told)

    def _observed(
        self, obs: Mapping[str, Tensor], state: State | None, is_first: Tensor, rand: Rand
    ) -> State:
        """The model's State after this observation."""
        rand = rand.under("model/")
        if state is None:
            return self.world_model.encode(dict(obs), rand=rand)
        latent = state.only({key for key in state.tensors if not key.startswith(_OWN)})
        action = state[_OWN + "action"]
        return self.world_model.observe(latent, action, dict(obs), is_first, rand=rand)

    def _plan_in_progress(self, state: State | None, is_first: Tensor) -> State:
        """The plan each row is executing; rows that start anew have none, so one is due."""
        rows, device = is_first.shape[0], is_first.device
        space, horizon = self.planner.space, self.settings.planner.horizon
        nothing = space.to_env(space.initial_mean(rows, horizon, device=device))
        none = torch.full((rows,), self.settings.planner.execute, device=device)
        fresh = _plan_state(nothing, none, self.planner.initial_memory(rows, device))
        return fresh if state is None else fresh.where(is_first, _under(state, _OWN))

    def _new_plan(self, plan: ActionPayload) -> State:
        """A plan of which nothing is executed yet."""
        actions = plan.require().transpose(0, 1)  # (B, H, ...)
        none = torch.zeros(len(actions), dtype=torch.int64, device=actions.device)
        return _plan_state(actions, none, plan.extras[MEMORY])


def _plan_state(actions: Tensor, step: Tensor, memory: State) -> State:
    """Planned actions (B, H, ...), the step (B,) that is next, and the planner's memory."""
    kept = {_MEMORY + key: value for key, value in memory.tensors.items()}
    return State({"action": actions[:, 0], "plan": actions, "step": step, **kept})


def _under(state: State, prefix: str) -> State:
    """The tensors of a State named `prefix...`, without the prefix."""
    named = state.tensors.items()
    return State({k.removeprefix(prefix): v for k, v in named if k.startswith(prefix)})


def _with_planner(latent: State, current: State) -> State:
    """The model's State with what the planner keeps beside it."""
    return latent.with_({_OWN + key: value for key, value in current.tensors.items()})
