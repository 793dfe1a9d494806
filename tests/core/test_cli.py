"""The `worldflux` command's own subcommands."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest
from typer.testing import CliRunner

from worldflux import create_world_model
from worldflux.cli.app import build_app
from worldflux.cli.doctor import optional_dependencies
from worldflux.slot_help import slots_in, slots_of


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(build_app(), list(arguments))


def test_models_lists_every_family_with_its_distribution() -> None:
    result = invoke("models")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["MODEL", "DISTRIBUTION", "VERSION", "PRESETS", "DESCRIPTION"]
    [ring] = [row for row in rows if row[0] == "ring"]
    about = ["a", "point", "on", "a", "ring", "that", "actions", "turn"]
    assert ring == ["ring", "worldflux-ring", version("worldflux-ring"), "small", "large", *about]


def test_models_describes_one_family() -> None:
    text = invoke("models", "RING").stdout
    assert "about    a point on a ring that actions turn" in text
    assert "presets  small (default), large" in text
    assert "can      obs_decode, planning, reward_pred, stateless" in text
    assert "agent    yes" in text


def test_models_says_what_goes_into_each_slot_and_what_comes_out() -> None:
    text = invoke("models", "ring").stdout
    ours = "slots.observation_encoder = worldflux_ring.world_model:Encoder"
    assert f"\n{ours}\n    image (3, 64, 64) -> point (2,)\n" in text
    assert "\n    point (2,), action (6,) -> point (2,)\n" in text
    assert "\n    point (2,) -> image (3, 64, 64), reward ()\n" in text
    assert "actions (H, B, ...) or a policy -> Trajectory of H steps" in text
    recurrent = [str(slot) for slot in slots_of("dreamerv3:size1m")]
    assert "action (6,), embed (256,) -> deter (512,)" in recurrent[2]
    discrete = create_world_model("ring", obs_shape=(5,), action_dim=3, discrete=True)
    assert "action of 3 choices -> action (3,)" in str(list(slots_in(discrete))[1])


def test_models_explains_every_key_of_a_preset() -> None:
    text = invoke("models", "ring:large").stdout
    assert "model.units = 256   [integer > 0]\n    Width of the hidden layers." in text
    assert "agent.lr = 0.0003   [number > 0]\n    Adam's learning rate." in text
    assert "agent.planner.select = mean   [mean or best]" in text
    [size] = [line for line in text.splitlines() if line.startswith("size ")]
    model = create_world_model("ring:large")
    assert f" {sum(p.numel() for p in model.parameters()):,} parameters" in size


def test_without_arguments_it_helps() -> None:
    result = invoke()
    assert result.exit_code == 0
    assert result.stdout == invoke("--help").stdout
    assert "new-plugin" in result.stdout


def test_envs_shows_the_spaces_of_a_task() -> None:
    lines = invoke("envs", "gym/CartPole-v1").stdout.splitlines()
    assert lines[0].split() == ["WHAT", "KEY", "SPACE"]
    assert lines[1].split()[:2] == ["observation", "state"]
    assert lines[2].split() == ["action", "-", "Discrete(2)"]


def test_envs_lists_backends_and_describes_one() -> None:
    assert any(line.startswith("gym ") for line in invoke("envs").stdout.splitlines())
    text = invoke("envs", "gym").stdout
    assert "needs    gymnasium" in text and "gym/CartPole-v1" in text.splitlines()


def test_plugins_shows_what_loads() -> None:
    lines = invoke("plugins").stdout.splitlines()
    [ring] = [line.split() for line in lines if line.startswith("ring ")]
    assert ring == ["ring", "models", "worldflux-ring", "0.1.0", "worldflux_ring.plugin", "ok"]


def test_version() -> None:
    assert invoke("--version").stdout == f"worldflux-core {version('worldflux-core')}\n"


def test_doctor_reports_every_section() -> None:
    result = invoke("doctor")
    assert result.exit_code == 0, result.output
    for expected in ("torch ", "cpu ", "worldflux_ring.plugin", "worldflux-core[hub]", "MUJOCO_GL"):
        assert expected in result.stdout
    rows = [line for line in result.stdout.splitlines() if line.strip()]
    assert len(set(rows)) == len(rows), "it repeats itself"
    assert rows[-1] == "Nothing is broken: worldflux train can be used."


def test_doctor_finds_the_extras_in_the_metadata() -> None:
    found = {(extra, package) for extra, package, _ in optional_dependencies()}
    assert ("worldflux-core[hub]", "huggingface-hub") in found
    assert not any(package == "torch" for _, package in found), "torch is no optional dependency"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "rng"], "Error: No model family 'rng'. Did you mean 'ring'? Installed:"),
        (["models", "ring:lrge"], "Error: 'ring' has no preset 'lrge'. Did you mean 'large'?"),
        (["envs", "gmy"], "Error: No environment backend 'gmy'. Did you mean 'gym'?"),
        (["new-plugin", "9ring"], "Error: '9ring' is no name for a model family: use letters"),
    ],
)
def test_errors_are_one_message_and_exit_code_2(arguments: list[str], message: str) -> None:
    code = "from worldflux.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr


def test_the_package_runs_as_the_command():
    command = [sys.executable, "-m", "worldflux"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "worldflux" in found.stdout and "models" in found.stdout
