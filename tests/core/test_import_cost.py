"""What the cheap entrances do not import. Times are in benchmarks/bench_import.py."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "pydantic", "gymnasium", "typer", "rich", "pluggy", "safetensors"}
FREE = {
    "import worldflux": HEAVY | {"importlib.metadata", "dataclasses", "typing"},
    "import worldflux; worldflux.list_models(); worldflux.list_envs()": HEAVY - {"pluggy"},
    "import worldflux.errors, worldflux.specs, worldflux.ids": HEAVY,
    "import worldflux.config, worldflux.training": HEAVY - {"pydantic"},
    "import worldflux.planning.config": HEAVY - {"pydantic"},
    "import worldflux; worldflux.create_config('ring:large')": {"torch", "gymnasium"},
    "import worldflux; worldflux.list_env_backends()": {"torch", "gymnasium", "mujoco"},
    "import worldflux; worldflux.list_envs('wf')": {"torch", "gymnasium"},
    "import worldflux_ring.plugin": {"torch"},
}
COMMANDS = [["models"], ["envs"], ["plugins"], ["--help"], ["--version"]]


def imported(code: str) -> set[str]:
    """The modules a fresh interpreter has after `code`."""
    report = "import sys, json; sys.stdout.write('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("code", FREE)
def test_imports_nothing_heavy(code: str) -> None:
    assert not imported(code) & FREE[code]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_that_only_look_import_no_torch(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from worldflux.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert "torch" not in imported(code)


def test_listing_models_imports_only_what_it_shows() -> None:
    code = "import sys; sys.argv[1:] = ['models']\nfrom worldflux.cli import main\n"
    found = imported(f"{code}try:\n    main()\nexcept SystemExit:\n    pass")
    assert not found & {"torch", "numpy", "gymnasium", "yaml", "rich.console", "matplotlib"}
    assert "worldflux_ring.config" in found  # whose presets it lists


def test_what_a_cheap_import_would_hide_is_noticed() -> None:
    """The probe sees torch where it is imported."""
    assert "torch" in imported("import worldflux; worldflux.State")
