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

from worldflux import distributed
from worldflux.core.agent import Agent
from worldflux.runs import Run
from worldflux.training import Phase
from worldflux_train.assembly import acting, choose_device, make_agent
from worldflux_train.changed_config import plain
from worldflux_train.checkpoint import Parts, load_newest, save_checkpoint
from worldflux_train.clock import Clock
from worldflux_train.collector import Chunk, Collector
from worldflux_train.config import RunConfig
from worldflux_train.data import Mixture, ReadAhead
from worldflux_train.inputs import (
    check_fits,
    make_source,
    make_stepper,
    open_inputs,
)
from worldflux_train.interrupt import Interrupt
from worldflux_train.judging import Judge
from worldflux_train.meters import refuse_non_finite_weights
from worldflux_train.pace import Pace
from worldflux_train.patience import Patience
from worldflux_train.phase_warnings import MissedPhases, warn_of_late_phases
from worldflux_train.ranks import rank_rand, tell
from worldflux_train.rates import apply_schedules
from worldflux_train.room import require_room
from worldflux_train.rows import Rows
from worldflux_train.schedule import Schedule, crossed
from worldflux_train.stepping import Stepper
from worldflux_train.updater import Updater

logger = logging.getLogger(__name__)
Outcome = Literal["finished", "interrupted"]


class Trainer:
    """One run, from its configuration.

    A round collects `train.round` vector steps in the collector's thread, with the weights of the
    round's beginning, while the updater does the updates due for the steps before that round.
    Both meet at the round's end, so nothing depends on which of them is faster. While a burst is
    owed, a round is a piece of it and the clock stands still; once collection is over, a round is
    `train.round * train.envs` steps of the clock with the updates due for them.
    """

    def __init__(self, config: RunConfig, run: Run) -> None:
        self.settings = config.train
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        device = self.device = choose_device(self.settings.device)
        seed = self.settings.seed
        stepper = make_stepper(config) if config.data.path is None else None
        self.inputs = open_inputs(config, stepper)
        self.config = config = self.inputs.config
        self.run = Run(run.path, plain(config))
        specs = (self.inputs.obs_spec, self.inputs.action_spec)
        self.agent = make_agent(config, *specs, device)
        self.agent.precision = self.settings.precision  # replay keeps latents as they are computed
        self.agent.accumulate = self.settings.accumulate
        if config.has_env:
            acting(self.agent, config)  # refuses a learner that does not act
        plan = self.inputs.plan(self.agent.training_plan())
        self.schedule = Schedule(plan)
        self.source, self.replay = make_source(
            self.agent, self.inputs, plan, device, run.replay_path
        )
        self.clock = Clock()
        self.collector = self._make_collector(stepper) if config.has_env else None
        rand = rank_rand(seed, "learner", device)
        self.updater = Updater(self.agent, self.source, rand, device)
        apply_schedules(self.agent, self.settings.schedules)
        self.patience = Patience(self.settings, self.agent)
        self.parts = Parts(
            self.clock, self.schedule, self.collector, self.updater, self.source, self.patience
        )
        self.pace = Pace(self.settings.eval_every)
        self.rows = Rows(
            self.config, self.clock, self.schedule, self.updater.meters, self.pace, self.replay,
            self.collector, device,
        )  # fmt: skip
        self.judge = Judge(
            self.agent, self.inputs, self.run, self.collector, self.clock, self.schedule, device
        )
        self.judge.show = self.rows.show
        self._missed = MissedPhases(self.schedule)
        self._evaluated: int | None = None  # tick of the last evaluation
        self._score: float | None = None  # what it gave
        self._interrupt = Interrupt()
        if self.replay is not None:
            require_room(self.replay, plan, self.settings.envs)

    def _make_collector(self, stepper: Stepper | None) -> Collector:
        """What acts in the environment: to collect, or only to be judged there."""
        if stepper is None:
            stepper = make_stepper(self.config, None if self.replay is not None else 1)
            check_fits(stepper, self.inputs)
        specs = (self.inputs.obs_spec, self.inputs.action_spec)
        agent = acting(make_agent(self.config, *specs, self.device), self.config).eval()
        rand = rank_rand(self.settings.seed, "collector", self.device)
        return Collector(agent, stepper, rand, self.device)

    def close(self) -> None:
        """Close the environments and stop reading ahead."""
        if self.collector is not None:
            self.collector.stepper.envs.close()
        if isinstance(self.source, ReadAhead | Mixture):
            self.source.close()

    # Beginning and end

    def restore(self) -> Path | None:
        """Continue from the newest intact checkpoint; None if there is none."""
        folder = load_newest(self.run, self.parts)
        tick = self.clock.tick
        rows = [row for row in self.run.metrics() if _judgement(row) and not row.get("final")]
        done = [row.get("tick", row["step"]) for row in rows]
        self._evaluated = max((at for at in done if at <= tick), default=None)
        if self._evaluated == tick and self.clock.evaluation_due:  # made up for, before a kill
            self.clock.evaluation_due = False
            at = [row for row in rows if row.get("tick", row["step"]) == tick]
            self.patience.judged(_score_in(at[-1]))
        return folder

    def train(self) -> Outcome:
        """Run until `train.steps` and until nothing is owed, or until interrupted.

        Either way a checkpoint of the last moment is left.
        """
        self._began = time.monotonic() - self.clock.seconds
        self.pace.mark(self.clock, self.schedule.updates)
        warn_of_late_phases(self.schedule, self.settings.steps)
        tell("worldflux_run_start", run=self.run.path, config=self.config)
        outcome = "failed"
        try:
            with self._interrupt as interrupt, ThreadPoolExecutor(1, "collector") as pool:
                first = self.clock.tick == 0 and self._evaluated is None
                if self.clock.evaluation_due or (first and self._evaluates_first()):
                    self._evaluate()
                while not distributed.agreed(interrupt.requested) and not self._over():
                    self._round(pool)
                outcome = self._finish()
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            tell("worldflux_run_end", run=self.run.path, outcome=outcome)
            self.close()
            self.rows.close()
        return outcome

    def _evaluates_first(self) -> bool:
        """Whether the untrained agent is evaluated: planning with one is slow and tells little."""
        asked = self.settings.eval_first
        return not (isinstance(self.agent, Agent) and self.agent.plans) if asked is None else asked

    def _over(self) -> bool:
        """Whether the clock is at its end and no burst is owed, or evaluations ended the run."""
        if self.patience.stopped is not None:
            return True
        return self.clock.step >= self.settings.steps and self._burst() is None

    def _finish(self) -> Outcome:
        finished = self._over()
        if finished:
            self._settle()
            if self.patience.stopped is None:
                self._missed.warn(self.clock.step, over=True)
            else:
                logger.info("the run ends at step %d: %s", self.clock.step, self.patience.stopped)
            self.rows.log(self.clock.tick, self.settings.steps, final=True)
            if self._evaluated != self.clock.tick:
                finished = self._evaluate(final=True)
        if self.clock.tick not in self.run.ticks():
            self._save(self._score if self._evaluated == self.clock.tick else None)
        return "finished" if finished else "interrupted"

    # Rounds

    def _round(self, pool: ThreadPoolExecutor) -> None:
        before = self.clock.tick
        burst = self._burst()
        if burst is not None:
            self._learn(*burst)
            self.clock.bursts += burst[1]
            if self.collector is not None:
                self.collector.prepared = False
        elif self.collector is not None and self.schedule.collects(self.clock.step):
            self._collect(pool, self.collector)
        else:
            self._go_on()
        self._missed.warn(self.clock.step)
        self._between(before)

    def _burst(self) -> tuple[Phase, int] | None:
        """The piece of a burst that comes next, after beginning the phases whose time has come."""
        self.schedule.begin(self.clock.step, self._ready)
        for name in self.agent.optimizers:
            self.agent.total[name] = self.schedule.steps_of(name, self.settings.steps)
        return self.schedule.burst()

    def _ready(self, phase: Phase) -> bool:
        """Whether every rank's source can serve the phase."""
        return not distributed.agreed(not self.source.ready(phase))

    def _collect(self, pool: ThreadPoolExecutor, collector: Collector) -> None:
        """Collect a round with the weights of now; meanwhile do the updates due."""
        step = self.clock.step
        self._hand_over()
        prefill = self.schedule.plan.prefill
        future = pool.submit(collector.collect, self._vector_steps(step), step, prefill)
        try:
            self._learn_due(step)
        finally:
            chunk = future.result()
        self._take(chunk)

    def _go_on(self) -> None:
        """A round without collection: the clock goes on, and the updates due for it are done."""
        step = self.clock.step
        length = self.settings.round * self.settings.envs
        change = self.schedule.until_change(step)
        length = min(length, self.settings.steps - step, length if change is None else change)
        self._learn_due(step + length)
        self.clock.step += length

    def _settle(self) -> None:
        """Do the updates due at this moment now.

        The coming round would do them while it collects; its weights are handed over first, so
        that it makes no difference to it.
        """
        if self._burst() is None:
            self._hand_over()
            self._learn_due(self.clock.step)

    def _hand_over(self) -> None:
        """Give the collector the weights of the coming round, unless it has them."""
        if self.collector is not None and not self.collector.prepared:
            weights = acting(self.agent, self.config).acting_weights()
            self.collector.follow(weights, self.schedule.updates)
            self.collector.prepared = True

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
        self.updater.meters.read()
        refuse_non_finite_weights(self.agent)

    def _vector_steps(self, step: int) -> int:
        """Vector steps of the next round; it ends where a phase starts or ends."""
        left = self.schedule.until_change(step)
        if left is None:
            return self.settings.round
        return min(self.settings.round, -(-left // (self.settings.envs * distributed.world_size())))

    def _learn_due(self, step: int) -> None:
        for phase, updates in self.schedule.due(step):
            self._learn(phase, updates)

    def _learn(self, phase: Phase, updates: int) -> None:
        def after(metrics: Mapping[str, Tensor | float]) -> None:
            self.schedule.done[phase.name] += 1
            step = self.clock.step
            tell("worldflux_after_update", run=self.run.path, step=step, metrics=metrics)

        with self._blaming_divergence():
            self.updater.learn(phase, self.schedule.done[phase.name], updates, after)

    def _take(self, chunk: Chunk) -> None:
        assert self.replay is not None, "steps are collected into a replay"
        for rows in chunk.rows:
            self.replay.append(rows)
        steps = distributed.total(chunk.steps)
        self.clock.step += steps
        self.clock.agent_steps += steps
        self.clock.episodes += distributed.total(len(chunk.episodes))
        for episode in chunk.episodes:
            self.rows.write(episode)
            tell("worldflux_after_episode", run=self.run.path, episode=episode)

    # Between rounds

    def _between(self, before: int) -> None:
        """Log, evaluate and save where that is due since tick `before`."""
        after = self.clock.tick
        self.clock.seconds = time.monotonic() - self._began
        if crossed(self.settings.log_every, before, after):
            self.rows.log(before, self.settings.steps)
        score = None
        if crossed(self.settings.eval_every, before, after) and self._evaluate():
            score = self._score
        every = (self.settings.checkpoint_every, self.settings.keep_every)
        due = any(crossed(each, before, after) for each in every) or self._is_best(score)
        if due and not self._over():  # at the end there is more to do before the last one
            self._save(score)

    def _evaluate(self, final: bool = False) -> bool:
        """Judge the agent once the updates due are done; False if a signal stopped it."""
        self._settle()
        began, tick = time.monotonic(), self.clock.tick
        result = None
        if distributed.rank() == 0:
            result = self.judge.judge(lambda: self._interrupt.requested)
        result = distributed.told(result)
        self.clock.evaluation_due = result is None and not final
        if result is None:
            logger.info("the evaluation at step %d was stopped", self.clock.step)
            return False
        row, score = result
        self._evaluated, self._score = tick, score
        if not final:  # a longer run would not have that one
            self.patience.judged(score)
        if not row:  # neither an environment nor held-out data: the newest is the best
            return True
        seconds = time.monotonic() - began
        self.pace.evaluated(seconds)
        row = {"step": self.clock.step, **row, "time/evaluation": seconds}
        self.rows.write({**row, "final": True} if final else row)
        return True

    def _is_best(self, score: float | None) -> bool:
        best = self.run.best_tick()
        if score is None or best is None:
            return False
        return score > float(self.run.manifest(best)["score"])

    def _save(self, score: float | None) -> None:
        self._require_finite()
        keep = (self.settings.keep_last, self.settings.keep_every)
        path = save_checkpoint(self.run, self.parts, *keep, score)
        tell("worldflux_checkpoint", run=self.run.path, path=path, step=self.clock.step)


def _judgement(row: Mapping[str, Any]) -> bool:
    return any(key.startswith("eval/") for key in row)


def _score_in(row: Mapping[str, Any]) -> float | None:
    found = row.get("eval/return", row.get("eval/score"))
    return None if found is None else float(found)
