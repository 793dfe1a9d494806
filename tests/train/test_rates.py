"""`train.schedules`, early ends and milestones: what they do, refuse, and how they resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from worldflux.cli.app import build_app
from worldflux.errors import ConfigError
from worldflux.runs import Run
from worldflux_train import api
from worldflux_train.checkpoint import milestones
from worldflux_train.config import TrainConfig, resolve
from worldflux_train.patience import Patience, Plateau
from worldflux_train.rates import apply_schedules
from worldflux_train.trainer import Trainer

COSINE = {"kind": "cosine", "warmup": 4, "end": 0.1}


def _rates(trainer: Trainer) -> list[float]:
    """The learning rate in force at each update so far."""
    optimizer = trainer.agent.optimizers["adam"]
    return [float(group["lr"]) for group in optimizer.param_groups]


def test_a_schedule_scales_the_familys_rate_over_the_whole_run(tiny: Any, tmp_path: Path) -> None:
    seen: list[float] = []
    config = tiny(overrides={"train.schedules.all.lr": COSINE, "model.lr": 0.01})
    trainer = Trainer(config, Run.create(tmp_path / "run"))
    step = trainer.agent.step

    def watched(name: str, *arguments: Any) -> Any:
        found = step(name, *arguments)
        seen.append(_rates(trainer)[0])
        return found

    trainer.agent.step = watched  # type: ignore[method-assign]
    trainer.train()
    total = trainer.agent.total["adam"]
    assert len(seen) == total == 26
    torch.testing.assert_close(seen[:5], [0.0, 0.0025, 0.005, 0.0075, 0.01])
    assert seen[5:] == sorted(seen[5:], reverse=True) and 0.001 < seen[-1] < 0.0012


def test_a_run_with_schedules_resumes_bit_for_bit(
    tiny: Any, tmp_path: Path, assert_same_run: Any
) -> None:
    plateau = {"kind": "plateau", "patience": 1, "factor": 0.5, "warmup": 3}
    overrides = {"train.schedules": {"adam": {"lr": plateau}}, "train.eval_every": 20}
    config = tiny(overrides=overrides)
    whole = api.train(config, tmp_path / "whole")
    assert whole.outcome == "finished"
    api.train(config.with_steps(60), tmp_path / "parts")
    factors = api._restored(config, Run.open(tmp_path / "parts"))
    assert factors.agent.factors == {"adam.lr": factors.patience.plateaus["adam.lr"].factor}
    factors.close()
    api.resume(tmp_path / "parts", steps=120)
    assert_same_run(tmp_path / "whole", tmp_path / "parts", whole.step)


def test_a_plateau_falls_after_patience_and_not_below_its_least() -> None:
    plateau = Plateau(patience=2, by=0.1, least=0.05)
    assert [plateau.judged(better) for better in (True, False, False, False)] == [
        False, False, True, False,
    ]  # fmt: skip
    assert plateau.factor == 0.1
    plateau.judged(False)
    assert plateau.factor == 0.05 and not any(plateau.judged(False) for _ in range(9))


@pytest.mark.parametrize(
    ("schedules", "text"),
    [
        ({"adm": {"lr": "cosine"}}, r"train.schedules.adm is of no optimizer. Did you mean 'adam'"),
        ({"all": {"weight_decay": "cosine"}}, r"train.schedules.all.weight_decay scales nothing"),
        ({"all": {"lr": "step"}}, r"needs `at`, the moments of its steps"),
        ({"all": {"lr": "cosin"}}, r"schedules.all.lr: .*kind: Input should be 'constant'"),
        ({"all": {"momentum": "cosine"}}, r"Input should be 'lr' or 'weight_decay'"),
    ],
)
def test_what_is_no_schedule(site: Any, schedules: Any, text: str) -> None:
    from worldflux import create_agent

    agent = create_agent("tiny", obs_shape=(3,), action_dim=2, discrete=True)
    with pytest.raises(ConfigError, match=text):
        apply_schedules(agent, TrainConfig(schedules=schedules).schedules)


def test_the_rate_of_one_optimiser_stands_above_that_of_all(site: Any) -> None:
    from worldflux import create_agent

    agent = create_agent("tiny", obs_shape=(3,), action_dim=2, discrete=True)
    both = {"adam": {"lr": "linear"}, "all": {"lr": "cosine"}}
    apply_schedules(agent, TrainConfig(schedules=both).schedules)
    assert agent.schedules["adam.lr"].kind == "linear"


def test_a_run_ends_early_when_nothing_gets_better(tiny: Any, tmp_path: Path) -> None:
    overrides = {"train.steps": 4000, "train.eval_every": 20, "train.stop_patience": 2}
    done = api.train(tiny(overrides=overrides), tmp_path / "run")
    scores = [r["eval/return"] for r in done.run.metrics() if "eval/return" in r]
    assert done.outcome == "finished" and done.step < 4000
    best = max(range(len(scores)), key=lambda i: scores[i])
    assert best == len(scores) - 3, scores  # two were no better than it
    assert done.run.ticks()[-1] == done.step
    rows = len(done.run.metrics())
    again = api.resume(tmp_path / "run")  # it stays ended
    assert (again.outcome, again.step) == ("finished", done.step)
    assert len(done.run.metrics()) <= rows + 1


def test_a_run_ends_at_its_score(tiny: Any, tmp_path: Path) -> None:
    done = api.train(tiny(overrides={"train.stop_score": 5.0}), tmp_path / "run")
    assert done.outcome == "finished" and done.step == 0  # the untrained one reaches that
    assert "has reached train.stop_score=5" in done.run.log_path.read_text()


def test_an_evaluation_without_a_score_decides_nothing(site: Any) -> None:
    from worldflux import create_agent

    agent = create_agent("tiny", obs_shape=(3,), action_dim=2, discrete=True)
    Patience(TrainConfig(), agent).judged(None)
    with pytest.raises(ConfigError, match="go by the score of evaluations, and this run's have"):
        Patience(TrainConfig(stop_patience=2), agent).judged(None)


def test_milestones_are_kept(tiny: Any, tmp_path: Path) -> None:
    assert milestones([5, 12, 15, 22, 40], 10) == {12, 22, 40}
    assert milestones([5, 12], 0) == set()
    overrides = {
        "train.keep_every": 50, "train.keep_last": 1, "train.eval_every": 0,
        "train.checkpoint_every": 30, "train.steps": 170,
    }  # fmt: skip
    done = api.train(tiny(overrides=overrides), tmp_path / "run")
    kept = done.run.ticks()
    assert [tick // 50 for tick in kept] == [1, 2, 3, 3] and kept[-1] >= 170
    assert all(tick % 50 < 4 for tick in kept[:3])


def test_every_row_tells_the_memory(tiny: Any, tmp_path: Path) -> None:
    done = api.train(tiny(overrides={"train.steps": 20}), tmp_path / "run")
    for row in done.run.metrics():
        assert 50 < row["memory/process_mb"] <= row["memory/process_peak_mb"] * 1.01
        assert "memory/gpu_mb" not in row


def test_print_config_resolves_and_prints(site: Any, tmp_path: Path) -> None:
    words = ["train", "tiny:wide", "--env", "gym/CartPole-v1", "--set", "model.lr=0.5"]
    words += ["--set", "train.schedules.all.lr=cosine", "--print-config"]
    said = CliRunner().invoke(build_app(), words, catch_exceptions=False)
    assert said.exit_code == 0
    (tmp_path / "config.yaml").write_text(said.output)
    config = resolve(config=tmp_path / "config.yaml")
    assert (
        config.family.to_dict()["lr"] == 0.5
        and config.train.schedules["all"]["lr"].kind == "cosine"
    )
    assert config.to_yaml() == said.output
    with pytest.raises(ConfigError, match="--print-config is of a new run: this one's is run/con"):
        CliRunner().invoke(
            build_app(), ["train", "--resume", "run", "--print-config"], catch_exceptions=False
        )
