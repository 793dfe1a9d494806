"""What two runs left behind, compared bit for bit; only timings may differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from worldflux.atomic import read_json
from worldflux.runs import Run


def untimed(run: Run) -> list[dict[str, Any]]:
    """The metrics without timings and without evaluations that only an end calls for."""
    rows = [row for row in run.metrics() if not row.get("final")]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def assert_same_run(one: Path, other: Path, step: int) -> None:
    """Weights, optimisers, replay, generators, counters, running episodes and metrics agree."""
    first, second = Run.open(one), Run.open(other)
    left, right = (run.checkpoint_path(step) for run in (first, second))
    names = sorted(file.relative_to(left).as_posix() for file in left.rglob("*.safetensors"))
    assert len(names) >= 4, names  # weights, optimisers, loop, replay
    assert names == sorted(file.relative_to(right).as_posix() for file in right.rglob("*.safetensors"))
    for name in names:
        _assert_same_tensors(left / name, right / name)
    states = [read_json(folder / "state.json") for folder in (left, right)]
    for state in states:
        assert state["progress"].pop("seconds") > 0
    assert states[0] == states[1]
    replays = [read_json(folder / "replay" / "replay.json") for folder in (left, right)]
    assert replays[0] == replays[1]
    assert untimed(first) == untimed(second)


def _assert_same_tensors(left: Path, right: Path) -> None:
    one, other = load_file(left), load_file(right)
    assert one.keys() == other.keys()
    for key, tensor in one.items():
        assert torch.equal(tensor, other[key]), (left.name, key)
