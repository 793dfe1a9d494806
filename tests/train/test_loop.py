"""The loop: exact ratio, no dependence on timing, divergence, and what it refuses."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from worldflux.errors import CapabilityError, ConfigError, DivergenceError, StorageError
from worldflux.plugins import plugins
from worldflux.runs import Run
from worldflux.training import Phase, TrainingPlan
from worldflux_train import api
from worldflux_train.assembly import choose_device
from worldflux_train.clock import Clock
from worldflux_train.meters import Meters, refuse_non_finite_weights
from worldflux_train.pace import Pace
from worldflux_train.trainer import Trainer


def test_train_ratio_is_exact(tiny: Any, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    trainer = Trainer(tiny(overrides={"train.envs": 3}), run)
    owed: list[tuple[int, int]] = []
    trainer._between = lambda before: owed.append((before, trainer.schedule.updates))  # type: ignore[method-assign]
    trainer.train()
    begun = trainer.schedule.begun["all"]
    assert begun >= 16  # where its phase starts
    assert len(owed) > 5
    for step, updates in owed:  # a round does what was due at its beginning
        assert updates == max(0, step - begun) // 4


def test_the_updates_due_for_the_last_round_are_done(tiny: Any, tmp_path: Path) -> None:
    trainer = Trainer(tiny(overrides={"train.eval_every": 0}), Run.create(tmp_path / "run"))
    trainer.train()
    assert trainer.schedule.due(trainer.clock.step) == []
    assert trainer.schedule.updates == (trainer.clock.step - trainer.schedule.begun["all"]) // 4


def test_evaluating_changes_nothing_else(tiny: Any, tmp_path: Path, untimed: Any) -> None:
    """It plays with newer weights than the coming round does, which gets its own back."""
    rows = []
    for every in (0, 7):
        folder = tmp_path / str(every)
        api.train(tiny("gym/walk_env:Walk", {"train.eval_every": every, "train.steps": 60}), folder)
        rows.append([row for row in untimed(Run.open(folder)) if "eval/return" not in row])
    assert rows[0] == rows[1]


def test_time_left_counts_bursts_and_evaluations_and_is_never_negative() -> None:
    pace, clock = Pace(eval_every=50), Clock(step=100, seconds=10.0)
    pace.mark(Clock(step=50, seconds=4.0), updates=0)
    pace.evaluated(1.0)  # does not slow the rate down: 50 steps in 5 s
    row = pace.row(clock, updates=20, last_tick=180, before=99)
    assert row["time/steps_per_second"] == pytest.approx(10)
    assert row["time/updates_per_second"] == pytest.approx(4)
    assert row["time/left"] == pytest.approx(8 + 3)  # evaluations at ticks 100, 150 and the last
    assert pace.row(clock, 20, last_tick=90, before=100)["time/left"] == 1  # the last evaluation
    pace.mark(clock, 20)
    clock.bursts, clock.seconds = 40, 12.0  # the clock stands still, the run goes on
    row = pace.row(clock, 60, last_tick=160, before=140)
    assert row["time/steps_per_second"] == 0
    assert row["time/left"] == pytest.approx(1 + 2)


def test_nothing_depends_on_how_fast_the_environment_is(
    tiny: Any, tmp_path: Path, untimed: Any
) -> None:
    rows = []
    for name in ("Walk", "Sleepy", "Sleepy"):
        folder = tmp_path / f"{name}{len(rows)}"
        api.train(tiny(f"gym/walk_env:{name}", {"train.steps": 90}), folder)
        rows.append(untimed(Run.open(folder)))
    assert rows[0] == rows[1] == rows[2]


def test_metrics_and_events_of_a_run(tiny: Any, tmp_path: Path) -> None:
    events: list[str] = []

    class Listener:
        """Hears every run event."""

    listener = Listener()
    for event in ("run_start", "after_update", "after_episode", "checkpoint", "run_end"):
        setattr(Listener, f"worldflux_{event}", _hears(event, events))
    plugins().hooks.register(listener)
    try:
        done = api.train(tiny(overrides={"env.action_repeat": 2}), tmp_path / "run")
    finally:
        plugins().hooks.unregister(listener)
    rows = Run.open(tmp_path / "run").metrics()
    logged = [row for row in rows if "updates" in row]
    assert all(row["frames"] == 2 * row["step"] for row in logged)
    assert any("train/loss/reward" in row for row in logged)
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert next(row["step"] for row in rows if "eval/return" in row) == 0
    assert (events[0], events[-1]) == ("run_start", "run_end")
    assert events.count("after_update") >= logged[-1]["updates"]
    assert events.count("after_episode") == sum("episode/return" in row for row in rows)
    assert events.count("checkpoint") >= len(Run.open(tmp_path / "run").ticks())
    assert f"finished at step {done.step}" in (tmp_path / "run" / "run.log").read_text()


def _hears(event: str, events: list[str]) -> Any:
    import pluggy

    from worldflux.hookspecs import PROJECT

    mark = pluggy.HookimplMarker(PROJECT)
    return staticmethod(mark(lambda run: events.append(event), specname=f"worldflux_{event}"))


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(
    tiny: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    api.train(tiny(overrides={"train.steps": 50}), folder)
    config = Run.open(folder).config_path
    config.write_text(config.read_text().replace("lr: 0.003", "lr: 1.0e+30"))
    before = Run.open(folder).ticks()
    with pytest.raises(DivergenceError, match=r"Training diverged: loss/\w+ is (nan|inf)"):
        api.resume(folder, steps=400, changed=True)
    run = Run.open(folder)
    assert run.ticks() == before
    weights = load_file(run.checkpoint_path(before[-1]) / "agent" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert "DivergenceError" in run.log_path.read_text()


def test_meters_name_what_is_not_finite() -> None:
    meters = Meters()
    assert meters.read() == {}
    meters.add({"loss": torch.tensor(1.0), "loss/value": torch.tensor(2.0), "entropy": 0.5})
    meters.add(
        {"loss": torch.tensor(3.0), "loss/value": torch.tensor(2.0), "entropy": float("nan")}
    )
    assert meters.read()["loss"] == 2.0  # entropy is no loss: it may be anything
    meters.add({"loss": torch.tensor(float("nan")), "loss/value": torch.tensor(float("inf"))})
    with pytest.raises(DivergenceError, match="diverged: loss/value is inf. Lower the learning"):
        meters.read()
    meters.clear()
    meters.add({"loss": torch.tensor(float("nan"))})
    with pytest.raises(DivergenceError, match="diverged: loss is nan"):
        meters.read()


def test_weights_that_are_not_finite_are_not_saved() -> None:
    module = torch.nn.Linear(2, 2)
    refuse_non_finite_weights(module)
    with torch.no_grad():
        module.bias[0] = float("nan")
    with pytest.raises(DivergenceError, match=r"diverged: bias \(1 of 2 weights\) is not finite"):
        refuse_non_finite_weights(module)


def test_what_a_run_refuses(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"replay_capacity=10 holds 5 steps of each of 2 env"):
        api.train(tiny(overrides={"train.replay_capacity": 10, "train.envs": 2}), tmp_path / "a")
    assert not (tmp_path / "a").exists()  # a second try may use the folder
    with pytest.raises(ConfigError, match="train.device='gpu' is no torch device"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="train.device='cuda', but torch finds no CUDA"):
            choose_device("cuda")
    assert choose_device("auto").type in ("cpu", "cuda")


def test_a_learner_that_does_not_act_is_refused(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Any
) -> None:
    from worldflux.core.agent import Learner
    from worldflux.testing import dummies

    class Watcher(Learner):
        """Learns and does not act."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.world_model = dummies.TinyModel(*args)

        def training_plan(self) -> Any:
            return TrainingPlan([Phase("all", batch=4, length=8, updates_per_step=0.25)])

        def update(self, *args: Any, **options: Any) -> Any:
            return None

    monkeypatch.setattr(dummies, "TinyAgent", Watcher)
    with pytest.raises(CapabilityError, match="tiny is a Watcher, which does not act"):
        api.train(tiny(), tmp_path / "run")


def test_a_large_replay_is_announced(
    tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(overrides={"train.steps": 1, "train.replay_bytes": 50_000, "train.eval_every": 0})
    with caplog.at_level(logging.INFO):
        Trainer(config, Run.create(tmp_path / "run"))
    assert "replay: " in caplog.text
    assert "at most 0.0 MB" in caplog.text or "0.1 MB" in caplog.text


def test_unreadable_tensors_name_their_file(tmp_path: Path) -> None:
    from worldflux_train.parts import read_tensors

    with pytest.raises(StorageError, match=r"none\.safetensors cannot be read"):
        read_tensors(tmp_path / "none.safetensors")


def test_the_package_offers_its_functions_without_importing_torch(site: Any) -> None:
    import worldflux_train

    assert worldflux_train.train is api.train
    assert all(callable(getattr(worldflux_train, name)) for name in worldflux_train.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'. It offers: compare"):
        _ = worldflux_train.trian
    code = "import sys, worldflux_train.plugin; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], env=site.environment, check=False)
    assert done.returncode == 0


@pytest.mark.skipif(not find_spec("ale_py"), reason="the extra atari is not installed")
def test_frames_count_the_environments_own_repeat(tiny: Any, tmp_path: Path) -> None:
    """A frame is one of the game's, as papers count them: four for each of Atari's steps."""
    api.train(tiny("atari/Pong", {"env.size": 16, "train.steps": 40}), tmp_path / "run")
    logged = [row for row in Run.open(tmp_path / "run").metrics() if "frames" in row]
    assert logged and all(row["frames"] == 4 * row["step"] for row in logged)


@pytest.mark.parametrize(("plans", "asked", "first"), [(True, None, False), (True, True, True)])
def test_agents_that_plan_are_not_evaluated_first_unless_asked(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plans: bool, asked: Any, first: bool
) -> None:
    from worldflux.testing.dummies import TinyAgent

    monkeypatch.setattr(TinyAgent, "plans", plans)
    wanted = {"train.steps": 10, "train.eval_every": 0, "train.eval_first": asked}
    api.train(tiny(overrides=wanted), tmp_path / "run")
    rows = [row["step"] for row in Run.open(tmp_path / "run").metrics() if "eval/return" in row]
    assert (0 in rows) == first
