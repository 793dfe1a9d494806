"""Gradient ascent on the predicted score, from several starts at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from worldflux.errors import CapabilityError, ConfigError
from worldflux.planning.config import GradientConfig
from worldflux.planning.elites import best
from worldflux.planning.planner import Plan, Planner, PlanningProblem
from worldflux.specs import TensorSpec


class GradientPlanner(Planner[GradientConfig]):
    """Adam on every candidate's actions; each keeps its best iterate, the best one is the plan.

    Continuous actions are projected back into their bounds after each step. Discrete ones are
    relaxed to softmax(logits) when `relaxed` (1705.07177), and made one-hot at the end. Draws:
    "noise" (B, N - 1, H, A), where the candidates but the first begin.
    """

    name: ClassVar[str] = "gradient"

    def __init__(
        self, action_spec: Mapping[str, TensorSpec] | TensorSpec, config: GradientConfig
    ) -> None:
        super().__init__(action_spec, config)
        if self.space.discrete and not config.relaxed:
            raise ConfigError(
                "The gradient planner needs continuous actions, and this action is discrete "
                f"(n={self.space.spec.n}). Set relaxed=True if the model accepts mixtures of "
                "one-hot actions, or use cem, icem, mppi or random_shooting."
            )

    def optimize(self, problem: PlanningProblem, memory: Mapping[str, Tensor]) -> Plan:
        """The best of all iterates; the next plan starts from it (B, H, A)."""
        x = self._starts(problem, memory)
        optimizer = torch.optim.Adam([x], lr=self.config.lr, maximize=True)
        kept = x.detach().clone()
        kept_score = x.new_full(x.shape[:2], -torch.inf)
        for i in range(self.config.iterations):
            score, x.grad = self._ascent(x, problem, i)
            better = score > kept_score
            kept = torch.where(better[:, :, None, None], x.detach(), kept)
            kept_score = torch.where(better, score, kept_score)
            optimizer.step()
            if not self.space.discrete:
                x.data.clamp_(-1.0, 1.0)
            problem.record(actions=self._actions(kept, problem), value=score)
        finals = self._actions(torch.cat([kept, x.detach()], 1), problem)
        candidates = self.space.project(finals, problem.mask)
        scores = problem.score(candidates, self.config.iterations)
        elites, values, _ = best(candidates, scores, 1)
        return Plan(elites[:, 0], values[:, 0], {"mean": elites[:, 0]})

    def _starts(self, problem: PlanningProblem, memory: Mapping[str, Tensor]) -> Tensor:
        """Where the candidates (B, N + P, H, A) begin, as variables: actions, or logits."""
        given = self.shifted(memory["mean"]).unsqueeze(1)
        proposals = problem.proposals()
        if proposals is not None:
            given = torch.cat([given, proposals], 1)
        if self.space.discrete:
            flat = self.space.initial_mean(1, 1, 1, device=given.device)
            given = torch.lerp(given, flat, 0.1).log()
        noise = problem.draw("noise", self.config.candidates - 1, *given.shape[2:])
        restarts = given[:, :1] + self.config.init_std * noise
        x = torch.cat([given, restarts], 1)
        return (x if self.space.discrete else x.clamp(-1.0, 1.0)).detach().requires_grad_()

    def _actions(self, x: Tensor, problem: PlanningProblem) -> Tensor:
        """Variables to actions: masked, or a mixture of the permitted choices."""
        mask = problem.mask
        if not self.space.discrete:
            return x if mask is None else x * mask
        if mask is not None:
            x = x.masked_fill(mask == 0, -torch.inf)
        return torch.cat([part.softmax(-1) for part in x.split(self.space.counts, -1)], -1)

    def _ascent(self, x: Tensor, problem: PlanningProblem, iteration: int) -> tuple[Tensor, Tensor]:
        """Scores (B, N) and their gradient; candidates do not touch each other's."""
        with torch.enable_grad():
            score = problem.score(self._actions(x, problem), iteration)
            gradient = None
            if score.requires_grad:
                (gradient,) = torch.autograd.grad(score.sum(), x, allow_unused=True)
        if gradient is None:
            raise CapabilityError(
                f"{type(problem.model).__name__} scores actions without a gradient: the gradient "
                "planner needs one. Use cem, icem, mppi or random_shooting."
            )
        return score.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)
