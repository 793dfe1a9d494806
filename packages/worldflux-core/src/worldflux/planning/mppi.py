"""Model predictive path integral control, as TD-MPC2 plans (2310.16828, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from worldflux.core.rand import exponential
from worldflux.planning.config import MPPIConfig
from worldflux.planning.elites import best, moments, pick
from worldflux.planning.planner import Plan, Planner, PlanningProblem


class MPPI(Planner[MPPIConfig]):
    """Refits the distribution to the best K of N candidates, weighted by their score.

    The model's proposals stay candidates in every iteration; the std starts anew at each plan
    while the mean is shifted. Draws: "noise" (B, N - proposals, H, A) in each iteration, and
    "choice" (B, K), exponential, for the elite drawn.
    """

    name: ClassVar[str] = "mppi"

    def optimize(self, problem: PlanningProblem, memory: Mapping[str, Tensor]) -> Plan:
        """An elite drawn by its weight, or the mean (B, H, A), from which the next plan starts."""
        config = self.config
        mean = self.shifted(memory["mean"])
        std = torch.full_like(mean, config.init_std)
        proposals = problem.proposals()
        shape = (config.candidates - config.proposals, config.horizon, self.space.size)
        for i in range(config.iterations):
            noise = problem.draw("noise", *shape, iteration=i)
            candidates = self.space.sample(mean.unsqueeze(1), std.unsqueeze(1), noise, problem.mask)
            if proposals is not None:
                candidates = torch.cat([proposals, candidates], 1)
            scores = problem.score(candidates, i)
            elites, values, index = best(candidates, scores, config.elites)
            weights = torch.softmax(config.temperature * values, 1)  # (B, K)
            mean, std = self.space.refitted(
                *moments(elites, weights), config.min_std, config.max_std, config.min_prob
            )
            problem.record(
                actions=candidates,
                value=scores,
                elite_idx=index,
                score=weights,
                mean=mean,
                std=std,
            )
        if config.select == "sample":
            choice = problem.draw("choice", config.elites, sampler=exponential)
            plan = pick(elites, sampled_index(weights, choice))[:, 0]
        else:
            plan = self.space.project(mean.unsqueeze(1), problem.mask)[:, 0]
        return Plan(plan, values[:, 0], {"mean": mean}, None if self.space.discrete else std[:, 0])


def sampled_index(weights: Tensor, choice: Tensor) -> Tensor:
    """One index (B, 1) per row, of probability `weights` (B, K); `choice` (B, K) is exponential."""
    return (weights.log() - choice.log()).argmax(1, keepdim=True)
