"""Shell completion, asked as shells ask: by environment variables, and in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from worldflux.cli.app import build_app
from worldflux.cli.completion import joined, main

COMMAND = Path(sys.executable).with_name("worldflux")


def asking(words: list[str]) -> dict[str, str]:
    """What bash asks for the last of the words, which it has split at ":" and "="."""
    told = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    return {**os.environ, **told, "_WORLDFLUX_COMPLETE": "complete_bash"}


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("worldflux rep", ["report"]),
        ("worldflux models rin", ["ring", "ring:small", "ring:large"]),
        ("worldflux train dreamerv3 : size1m --dev", ["--device"]),
        ("worldflux train dreamerv3 : size1", ["size1m", "size12m", "size100m"]),
        ("worldflux train ring --env wf/cat", ["wf/catch"]),
        (
            "worldflux train ring --set train.prec",
            [f"train.precision={x}" for x in ("", "fp32", "bf16")],
        ),
        ("worldflux train ring --set train.precision = b", ["bf16"]),
        ("worldflux train ring : large --set model.un", ["model.units=", "model.units=256"]),
        ("worldflux train --env gym/CartPole-v1 ring --set env.frame", ["env.frame_stack="]),
        (
            "worldflux train --set slots.ob",
            [f"slots.observation_encoder={x}" for x in ("", "module:Class")],
        ),
        ("worldflux train ring --config planet", ["planet-catch"]),
        ("worldflux compare mine = rin", ["ring", "ring:small", "ring:large"]),
        ("worldflux compare ring --set ring/train.see", ["ring/train.seed=", "ring/train.seed=0"]),
        ("worldflux train nonsense --set model.", []),
        ("worldflux models nonsense :", []),
    ],
)  # fmt: skip
def test_bash_is_offered_what_the_library_knows(typed, offered, monkeypatch, capsys):
    for name, value in asking(typed.split(" ")).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        main(lambda: build_app()(prog_name="worldflux"))
    assert not end.value.code and capsys.readouterr().out.splitlines() == offered


def test_zsh_and_fish_are_offered_the_same():
    said = {
        "zsh": {"_TYPER_COMPLETE_ARGS": "worldflux train dreamerv3:size1"},
        "fish": {
            "_TYPER_COMPLETE_ARGS": "worldflux train dreamerv3:size1",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    }
    for shell, asking in said.items():
        environment = {**os.environ, **asking, "_WORLDFLUX_COMPLETE": f"complete_{shell}"}
        done = subprocess.run([COMMAND], env=environment, capture_output=True, text=True)
        assert "size12m" in done.stdout and "size25m" not in done.stdout, done


def test_a_real_bash_completes_with_the_script_that_is_installed():
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    code = (
        'eval "$(_WORLDFLUX_COMPLETE=source_bash worldflux)"\n'
        "COMP_WORDS=(worldflux train dreamerv3 : size2); COMP_CWORD=4\n"
        '_worldflux_completion worldflux; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "--norc", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    assert done.stdout.split() == ["size25m", "size200m"], done


@pytest.mark.parametrize(
    ("words", "number", "whole", "at"),
    [
        (["w", "train", "a", ":", "b"], 4, ["w", "train", "a:b"], 2),
        (["w", "x::y", ":"], 2, ["w", "x::y:"], 1),
        (["w", "--set", "k", "=", "", "--out"], 4, ["w", "--set", "k=", "--out"], 2),
        (["w", "--set", "k", "=", "v", "--out", "o"], 6, ["w", "--set", "k=v", "--out", "o"], 4),
        (["w", "a", ":", "b", "c", ""], 5, ["w", "a:b", "c", ""], 3),
    ],
)
def test_words_are_put_together_as_they_were_typed(words, number, whole, at):
    assert joined(words, number) == (whole, at)


def test_completing_imports_no_torch():
    code = (
        "import sys; from worldflux.cli import main; sys.argv[0] = 'worldflux'\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    words = ["worldflux", "train", "ring:small", "--env", "wf/catch", "--set", "model."]
    done = subprocess.run([sys.executable, "-c", code], env=asking(words), capture_output=True)
    assert done.returncode == 0 and b"model.units=" in done.stdout, done
