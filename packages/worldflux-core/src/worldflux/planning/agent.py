"""An agent out of any world model and a planner."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worldflux.config import Config
from worldflux.core.agent import Agent, Mode
from worldflux.core.batch import Batch
from worldflux.core.interfaces import Draws
from worldflux.core.model import WorldModel
from worldflux.core.output import UpdateResult, metrics
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.state import State
from worldflux.errors import ContractError
from worldflux.planning.config import PlanningAgentConfig
from worldflux.planning.create import create_planner
from worldflux.planning.planner import MEMORY, without_prefix
from worldflux.planning.score import goal_tensor
from worldflux.training import Phase, TrainingPlan

_OWN = "planner."


class PlanningAgent(Agent):
    """Trains a world model on its own loss, and acts by planning in it.

    A family subclasses it with its usual constructor, or overrides `update` to learn more than
    the model. The acting State holds the model's latent beside `planner.*`: the last action,
    the plan under way and the memory that warms the next one.
    """

    def __init__(
        self, world_model: WorldModel, settings: PlanningAgentConfig, config: Config | None = None
    ) -> None:
        super().__init__(config or settings, world_model.obs_spec, world_model.action_spec)
        self.world_model = world_model
        self.settings = settings
        self.planner = create_planner(settings.planner.kind, self.action_spec, settings.planner)
        parameters = inspect.signature(world_model.loss).parameters
        self._samples = "generator" in parameters  # a loss that samples nothing takes a batch only
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
            trains=tuple(self.optimizers),
        )
        return TrainingPlan([phase], prefill=settings.prefill)

    def update(
        self,
        batch: Batch,
        phase: str,
        *,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> UpdateResult:
        given: dict[str, Any] = {"draws": draws, "generator": generator} if self._samples else {}
        found = self.step("model", lambda b: self.world_model.loss(b, **given), batch)
        return UpdateResult(metrics(found))

    def conditions(self, obs: Mapping[str, Tensor]) -> ConditionPayload | None:
        """What plans are conditioned on: the encoded `obs["goal"]`, where there is one."""
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
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[ActionPayload, State]:
        """Observe, plan where a plan is due, execute its next action.

        Draws named `model/NAME` go to the model's `observe`, all others to the planner.
        """
        latent = self._observed(obs, state, is_first, without_prefix(draws, "model/"), generator)
        under_way = self._under_way(state, is_first)
        due = under_way["step"] >= self.settings.planner.execute
        if self.settings.planner.execute == 1 or bool(due.any()):
            plan = self.planner(
                self.world_model,
                latent,
                conditions=self.conditions(obs),
                previous=State(without_prefix(under_way, "memory.") or {}),
                draws={k: v for k, v in (draws or {}).items() if not k.startswith("model/")},
                generator=generator,
                explore=mode == "train",
            )
            under_way = _where(due, self._begun(plan), under_way)
        step = under_way["step"]
        action = under_way["plan"][torch.arange(len(step), device=step.device), step]
        after = {**under_way, "step": step + 1, "action": action}
        return ActionPayload(self.planner.space.kind, tensor=action), _with_own(latent, after)

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
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """The State after an observation, without planning; its action is what `took` is told."""
        latent = self._observed(obs, state, is_first, without_prefix(draws, "model/"), generator)
        return _with_own(latent, self._under_way(state, is_first))

    def took(self, state: State, action: Tensor) -> State:
        """The State after another action than the plan's: the next step plans anew."""
        own, step = state[_OWN + "action"], state[_OWN + "step"]
        told = {
            _OWN + "action": action.to(own).reshape(own.shape),
            _OWN + "step": torch.full_like(step, self.settings.planner.execute),
        }
        return state.with_(told)

    def _observed(
        self,
        obs: Mapping[str, Tensor],
        state: State | None,
        is_first: Tensor,
        draws: Draws | None,
        generator: torch.Generator | None,
    ) -> State:
        """The model's State after this observation."""
        if state is None:
            return self.world_model.encode(dict(obs), draws=draws, generator=generator)
        own = {k: v for k, v in state.tensors.items() if not k.startswith(_OWN)}
        return self.world_model.observe(
            State(own, state.meta),
            state[_OWN + "action"],
            dict(obs),
            is_first,
            draws=draws,
            generator=generator,
        )

    def _under_way(self, state: State | None, is_first: Tensor) -> dict[str, Tensor]:
        """The plan each row is executing; rows that start anew have none, so one is due."""
        rows, device = is_first.shape[0], is_first.device
        memory = self.planner.initial_memory(rows, device).tensors
        space, horizon = self.planner.space, self.settings.planner.horizon
        nothing = space.to_env(space.initial_mean(rows, horizon, device=device))
        fresh = {
            "action": nothing[:, 0],
            "plan": nothing,
            "step": torch.full((rows,), self.settings.planner.execute, device=device),
            **{f"memory.{key}": value for key, value in memory.items()},
        }
        if state is None:
            return fresh
        kept = {key: state[_OWN + key] for key in fresh}
        return _where(is_first, fresh, kept)

    def _begun(self, plan: ActionPayload) -> dict[str, Tensor]:
        assert plan.tensor is not None
        actions = plan.tensor.transpose(0, 1)  # (B, H, ...)
        step = torch.zeros(len(actions), dtype=torch.int64, device=actions.device)
        memory = plan.extras[MEMORY].tensors
        return {
            "action": actions[:, 0],
            "plan": actions,
            "step": step,
            **{f"memory.{key}": value for key, value in memory.items()},
        }


def _with_own(latent: State, under_way: Mapping[str, Tensor]) -> State:
    """The model's State with what the planner keeps beside it."""
    return latent.with_({_OWN + key: value for key, value in under_way.items()})


def _where(rows: Tensor, new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`new` in the given rows (B,), `old` in the others."""
    return {
        key: torch.where(rows.reshape(-1, *[1] * (value.ndim - 1)), value, old[key])
        for key, value in new.items()
    }
