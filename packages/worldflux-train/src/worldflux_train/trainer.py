"""The loop: rounds of collecting and learning, with everything else at the points between them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from worldflux.core.rand import Rand
from worldflux.errors import ConfigError
from worldflux.plugins import fire
from worldflux.runs import Run
from worldflux.training import Phase
from worldflux_train.assembly import (
    choose_device,
    make_agent,
    make_envs,
    make_evaluation_envs,
    make_replay,
)
from worldflux_train.changed_config import plain
from worldflux_train.checkpoint import Parts, Progress, best_step, load_newest, save_checkpoint
from worldflux_train.collector import Chunk, Collector
from worldflux_train.config import RunConfig
from worldflux_train.evaluation import evaluate
from worldflux_train.interrupt import Interrupt
from worldflux_train.learner import Learner
from worldflux_train.meters import refuse_non_finite_weights
from worldflux_train.schedule import Schedule, crossed
from worldflux_train.seeding import derived
from worldflux_train.sinks.base import Sink
from worldflux_train.stepping import Stepper

logger = logging.getLogger(__name__)
Outcome = Literal["finished", "interrupted"]


class Trainer:
    """One run, from its configuration.

    A round collects `train.round` vector steps in the collector's thread, with the weights of the
    round's beginning, while the learner does the updates due for the steps before that round.
    Both meet at the round's end, so nothing depends on which of them is faster.
    """

    def __init__(self, config: RunConfig, run: Run) -> None:
        self.config, self.settings = config, config.train
        self.run = Run(run.path, plain(config))
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        device = self.device = choose_device(self.settings.device)
        seed = self.settings.seed
        envs = make_envs(config, self.settings.envs)
        seeds = [derived(seed, "environment", i) for i in range(self.settings.envs)]
        self.stepper = Stepper(envs, seeds)
        specs = (self.stepper.obs_spec, self.stepper.action_spec)
        self.agent = make_agent(config, *specs, device)
        self.agent.precision = self.settings.precision  # replay keeps latents as they are computed
        acting = make_agent(config, *specs, device).eval()
        replay = make_replay(self.agent, self.settings, device, run.replay_path)
        self.schedule = Schedule(self.agent.training_plan())
        self.replay = replay
        self.progress = Progress()
        self.collector = Collector(
            acting, self.stepper, Rand.seeded(derived(seed, "collector"), device), device
        )
        self.learner = Learner(
            self.agent, replay, Rand.seeded(derived(seed, "learner"), device), device,
            self.settings.precision,
        )  # fmt: skip
        self.parts = Parts(self.progress, self.schedule, self.collector, self.learner, replay)
        self.sinks: list[Sink] = []
        self._stale = True
        self._logged = (0, 0, 0.0)
        self._evaluated: int | None = None  # step of the last scheduled evaluation
        self._interrupt = Interrupt()
        self._require_room()

    # Beginning and end

    def restore(self) -> Path | None:
        """Continue from the newest intact checkpoint; None if there is none."""
        folder = load_newest(self.run, self.parts)
        self._stale = True
        done = [
            row["step"]
            for row in self.run.metrics()
            if "eval/return" in row and not row.get("final") and row["step"] <= self.progress.step
        ]
        self._evaluated = max(done, default=None)
        return folder

    def train(self) -> Outcome:
        """Run until `train.steps`, or until interrupted; either way a checkpoint is left."""
        self._began = time.monotonic() - self.progress.seconds
        self._mark()
        fire("worldflux_run_start", run=self.run.path, config=self.config)
        outcome = "failed"
        try:
            with self._interrupt as interrupt, ThreadPoolExecutor(1, "collector") as pool:
                first = self.progress.step == 0 and self._evaluated is None
                if first or self.progress.evaluation_due:
                    self._evaluate()
                while self.progress.step < self.settings.steps and not interrupt.requested:
                    self._round(pool)
                outcome = self._finish()
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            fire("worldflux_run_end", run=self.run.path, outcome=outcome)
            self.stepper.envs.close()
            for sink in self.sinks:
                sink.close()
        return outcome

    def _finish(self) -> Outcome:
        step = self.progress.step
        score = None
        finished = step >= self.settings.steps
        if finished and self._evaluated != step:
            score = self._evaluate(final=True)
            finished = score is not None
        if step not in self.run.steps():
            self._save(score)
        return "finished" if finished else "interrupted"

    # Rounds

    def _round(self, pool: ThreadPoolExecutor) -> None:
        before = self.progress.step
        self.schedule.begin(before, self._ready)
        burst = self.schedule.burst()
        if burst is not None:
            with self._blaming_divergence():
                self._learn(*burst)
            return
        if self._stale:
            self.collector.follow(self.agent)
            self._stale = False
        prefill = self.schedule.plan.prefill
        future = pool.submit(self.collector.collect, self._length(before), before, prefill)
        with self._blaming_divergence():
            try:
                for phase, updates in self.schedule.due(before):
                    self._learn(phase, updates)
            finally:
                chunk = future.result()
        self._take(chunk)
        self._between(before, self.progress.step)

    @contextmanager
    def _blaming_divergence(self) -> Iterator[None]:
        """An agent fails in many ways once its numbers are not finite: say that, where it is so."""
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                self._require_finite()

    def _require_finite(self) -> None:
        self.learner.meters.read()
        refuse_non_finite_weights(self.agent)

    def _length(self, step: int) -> int:
        """Vector steps of the next round; it ends where a phase starts."""
        left = self.schedule.until_start(step)
        if left is None:
            return self.settings.round
        return min(self.settings.round, -(-left // self.settings.envs))

    def _learn(self, phase: Phase, updates: int) -> None:
        def after(metrics: Mapping[str, Tensor | float]) -> None:
            self.schedule.done[phase.name] += 1
            step = self.progress.step
            fire("worldflux_after_update", run=self.run.path, step=step, metrics=metrics)

        self._stale = True
        self.learner.learn(phase, self.schedule.done[phase.name], updates, after)

    def _take(self, chunk: Chunk) -> None:
        for rows in chunk.rows:
            self.replay.append(rows)
        self.progress.step += chunk.steps
        for episode in chunk.episodes:
            self.progress.episodes += 1
            self._write(episode)
            fire("worldflux_after_episode", run=self.run.path, episode=episode)

    def _ready(self, phase: Phase) -> bool:
        return self.replay.ready(phase)

    # Between rounds

    def _between(self, before: int, after: int) -> None:
        self.progress.seconds = time.monotonic() - self._began
        if crossed(self.settings.log_every, before, after):
            self._log()
        score = None
        if crossed(self.settings.eval_every, before, after):
            score = self._evaluate()
        if crossed(self.settings.checkpoint_every, before, after) or self._is_best(score):
            self._save(score)

    def _log(self) -> None:
        means = self.learner.meters.read()
        self.learner.meters.clear()
        step, updates = self.progress.step, self.schedule.updates
        elapsed = self.progress.seconds
        steps_before, updates_before, elapsed_before = self._logged
        span = max(elapsed - elapsed_before, 1e-9)
        rate = (step - steps_before) / span
        self._mark()
        self._write(
            {
                "step": step,
                "frames": step
                * int(self.config.env_options.get("action_repeat", 1))
                * self.collector.stepper.frames_per_step,
                "updates": updates,
                "episodes": self.progress.episodes,
                "replay": len(self.replay),
                **{f"train/{name}": value for name, value in means.items()},
                "time/elapsed": elapsed,
                "time/steps_per_second": rate,
                "time/updates_per_second": (updates - updates_before) / span,
                "time/left": (self.settings.steps - step) / max(rate, 1e-9),
            }
        )

    def _evaluate(self, final: bool = False) -> float | None:
        """The mean return; None if a signal stopped it."""
        began, step = time.monotonic(), self.progress.step
        self.collector.follow(self.agent)
        self._stale = False
        result = evaluate(
            self.collector.agent,
            lambda count: make_evaluation_envs(self.config, count),
            self.settings.eval_episodes,
            derived(self.settings.seed, "evaluation", step),
            self.device,
            max_steps=self.settings.eval_max_steps,
            stop=lambda: self._interrupt.requested,
        )
        self.progress.evaluation_due = result is None and not final
        if result is None:
            logger.info("the evaluation at step %d was stopped", step)
            return None
        row = {"step": step, **result.row(), "time/evaluation": time.monotonic() - began}
        self._write({**row, "final": True} if final else row)
        self._evaluated = step
        return result.mean

    def _is_best(self, score: float | None) -> bool:
        best = best_step(self.run)
        if score is None or best is None:
            return False
        return score > float(self.run.manifest(best)["score"])

    def _save(self, score: float | None) -> None:
        self._require_finite()
        path = save_checkpoint(self.run, self.parts, self.settings.keep_last, score)
        fire("worldflux_checkpoint", run=self.run.path, path=path, step=self.progress.step)

    def _write(self, row: Mapping[str, Any]) -> None:
        for sink in self.sinks:
            sink.write(row)

    def _mark(self) -> None:
        self._logged = (self.progress.step, self.schedule.updates, self.progress.seconds)

    def _require_room(self) -> None:
        slots = self.replay.lanes.slots
        for phase in self.schedule.plan.phases:
            if phase.length + phase.context > slots:
                raise ConfigError(
                    f"train.replay_capacity={self.replay.capacity} holds {slots} steps of each of "
                    f"{self.settings.envs} environments, but phase {phase.name!r} samples "
                    f"sequences of {phase.length + phase.context}. Raise it."
                )
