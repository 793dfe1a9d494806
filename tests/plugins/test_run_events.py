"""Run events reach every listener; one that raises is dropped and does not stop the run."""

from __future__ import annotations

from typing import Any

LISTENER = """
from worldflux.hookspecs import hookimpl
@hookimpl
def worldflux_run_start(run, config):
    print({name!r}, "start", run, config)
@hookimpl
def worldflux_after_update(step):
    {body}
    print({name!r}, "update", step)
@hookimpl
def worldflux_run_end(outcome):
    print({name!r}, "end", outcome)
"""
RUN = """
from worldflux.plugins import fire
fire("worldflux_run_start", run="run", config={})
for step in range(3):
    fire("worldflux_after_update", run="run", step=step, metrics={})
fire("worldflux_after_episode", run="run", episode={})
fire("worldflux_checkpoint", run="run", path="path", step=3)
fire("worldflux_run_end", run="run", outcome="finished")
"""


def listener(site: Any, name: str, body: str = "pass") -> None:
    entry = {"worldflux.plugins": {name: f"{name}_plugin"}}
    code = LISTENER.format(name=name, body=body)
    site.install(f"worldflux-{name}", entry, {f"{name}_plugin.py": code})


def test_every_listener_hears_every_event(site: Any) -> None:
    listener(site, "one")
    listener(site, "two")
    heard = site.python(RUN, WORLDFLUX_PLUGINS="one,two").splitlines()
    assert [line for line in heard if line.startswith("one")] == [
        "one start run {}",
        *[f"one update {step}" for step in range(3)],
        "one end finished",
    ]
    assert len(heard) == 10


def test_a_raising_listener_is_named_and_dropped(site: Any) -> None:
    listener(site, "bad", body="raise ValueError('listener broke')")
    listener(site, "good")
    done = site.run("-c", RUN, WORLDFLUX_PLUGINS="bad,good")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("bad")] == [
        "bad start run {}"
    ]
    assert "good update 2" in done.stdout and "good end finished" in done.stdout
    assert "ValueError: listener broke" in done.stderr
    report = "Plugin worldflux-bad::bad_plugin raised in worldflux_after_update."
    assert done.stderr.count(report) == 1


def test_strict_plugins_let_the_exception_out(site: Any) -> None:
    listener(site, "bad", body="raise ValueError('listener broke')")
    done = site.run("-c", RUN, WORLDFLUX_PLUGINS="bad", WORLDFLUX_STRICT_PLUGINS="1")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("ValueError: listener broke")


def test_a_plugin_that_does_not_load_is_reported_once(site: Any) -> None:
    entry = {"worldflux.plugins": {"bad": "bad_plugin"}}
    site.install("worldflux-bad", entry, {"bad_plugin.py": "raise RuntimeError('at import')"})
    listener(site, "good")
    done = site.run("-c", RUN, WORLDFLUX_PLUGINS="bad,good")
    assert "good end finished" in done.stdout
    assert done.stderr.count("RuntimeError: at import") == 1
