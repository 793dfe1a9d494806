"""What all planners share: one call, its randomness, its memory and its result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from worldflux.core.conditions import ACTION_MASK
from worldflux.core.model import WorldModel
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.rand import Rand, Sampler, normal
from worldflux.core.state import State
from worldflux.errors import CapabilityError, ContractError
from worldflux.planning.action_space import ActionSpace
from worldflux.planning.config import PlannerConfig
from worldflux.planning.elites import shift
from worldflux.planning.score import default_score
from worldflux.specs import Capability, TensorSpec

HORIZON = "wf.planner.horizon"
MEMORY = "wf.planner.memory"
SCORE = "wf.planner.score"

Trace = list[dict[str, Tensor]]
_ConfigT = TypeVar("_ConfigT", bound=PlannerConfig)


@dataclass(frozen=True)
class Plan:
    """What an optimiser found, in search coordinates: actions (B, H, A), score (B,).

    `memory` are the tensors (B, ...) the next plan starts from; `std` (B, A) is the spread of
    the first action to explore with, where the planner knows one.
    """

    actions: Tensor
    score: Tensor
    memory: dict[str, Tensor]
    std: Tensor | None = None


@dataclass(frozen=True)
class PlanningProblem:
    """One call of a planner: the model, the State (B, ...) to plan from, and the randomness."""

    model: WorldModel
    state: State
    conditions: ConditionPayload | None
    space: ActionSpace
    config: PlannerConfig
    rand: Rand
    trace: Trace | None = field(default=None)

    @property
    def batch(self) -> int:
        """Number of environments B."""
        return self.state.batch_size

    @property
    def mask(self) -> Tensor | None:
        """The permitted action dimensions or choices (B, 1, 1, A), or None for all."""
        extras = self.conditions.extras if self.conditions is not None else {}
        mask: Tensor | None = extras.get(ACTION_MASK)
        return None if mask is None else mask.to(self.state.device)[:, None, None, :]

    def draw(
        self, name: str, *shape: int, sampler: Sampler = normal, iteration: int | None = None
    ) -> Tensor:
        """The random tensor (B, *shape) called `name`, once a plan or once an iteration."""
        rand = self.rand if iteration is None else self.rand.at(iteration)
        return rand.draw(name, (self.batch, *shape), sampler, device=self.state.device)

    def score(self, candidates: Tensor, iteration: int) -> Tensor:
        """Scores (B, N) of candidates (B, N, H, A); not-a-number counts as the worst.

        The model's own `score` gets actions as it takes them: (B, N, H, A), blocks of k actions
        (B, N, H, k, A), choices one-hot (B, N, H, A).
        """
        actions = self.space.to_model(candidates)
        rand = self.rand.under("score/").at(iteration)
        own = getattr(self.model, "score", None)
        if own is not None:
            scores = own(self.state, actions, self.conditions, rand=rand)
        else:
            scores = default_score(
                self.model, self.state, actions, self.conditions, self.config.score, rand=rand
            )
        if scores.shape != candidates.shape[:2]:
            raise ContractError(
                f"{type(self.model).__name__}.score returned shape {tuple(scores.shape)} for "
                f"{candidates.shape[0]} environments and {candidates.shape[1]} candidates, "
                f"expected {tuple(candidates.shape[:2])}."
            )
        lowest = torch.finfo(torch.float32).min
        return scores.float().nan_to_num(nan=lowest, neginf=lowest)

    def proposals(self) -> Tensor | None:
        """The model's own candidates (B, P, H, A), or None where none are asked for.

        It proposes actions (B, P, H, ...) as it takes them (see `score`).
        """
        count, horizon = self.config.proposals, self.config.horizon
        if count == 0:
            return None
        propose = getattr(self.model, "propose", None)
        if propose is None:
            raise CapabilityError(
                f"proposals={count}, but {type(self.model).__name__} has no `propose(state, n, "
                "horizon)`. Set proposals=0."
            )
        actions = propose(
            self.state, count, horizon, self.conditions, rand=self.rand.under("propose/")
        )
        wanted = (self.batch, count, horizon, *self.space.shape)
        if tuple(actions.shape) != wanted:
            raise ContractError(
                f"{type(self.model).__name__}.propose returned shape {tuple(actions.shape)}, "
                f"expected (B, n, H, *action) = {wanted}."
            )
        return self.space.project(self.space.from_model(actions.float()), self.mask)

    def record(self, **tensors: Tensor) -> None:
        """Keep an iteration's tensors for whoever asked for a trace."""
        if self.trace is not None:
            self.trace.append({key: value.detach() for key, value in tensors.items()})


class Planner(ABC, Generic[_ConfigT]):
    """Searches the actions (H) that a model scores highest, for B environments at once.

    A subclass implements `optimize`, and what it remembers in `initial_memory`. Every row is
    planned on its own: it depends on no other row.
    """

    name: ClassVar[str]

    def __init__(
        self, action_spec: Mapping[str, TensorSpec] | TensorSpec, config: _ConfigT
    ) -> None:
        self.space = ActionSpace(action_spec)
        self.config = config

    def __call__(
        self,
        model: WorldModel,
        state: State,
        *,
        conditions: ConditionPayload | None = None,
        previous: State | None = None,
        rand: Rand | None = None,
        explore: bool = False,
        trace: Trace | None = None,
    ) -> ActionPayload:
        """Plan from State (B, ...): a payload (H, B, *action), indices (H, B) for one choice.

        Its extras hold the plan's length, its predicted score (B,) and, as a State, the memory
        to pass as `previous` next time. `rand` is asked for the draws that the planner's class
        names, and for "explore" (B, A); the model's `score` asks for "score/NAME", forced tensors
        having one leading axis for the iterations, and its `propose` for "propose/NAME". `explore`
        perturbs the first action. `trace` collects each iteration's tensors.
        """
        model.require(Capability.PLANNING)
        previous = previous if self.config.warm_start else None
        memory = self._memory(previous, state.batch_size, state.device)
        problem = PlanningProblem(
            model, state, conditions, self.space, self.config, rand or Rand(), trace
        )
        with torch.no_grad():
            plan = self.optimize(problem, memory)
            actions = self._explored(plan, problem) if explore else plan.actions
            tensor = self.space.to_env(actions.transpose(0, 1))
        return ActionPayload(
            kind=self.space.kind,
            tensor=tensor,
            extras={
                HORIZON: self.config.horizon,
                MEMORY: State({**plan.memory, "warm": torch.ones_like(plan.score).bool()}),
                SCORE: plan.score,
            },
        )

    @abstractmethod
    def optimize(self, problem: PlanningProblem, memory: Mapping[str, Tensor]) -> Plan:
        """Search from `memory` (B, ...): that of `initial_memory` or of an earlier plan."""

    def initial_memory(self, batch: int, device: torch.device | str = "cpu") -> State:
        """The memory of rows that have not been planned for yet."""
        device = torch.device(device)
        mean = self.space.initial_mean(batch, self.config.horizon, device=device).clone()
        return State({"mean": mean, "warm": torch.zeros(batch, dtype=torch.bool, device=device)})

    def shifted(self, mean: Tensor, fill: Tensor | None = None) -> Tensor:
        """The previous plan's mean (B, H, A) moved on by the actions executed since."""
        if fill is None:
            fill = self.space.initial_mean(1, 1, device=mean.device)
        return shift(mean, fill, self.config.execute)

    def _explored(self, plan: Plan, problem: PlanningProblem) -> Tensor:
        scale = plan.std
        if self.config.exploration is not None:
            scale = torch.full_like(plan.actions[:, 0], self.config.exploration)
        if scale is None:
            return plan.actions
        mask = problem.mask
        first = self.space.perturb(
            plan.actions[:, 0],
            scale,
            problem.draw("explore", self.space.size),
            None if mask is None else mask[:, 0, 0],
        )
        return torch.cat([first.unsqueeze(1), plan.actions[:, 1:]], 1)

    def _memory(
        self, previous: State | None, batch: int, device: torch.device
    ) -> Mapping[str, Tensor]:
        initial = self.initial_memory(batch, device).tensors
        if previous is None:
            return initial
        expected = {key: tuple(value.shape) for key, value in initial.items()}
        actual = {key: tuple(value.shape) for key, value in previous.tensors.items()}
        if expected != actual:
            raise ContractError(
                f"{type(self).__name__} cannot start from this memory: expected {expected}, got "
                f"{actual}. Pass the State under {MEMORY!r} of this planner's last plan."
            )
        return previous.tensors
