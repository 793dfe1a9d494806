"""Suites: the environments that a comparison is made on, and what their returns are measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from worldflux.config import Config
from worldflux.errors import ConfigError, did_you_mean
from worldflux.ids import EnvId
from worldflux.trust import Trust
from worldflux.yaml_text import read_yaml
from worldflux_train.nested import merge, nest
from worldflux_train.statistics import atari_100k, atari_game
from worldflux_train.trust import require_trust

Source = str | Path | Mapping[str, Any]


class Task(Config):
    """What a suite's file says about one environment."""

    low: float | None = None
    """Return that counts as 0, such as that of random play."""
    high: float | None = None
    """Return that counts as 1, such as a human's."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Configuration keys for the runs on this task alone."""


class Suite(Config):
    """A suite's file."""

    tasks: dict[str, Task | None]
    """By the id of the environment."""
    steps: PositiveInt | None = None
    """Agent steps of every run, unless others are asked for."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Configuration keys for the runs on every task."""
    description: str = ""
    """What it is, in a line."""


@dataclass(frozen=True)
class Place:
    """One environment of a comparison. Returns from `low` to `high` are scores from 0 to 1."""

    env: str
    low: float | None = None
    high: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def shipped() -> dict[str, Path]:
    """The suites that come with this package, by name."""
    folder = Path(__file__).parents[1] / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_suite(source: Source) -> Suite:
    """A suite by name, from a YAML file, or as a mapping of the same keys."""
    if isinstance(source, Mapping):
        found, where = Suite(**source), "the suite"
    else:
        found, where = Suite(**read_yaml(_file(source))), str(source)
    if not found.tasks:
        raise ConfigError(f"{where} has no tasks. Write them as: tasks: {{gym/CartPole-v1: {{}}}}")
    return found


def places(
    envs: str | Sequence[str] = (), suite: Source | None = None, trust: Trust = ()
) -> list[Place]:
    """The environments of a comparison: those named, or those of a suite; each once.

    `trust` holds the modules that the suite's file may name.
    """
    named = [envs] if isinstance(envs, str) else list(envs)
    if (suite is None) == (not named):
        raise ConfigError(
            "A comparison needs environments (--env BACKEND/TASK, as often as there are) or a "
            f"suite (--suite {'|'.join(shipped())}|FILE), one of the two."
        )
    if suite is None:
        twice = sorted({env for env in named if named.count(env) > 1})
        if twice:
            raise ConfigError(f"{', '.join(twice)} is given twice. Give every environment once.")
        return [_place(env, Task(), {}) for env in named]
    read = read_suite(suite)
    found = [_place(env, task or Task(), read.set) for env, task in read.tasks.items()]
    if not isinstance(suite, Mapping):
        for place in found:
            asked = merge(nest(place.settings), {"env": {"id": place.env}})
            require_trust(asked, {}, trust, str(suite))
    return found


def steps_of(steps: int | None, suite: Source | None) -> int:
    """Agent steps of every run: those asked for, else the suite's."""
    own = None if suite is None else read_suite(suite).steps
    if steps is None and own is None:
        raise ConfigError("A comparison needs --steps, the agent steps of every run.")
    return int(steps or own or 0)


def _place(env: str, task: Task, shared: Mapping[str, Any]) -> Place:
    EnvId.parse(env)
    if (task.low is None) != (task.high is None):
        raise ConfigError(f"{env} has only one of low and high: scores need both, or neither.")
    low, high = task.low, task.high
    if low is None:
        low, high = human_reference(env) or (None, None)
    if low is not None and low == high:
        raise ConfigError(f"{env} has low and high of {low}: scores need two different returns.")
    return Place(env, low, high, {**shared, **task.set})


def human_reference(env: str) -> tuple[float, float] | None:
    """The returns of random play and of a human, for the games of Atari 100k."""
    found = EnvId.parse(env)
    game = atari_game(found.task) if found.backend == "atari" else None
    if game is None:
        return None
    return atari_100k()[game]["random"], atari_100k()[game]["human"]


def _file(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    known = shipped()
    if str(source) not in known:
        raise ConfigError(
            f"{source} is neither a file nor a suite.{did_you_mean(str(source), known)} Suites: "
            f"{', '.join(known)}."
        )
    return known[str(source)]
