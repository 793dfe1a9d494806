"""Model predictive path integral control, as TD-MPC2 plans (2310.16828, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from worldflux.planning.config import MPPIConfig
from worldflux.planning.elites import best, moments, pick
from worldflux.planning.planner import DrawSpec, Plan, Planner, Problem


class MPPI(Planner[MPPIConfig]):
    """Refits the distribution to the best K of N candidates, weighted by their score.

    The model's proposals stay candidates in every iteration; the std starts anew at each plan
    while the mean is shifted. Draws: `noise`, and `choice` (exponential) for the elite drawn.
    """

    name: ClassVar[str] = "mppi"

    def draw_specs(self, batch: int) -> dict[str, DrawSpec]:
        config = self.config
        sampled = config.candidates - config.proposals
        shape = (config.iterations, batch, sampled, config.horizon, self.space.size)
        return {
            "noise": DrawSpec(shape),
            "choice": DrawSpec((batch, config.elites), "exponential"),
        }

    def optimize(self, problem: Problem, memory: Mapping[str, Tensor]) -> Plan:
        config = self.config
        mean = self.shifted(memory["mean"])
        std = torch.full_like(mean, config.init_std)
        proposals = problem.proposals()
        for i, noise in enumerate(problem.draws["noise"].unbind(0)):
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
            plan = pick(elites, drawn(weights, problem.draws["choice"]))[:, 0]
        else:
            plan = self.space.project(mean.unsqueeze(1), problem.mask)[:, 0]
        return Plan(plan, values[:, 0], {"mean": mean}, None if self.space.discrete else std[:, 0])


def drawn(weights: Tensor, exponential: Tensor) -> Tensor:
    """One index (B, 1) per row with probability `weights` (B, K): the Gumbel-max trick."""
    return (weights.log() - exponential.log()).argmax(1, keepdim=True)
