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
from worldflux.planning.blocks import Blocks
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
    the model. The acting State holds the model's latent beside `planner.*`: the last action (under
    a stride the block, and how much of it is done), the plan under way and the memory that warms
    the next one.
    """

    stride: int = 1
    """Steps of an environment that one planned action spans; it agrees with the model's.

    With more than 1 the planner searches blocks of that many actions, and `act` executes them one
    by one.
    """

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

        Under a stride k a plan is made of blocks of k actions. A row observes when its block is
        used up; until then its actions are those of the block, whatever `obs` is. The model's
        `observe` asks `rand` for "model/NAME"; all other draws are the planner's.
        """
        rand = rand or Rand()
        latent, current = self._observed(obs, state, is_first, rand)
        begins = current["done"] == 0
        spent = begins & (current["step"] >= self.settings.planner.execute)
        due = spent | ~current["planned"]
        if self._always_due or bool(due.any()):
            plan = self.planner(
                self.world_model,
                latent,
                conditions=self.conditions(obs),
                previous=_under(current, _MEMORY),
                rand=rand,
                explore=mode == "train",
            )
            current = self._new_plan(plan, current).where(due, current)
        current = self._next_block(current, due | begins)
        action = self.blocks.action(current["action"], current["done"])
        after = current.with_({"done": current["done"] + 1})
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
        latent, current = self._observed(obs, state, is_first, rand or Rand())
        planned = current["planned"] & (current["done"] > 0)
        after = current.with_({"planned": planned, "done": current["done"] + 1})
        return _with_planner(latent, after)

    def took(self, state: State, action: Tensor) -> State:
        """The State after another action (B, ...) than the plan's; the plan is dropped.

        Without a stride the next step plans anew. With one the next block is planned anew: a model
        with memory is to be shown whole blocks, so the one under way is completed as it was
        planned, or planned from its beginning where it was not; any other model forgets it.
        """
        own = _under(state, _OWN)
        told = {
            "action": self.blocks.replaced(own["action"], own["done"] - 1, action),
            "step": torch.full_like(own["step"], self.settings.planner.execute),
        }
        if not self.world_model.recurrent:
            told["done"] = torch.full_like(own["done"], self.stride)
        return state.with_({_OWN + key: value for key, value in told.items()})

    @property
    def blocks(self) -> Blocks:
        """How a planned action is made of the environment's."""
        return Blocks(self.stride)

    @property
    def _always_due(self) -> bool:
        """Whether every step plans: then nothing has to be asked of the device."""
        return self.stride == 1 and self.settings.planner.execute == 1

    def _observed(
        self, obs: Mapping[str, Tensor], state: State | None, is_first: Tensor, rand: Rand
    ) -> tuple[State, State]:
        """The model's State and the plan in progress, after this observation.

        Rows whose block is used up observe, and have done nothing of the next one.
        """
        rand, model = rand.under("model/"), self.world_model
        current = self._plan_in_progress(state, is_first)
        used_up = current["done"] >= self.stride
        begun = current.with_({"done": current["done"].masked_fill(used_up, 0)})
        if state is None:
            return model.encode(dict(obs), rand=rand), begun
        latent = state.only({key for key in state.tensors if not key.startswith(_OWN)})
        if self.stride > 1 and not bool(used_up.any()):
            return latent, begun
        seen = model.observe(latent, current["action"], dict(obs), is_first, rand=rand)
        return seen if self.stride == 1 else seen.where(used_up, latent), begun

    def _plan_in_progress(self, state: State | None, is_first: Tensor) -> State:
        """The plan each row is executing; rows that start anew have none, so one is due."""
        rows, device = is_first.shape[0], is_first.device
        space, horizon = self.planner.space, self.settings.planner.horizon
        nothing = space.to_env(space.initial_mean(rows, horizon, device=device))
        memory = self.planner.initial_memory(rows, device)
        fresh = State(
            {
                "action": nothing[:, 0],
                "plan": nothing,
                "step": torch.full((rows,), self.settings.planner.execute, device=device),
                "done": torch.full((rows,), self.stride, device=device),
                "planned": torch.ones(rows, dtype=torch.bool, device=device),
                **_kept(memory),
            }
        )
        return fresh if state is None else fresh.where(is_first, _under(state, _OWN))

    def _new_plan(self, plan: ActionPayload, current: State) -> State:
        """`current` with a plan of which nothing is executed yet."""
        return current.with_(
            {
                "plan": plan.require().transpose(0, 1),  # (B, H, ...)
                "step": torch.zeros_like(current["step"]),
                "planned": torch.ones_like(current["planned"]),
                **_kept(plan.extras[MEMORY]),
            }
        )

    def _next_block(self, current: State, begins: Tensor) -> State:
        """`current` with the plan's next action or block where `begins` (B,).

        Of a block that has begun without a plan, what was executed stays.
        """
        step, plan = current["step"], current["plan"]
        rows = torch.arange(len(step), device=step.device)
        following = plan[rows, step.clamp(max=plan.shape[1] - 1)]
        whole = self.blocks.completed(current["action"], current["done"], following)
        taken = current.with_({"action": whole, "step": step + 1})
        return taken.where(begins, current)


def _kept(memory: State) -> dict[str, Tensor]:
    """A planner's memory under the names it is kept by."""
    return {_MEMORY + key: value for key, value in memory.tensors.items()}


def _under(state: State, prefix: str) -> State:
    """The tensors of a State named `prefix...`, without the prefix."""
    named = state.tensors.items()
    return State({k.removeprefix(prefix): v for k, v in named if k.startswith(prefix)})


def _with_planner(latent: State, current: State) -> State:
    """The model's State with what the planner keeps beside it."""
    return latent.with_({_OWN + key: value for key, value in current.tensors.items()})
