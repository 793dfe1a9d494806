"""What the commands say before anything is trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from worldflux.cli.app import build_app
from worldflux.errors import WorldFluxError
from worldflux_train.comparison.compare import compare
from worldflux_train.config import TrainConfig

pytestmark = pytest.mark.usefixtures("site")
CARTPOLE = "gym/CartPole-v1"


def _says(*arguments: object) -> str:
    result = CliRunner().invoke(build_app(), [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_help_config_explains_all_rooms() -> None:
    text = _says("train", "dreamerv3:size1m", "--env", CARTPOLE, "--help-config")
    assert "model.bins = 255   [integer >= 3]" in text
    assert "agent.lr = 4e-05   [number >= 0]\n    Learning rate (`opt.lr`)." in text
    assert "\nslots.dynamics_model = worldflux_dreamer.dreamerv3.rssm:RSSM\n    deter (" in text
    for name in TrainConfig.model_fields:
        assert f"\ntrain.{name} = " in text
    assert "\nenv.max_episode_steps\n    truncate episodes after" in text
    assert "\nenv.workers\n" in text
    text = _says("train", "--help-config")
    assert "train.steps = 10000" in text and "worldflux train ID --help-config" in text
    assert "\nmodel.width = 8 " in _says("train", "tiny", "--help-config")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "dreamerv3:size1", "--env", CARTPOLE], "has no preset 'size1'. Did you mean"),
        (["compare", "dreamerv3", "tdmpc", "--env", CARTPOLE, "--steps", "9", "--out", "x"],
         "No model family 'tdmpc'. Did you mean 'tdmpc2'?"),
    ],
)  # fmt: skip
def test_ids_are_checked_before_torch_is_imported(arguments: list[str], said: str) -> None:
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from worldflux.cli import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_what_does_not_fit_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(WorldFluxError, match=r"tdmpc2:1m cannot learn in gym/CartPole-v1: .*"):
        compare(["tiny", "tdmpc2:1m"], CARTPOLE, steps=20, seeds=1, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_are_never_markup(tmp_path: Path) -> None:
    out = tmp_path / "a[/x]b[bold]"
    quick = ["--set", "train.eval_episodes=1", "--set", "replay_capacity=100", "--steps", "9"]
    said: Any = _says("train", "tiny", "--env", CARTPOLE, *quick, "--out", out)
    assert f"tiny on gym/CartPole-v1, run folder {out}" in said
    assert f"Report: {out}" in said


def test_completion_lists_every_name_before_it_was_used():
    code = "import worldflux_train as m; assert set(m.__all__) <= set(dir(m)), dir(m)"
    subprocess.run([sys.executable, "-c", code], check=True)
