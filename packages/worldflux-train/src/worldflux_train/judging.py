"""How good the agent is while a run goes on: in its environment, else on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from worldflux.core.agent import Agent, Learner
from worldflux.runs import Run
from worldflux_train.assembly import acting, make_evaluation_envs
from worldflux_train.clock import Clock
from worldflux_train.collector import Collector
from worldflux_train.evaluation import Evaluation, evaluate
from worldflux_train.evaluation_videos import evaluation_videos
from worldflux_train.held_out_evaluation import evaluate_and_save
from worldflux_train.inputs import Inputs
from worldflux_train.schedule import Schedule
from worldflux_train.seeding import derived

Judgement = tuple[dict[str, Any], float | None]
"""Metrics of an evaluation, and its score."""


class Judge:
    """Evaluates the agent of a run as it is when asked."""

    def __init__(
        self,
        agent: Learner,
        inputs: Inputs,
        run: Run,
        collector: Collector | None,
        clock: Clock,
        schedule: Schedule,
        device: torch.device,
    ) -> None:
        self.agent, self.inputs, self.run, self.collector = agent, inputs, run, collector
        self.clock, self.schedule, self.device = clock, schedule, device
        self.config = inputs.config
        self.tell: Callable[[int, int], None] = lambda played, episodes: None
        """Hears of the episodes that an evaluation has played, and of how many."""
        self.show: Callable[[Mapping[str, Any]], None] = lambda videos: None
        """Is given the videos (T, Y, X, 3) of an evaluation by name."""

    def judge(self, stop: Callable[[], bool]) -> Judgement | None:
        """Metrics and score; no metrics where there is nothing to judge by, None if stopped."""
        if self.collector is None:
            tick, tell = self.clock.tick, self.tell
            return evaluate_and_save(self.agent, self.inputs, self.run, tick, self.device, tell)
        with self.collector.borrowed(self._newer_weights(self.collector)) as agent:
            played = self._play(agent, stop)
            if played is None:
                return None
            if self.config.train.eval_videos:
                self.show(evaluation_videos(self.config, agent, self.run, self.clock.tick, stop))
        return played.row(), played.mean

    def _play(self, agent: Agent, stop: Callable[[], bool]) -> Evaluation | None:
        settings = self.config.train
        return evaluate(
            agent,
            lambda count: make_evaluation_envs(self.config, count),
            settings.eval_episodes,
            derived(settings.seed, "evaluation"),  # alike for every agent, at every moment
            self.device,
            max_steps=settings.eval_max_steps,
            stop=stop,
            tell=self.tell,
        )

    def _newer_weights(self, collector: Collector) -> Mapping[str, Tensor]:
        """What an evaluation plays with, as far as the collector does not hold it."""
        published = self.agent.published()
        needed = acting(self.agent, self.config).acting_weights()
        if collector.version == self.schedule.updates:
            return {name: tensor for name, tensor in published.items() if name in needed}
        return {name: published.get(name, tensor) for name, tensor in needed.items()}
