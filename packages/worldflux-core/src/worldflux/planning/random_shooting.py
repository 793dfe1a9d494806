"""Random shooting: many uniform plans, the best one is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from worldflux.planning.config import RandomShootingConfig
from worldflux.planning.elites import best
from worldflux.planning.planner import Plan, Planner, PlanningProblem


class RandomShooting(Planner[RandomShootingConfig]):
    """The best of the previous plan, the proposals and N uniform candidates.

    Draws: "noise" (B, N, H, A).
    """

    name: ClassVar[str] = "random_shooting"

    def optimize(self, problem: PlanningProblem, memory: Mapping[str, Tensor]) -> Plan:
        """The best candidate; the next plan starts from it (B, H, A)."""
        mask = problem.mask
        earlier = self.space.project(self.shifted(memory["mean"]).unsqueeze(1), mask)
        shape = (self.config.candidates, self.config.horizon, self.space.size)
        uniform = self.space.uniform(problem.draw("noise", *shape), mask)
        given = [part for part in (earlier, problem.proposals()) if part is not None]
        candidates = torch.cat([*given, uniform], 1)  # (B, 1 + P + N, H, A)
        scores = problem.score(candidates, 0)
        elites, values, index = best(candidates, scores, 1)
        plan = elites[:, 0]
        problem.record(actions=candidates, value=scores, elite_idx=index, mean=plan)
        return Plan(plan, values[:, 0], {"mean": plan})
