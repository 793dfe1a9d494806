"""Cross-entropy method, as PlaNet plans (1811.04551, algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from worldflux.planning.config import CEMConfig
from worldflux.planning.elites import best, moments
from worldflux.planning.planner import Plan, Planner, PlanningProblem


class CEM(Planner[CEMConfig]):
    """Refits a diagonal Gaussian, or a categorical per step, to the best K of N candidates.

    Draws: "noise" (B, N - proposals, H, A) in each iteration.
    """

    name: ClassVar[str] = "cem"

    def optimize(self, problem: PlanningProblem, memory: Mapping[str, Tensor]) -> Plan:
        """The last mean (B, H, A), or the best candidate; the next plan starts from the mean."""
        config = self.config
        mean = self.shifted(memory["mean"])
        std = torch.full_like(mean, config.init_std)
        proposals = problem.proposals()
        weights = mean.new_full((problem.batch, config.elites), 1.0 / config.elites)
        shape = (config.candidates - config.proposals, config.horizon, self.space.size)
        for i in range(config.iterations):
            noise = problem.draw("noise", *shape, iteration=i)
            candidates = self._candidates(mean, std, noise, proposals, problem.mask)
            scores = problem.score(candidates, i)
            elites, values, index = best(candidates, scores, config.elites)
            fitted_mean, fitted_std = moments(elites, weights)
            mean = torch.lerp(fitted_mean, mean, config.momentum)
            std = torch.lerp(fitted_std, std, config.momentum)
            mean, std = self.space.refitted(
                mean, std, config.min_std, config.max_std, config.min_prob
            )
            problem.record(actions=candidates, value=scores, elite_idx=index, mean=mean, std=std)
        if config.select == "best":
            plan = elites[:, 0]
        else:
            plan = self.space.project(mean.unsqueeze(1), problem.mask)[:, 0]
        return Plan(plan, values[:, 0], {"mean": mean})

    def _candidates(
        self,
        mean: Tensor,
        std: Tensor,
        noise: Tensor,
        proposals: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        """Proposals first, then samples (B, N, H, A)."""
        center = mean.unsqueeze(1)
        sampled = self.space.sample(center, std.unsqueeze(1), noise, mask)
        if self.config.include_mean:
            sampled = torch.cat([self.space.project(center, mask), sampled[:, 1:]], 1)
        return sampled if proposals is None else torch.cat([proposals, sampled], 1)
