"""A burst before, between and after collection: the clock stands still, the run may stop in it."""

from __future__ import annotations

import itertools
import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from worldflux.atomic import read_json
from worldflux.core.output import UpdateResult, metrics
from worldflux.core.rand import Rand
from worldflux.core.schedules import Schedule
from worldflux.core.state import State
from worldflux.runs import Run
from worldflux.testing import dummies
from worldflux.testing.dummies import TinyAgent
from worldflux.training import Phase, TrainingPlan
from worldflux_train import api, schedule
from worldflux_train.updater import OPTIMIZERS

PIECE = 4
STEPS = 70
UPDATES = {"encoder": 10, "dynamics": 9, "policy": 11}
"""Updates of each phase's burst."""


class ThreePhases(TinyAgent):
    """Two phases train the model, the last one, after collection, the policy.

    `hear(phase, n)` is told of each phase's nth update since it was set.
    """

    hear: Callable[[str, int], None] | None = None
    heard: dict[str, int]
    began: list[str]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.optimizers = {
            "model": torch.optim.Adam(self.world_model.parameters(), lr=1e-2),
            "policy": torch.optim.SGD(self.policy.parameters(), lr=1e-1),
        }
        self.schedules = {
            "model.lr": Schedule("cosine", start=0.1, peak=1.0, end=0.1, warmup=0.2),
            "policy.lr": Schedule("linear", peak=1.0, end=0.5),
        }

    def training_plan(self) -> TrainingPlan:
        return TrainingPlan(
            [
                Phase("encoder", batch=4, length=1, updates=UPDATES["encoder"], trains=("model",)),
                Phase(
                    "dynamics",
                    batch=4,
                    length=4,
                    context=1,
                    start=24,
                    end=60,
                    updates=UPDATES["dynamics"],
                    updates_per_step=0.5,
                    trains=("model",),
                ),
                Phase(
                    "policy",
                    batch=4,
                    length=1,
                    start=48,
                    updates=UPDATES["policy"],
                    trains=("policy",),
                ),
            ],
            collect_until=48,
        )

    def published(self) -> dict[str, torch.Tensor]:
        return {"policy.bias": self.policy.bias.detach() * 0.5}

    def begin(self, phase: str, source: Any, rand: Rand | None = None) -> None:
        ThreePhases.began.append(phase)

    def update(self, batch: Any, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        if ThreePhases.hear is not None:
            ThreePhases.heard[phase] = ThreePhases.heard.get(phase, 0) + 1
            ThreePhases.hear(phase, ThreePhases.heard[phase])
        if phase != "policy":
            found = self.step("model", lambda b, r: self.world_model.loss(b, rand=r), batch, rand)
            return UpdateResult({**metrics(found), "carried": self._remember(batch)})
        rand = rand or Rand()
        start = self.world_model.observe_sequence(batch, rand=rand.under("start/")).detach()
        found = self.step(
            "policy", lambda s, r: (self._policy_loss(s, r or Rand()), {}), start, rand
        )
        return UpdateResult(metrics(found))

    def _remember(self, batch: Any) -> torch.Tensor:
        """Keep the last observations from update to update; their mean."""
        new, old = batch.obs["state"][:, 0], self.carry
        kept = new if old is None else torch.cat([old["seen"], new])[-10:]
        self.carry = State({"seen": kept}, {"updates": 1 + (old.meta["updates"] if old else 0)})
        return kept.mean()


@pytest.fixture
def config(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(dummies, "TinyAgent", ThreePhases)
    ThreePhases.began = []
    monkeypatch.setattr(schedule, "BURST", PIECE)
    wanted = {
        "train.steps": STEPS, "train.checkpoint_every": 3, "train.log_every": 3,
        "train.eval_every": 40, "train.eval_episodes": 1, "train.keep_last": 100,
    }  # fmt: skip
    return tiny("gym/walk_env:Walk", wanted)


@contextmanager
def hearing(hear: Callable[[str, int], None]) -> Iterator[None]:
    """`hear` is called with each update inside `with`."""
    ThreePhases.hear, ThreePhases.heard = staticmethod(hear), {}  # type: ignore[assignment]
    try:
        yield
    finally:
        ThreePhases.hear = None


def _counters(run: Run) -> tuple[dict[str, int], dict[str, Any]]:
    folder = run.checkpoint_path(run.ticks()[-1])
    return read_json(folder / "schedule.json")["done"], read_json(folder / "clock.json")


def test_bursts_run_in_order_and_the_clock_stands_still_in_them(
    config: Any, tmp_path: Path
) -> None:
    result = api.train(config, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    done, clock = _counters(run)
    assert (result.outcome, clock["step"], clock["bursts"]) == ("finished", STEPS, 30)
    assert 48 <= clock["agent_steps"] < 52  # collection is over, the clock goes on to `steps`
    begun = read_json(run.checkpoint_path(run.ticks()[-1]) / "schedule.json")["begun"]
    ratio = (60 - begun["dynamics"]) // 2  # until the phase's end, though the run goes on
    assert done == {**UPDATES, "dynamics": UPDATES["dynamics"] + ratio}
    state = load_file(run.checkpoint_path(run.ticks()[-1]) / OPTIMIZERS)
    of_the_model = UPDATES["encoder"] + UPDATES["dynamics"] + ratio
    assert state["model/steps"] == state["model/total"] == of_the_model  # schedules end with it
    assert state["policy/steps"] == state["policy/total"] == UPDATES["policy"]
    assert torch.equal(
        api.load_agent(run.path, run.ticks()[-1], trust=("walk_env",)).policy.bias.detach(),
        state["weights/policy.bias"] * 0.5,
    )
    *rows, last = [row for row in run.metrics() if "updates" in row]
    assert last["final"] is True and last["tick"] == STEPS + clock["bursts"]
    assert last["updates"] == sum(done.values())
    assert [row["tick"] for row in rows] == sorted({row["tick"] for row in rows})
    in_bursts = [a["step"] == b["step"] for a, b in itertools.pairwise(rows)]
    assert sum(in_bursts) >= 5  # rows of metrics are written inside bursts
    assert all(row["time/left"] >= 0 for row in rows)
    evaluated = [row["tick"] for row in run.metrics() if "eval/return" in row]
    assert evaluated[0] == 0 and len(evaluated) == 4  # two scheduled ones, and the last


def test_a_run_stopped_in_each_of_its_bursts_ends_as_the_unbroken_one(
    config: Any, tmp_path: Path, assert_same_run: Any
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    api.train(config, whole)

    ThreePhases.began = []
    for phase in UPDATES:

        def stop(updated: str, n: int, wanted: str = phase) -> None:
            if (updated, n) == (wanted, 2):
                signal.raise_signal(signal.SIGINT)

        with hearing(stop):
            ended = (
                api.train(config, parts)
                if phase == "encoder"
                else api.resume(parts, trust=("walk_env",))
            )
        assert ended.outcome == "interrupted"
        done, clock = _counters(Run.open(parts))
        assert done[phase] == PIECE  # in the middle of its burst, and saved there
        assert ended.step == clock["step"] < STEPS
    assert api.resume(parts, trust=("walk_env",)).outcome == "finished"
    assert ThreePhases.began == list(UPDATES)  # once each, never on resume
    assert_same_run(whole, parts, Run.open(whole).ticks()[-1])


def test_a_run_killed_in_each_of_its_bursts_ends_as_the_unbroken_one(
    config: Any, tmp_path: Path, assert_same_run: Any
) -> None:
    whole = tmp_path / "whole"

    def kill(phase: str, n: int) -> None:
        """What a kill -9 in the second piece of a burst would leave: the files as they are."""
        if n == PIECE + 2:
            shutil.copytree(whole, tmp_path / f"killed-{phase}")

    with hearing(kill):
        api.train(config, whole)
    for phase in UPDATES:
        killed = tmp_path / f"killed-{phase}"
        assert _counters(Run.open(killed))[0][phase] == PIECE
        assert api.resume(killed, trust=("walk_env",)).outcome == "finished"
        assert_same_run(whole, killed, Run.open(whole).ticks()[-1])


def test_phases_that_do_nothing_are_named(
    tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny("gym/walk_env:Walk", {"train.steps": 10, "train.eval_every": 0})
    with caplog.at_level(logging.WARNING):
        api.train(config, tmp_path / "run")
    assert "Phase 'all' begins at step 16, but the run ends at train.steps=10" in caplog.text
    assert "This run will do no updates at all" in caplog.text
