"""What the loop tells a listener is what docs/plugins.md says, event by event."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from worldflux import hookspecs
from worldflux.plugins import plugins
from worldflux_train.api import train
from worldflux_train.config import RunConfig

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
ROW = re.compile(r"^\| `(worldflux_\w+)` \| (.+?) \| .+ \|$", re.MULTILINE)
WRITTEN = dict(ROW.findall(PAGE))
LISTENER = """
from worldflux.hookspecs import hookimpl

TOLD = []

@hookimpl
def worldflux_run_start(run, config):
    TOLD.append(("run_start", run, config))

@hookimpl
def worldflux_after_update(run, step, metrics):
    TOLD.append(("after_update", run, step, metrics))

@hookimpl
def worldflux_after_episode(run, episode):
    TOLD.append(("after_episode", run, episode))

@hookimpl
def worldflux_checkpoint(run, path, step):
    TOLD.append(("checkpoint", run, path, step, (path / "manifest.json").is_file()))

@hookimpl
def worldflux_run_end(run, outcome):
    TOLD.append(("run_end", run, outcome))
"""


def test_the_page_names_every_event_and_its_arguments() -> None:
    events = {
        name: list(inspect.signature(function).parameters)
        for name, function in vars(hookspecs).items()
        if name.startswith("worldflux_") and "run" in inspect.signature(function).parameters
    }
    assert len(events) == 5
    assert WRITTEN.keys() == events.keys()
    for name, arguments in events.items():
        assert re.findall(r"(?:^|; )`(\w+)(?:: [^`]+)?`", WRITTEN[name]) == arguments, name


@pytest.fixture
def told(site: Any) -> Iterator[list[Any]]:
    """What a listener in a distribution of its own is told."""
    info = site.folder / "worldflux_ear-1.0.dist-info"
    info.mkdir()
    module = site.folder / "ear_plugin.py"
    module.write_text(LISTENER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: worldflux-ear\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[worldflux.plugins]\near = ear_plugin\n")
    plugins.cache_clear()
    import ear_plugin

    yield ear_plugin.TOLD
    for path in (module, info / "METADATA", info / "entry_points.txt"):
        path.unlink()
    info.rmdir()
    plugins.cache_clear()


def test_the_loop_tells_what_the_page_says(told: list[Any], tiny: Any, tmp_path: Path) -> None:
    run = train(tiny(), tmp_path / "run").run.path
    by_event = {name: [rest for event, *rest in told if event == name] for name, *_ in told}
    assert all(rest[0] == run for rests in by_event.values() for rest in rests)
    [[_, config]] = by_event["run_start"]
    assert isinstance(config, RunConfig)
    for _, step, metrics in by_event["after_update"]:
        assert isinstance(step, int) and isinstance(metrics, Mapping)
        assert all(
            isinstance(v, float) or (torch.is_tensor(v) and not v.ndim) for v in metrics.values()
        )
    keys = {"step", "episode/return", "episode/length", "episode/env"}
    assert by_event["after_episode"] and all(e.keys() >= keys for _, e in by_event["after_episode"])
    assert all(
        isinstance(path, Path) and isinstance(step, int) and complete
        for _, path, step, complete in by_event["checkpoint"]
    )
    assert [outcome for _, outcome in by_event["run_end"]] == ["finished"]
