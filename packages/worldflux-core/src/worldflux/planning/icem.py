"""iCEM: the sample-efficient cross-entropy method (Pinneri et al., 2008.06389, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from worldflux.core.state import State
from worldflux.planning.config import ICEMConfig
from worldflux.planning.elites import best, moments
from worldflux.planning.noise import colored
from worldflux.planning.planner import Plan, Planner, PlanningProblem


class ICEM(Planner[ICEMConfig]):
    """CEM with noise coloured in time, fewer samples per iteration and remembered elites.

    The best of the kept elites and the last samples is the plan, the mean is one of the last
    iteration's candidates, and the shifted mean repeats its last action. Draws: "noise"
    (B, N, H, A) in each iteration, of which later ones use fewer, and "tail" (B, kept, execute, A),
    the kept elites' actions after the shift.
    """

    name: ClassVar[str] = "icem"

    @property
    def kept(self) -> int:
        """Number of elites that survive an iteration and, shifted, a plan."""
        return int(self.config.keep * self.config.elites)

    @property
    def sizes(self) -> list[int]:
        """Samples of each iteration: N, N/decay, ... but at least twice the elites."""
        sizes = [self.config.candidates]
        for _ in range(self.config.iterations - 1):
            sizes.append(max(2 * self.config.elites, int(sizes[-1] / self.config.decay)))
        return sizes

    def initial_memory(self, batch: int, device: torch.device | str = "cpu") -> State:
        memory = super().initial_memory(batch, device)
        elites = memory.tensors["mean"].unsqueeze(1).repeat(1, self.kept, 1, 1)
        return State({**memory.tensors, "elites": elites})

    def optimize(self, problem: PlanningProblem, memory: Mapping[str, Tensor]) -> Plan:
        """The best candidate; mean (B, H, A) and elites (B, kept, H, A) start the next plan."""
        config = self.config
        mean = self.shifted(memory["mean"], memory["mean"][:, -1:])
        std = torch.full_like(mean, config.init_std)
        given, remembered = self._given(mean, std, problem, memory)
        weights = mean.new_full((problem.batch, config.elites), 1.0 / config.elites)
        values = mean.new_zeros(problem.batch, 0)
        for i, size in enumerate(self.sizes):
            candidates = self._sampled(mean, std, problem, i, size)
            if i == 0:
                candidates = torch.cat([candidates, *given], 1)
            scores = problem.score(candidates, i)
            if i == 0:
                scores = self._without_initial_elites(scores, memory["warm"])
            else:
                candidates = torch.cat([candidates, remembered], 1)
                scores = torch.cat([scores, values[:, : self.kept]], 1)
            elites, values, index = best(candidates, scores, config.elites)
            remembered = elites[:, : self.kept]
            fitted_mean, fitted_std = moments(elites, weights)
            mean, std = self.space.refitted(
                torch.lerp(fitted_mean, mean, config.momentum),
                torch.lerp(fitted_std, std, config.momentum),
                config.min_std,
                config.max_std,
                config.min_prob,
            )
            problem.record(actions=candidates, value=scores, elite_idx=index, mean=mean, std=std)
        return Plan(elites[:, 0], values[:, 0], {"mean": mean, "elites": remembered})

    def _sampled(
        self, mean: Tensor, std: Tensor, problem: PlanningProblem, i: int, size: int
    ) -> Tensor:
        shape = (self.config.candidates, self.config.horizon, self.space.size)
        noise = problem.draw("noise", *shape, iteration=i)[:, :size]
        noise = colored(noise, self.config.beta)
        center, mask = mean.unsqueeze(1), problem.mask
        sampled = self.space.sample(center, std.unsqueeze(1), noise, mask)
        if i < self.config.iterations - 1:
            return sampled
        return torch.cat([self.space.project(center, mask), sampled[:, 1:]], 1)

    def _given(
        self, mean: Tensor, std: Tensor, problem: PlanningProblem, memory: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """What joins the first iteration: proposals, then the last plan's elites, shifted."""
        steps = self.config.execute
        end = self.space.sample(
            mean[:, None, -steps:],
            std[:, None, -steps:],
            problem.draw("tail", self.kept, steps, self.space.size),
            problem.mask,
        )
        earlier = torch.cat([memory["elites"][:, :, steps:], end], 2)
        earlier = self.space.project(earlier, problem.mask)
        proposals = problem.proposals()
        return [earlier] if proposals is None else [proposals, earlier], earlier

    def _without_initial_elites(self, scores: Tensor, warm: Tensor) -> Tensor:
        """Rows without an earlier plan have no elites to reuse: those score worst."""
        if self.kept == 0:
            return scores
        lowest = torch.finfo(scores.dtype).min
        earlier = scores[:, -self.kept :].masked_fill(~warm[:, None], lowest)
        return torch.cat([scores[:, : -self.kept], earlier], 1)
