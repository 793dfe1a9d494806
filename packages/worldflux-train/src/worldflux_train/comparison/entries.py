"""What a comparison trains: one configuration per model, environment and seed, on equal budgets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigError, UnknownIdError, did_you_mean
from worldflux.trust import Trust
from worldflux_train.comparison.suites import Place, places
from worldflux_train.config import RunConfig, resolve

EVALUATIONS = 10
BUDGET = ("steps", "envs", "eval_every", "eval_episodes", "threads")
DATA = ("path", "validation")
FIXED = {
    "id": "models", "env.id": "envs", "train.steps": "steps", "train.seed": "seeds",
}  # fmt: skip
Source = str | Path | Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One run of a comparison."""

    label: str
    seed: int
    config: RunConfig
    place: Place
    alone: bool = True
    """Whether the comparison has this environment only."""

    @property
    def folder(self) -> str:
        """Where the run lies within the comparison's folder."""
        where = "" if self.alone else f"{_slug(self.place.env)}/"
        return f"{_slug(self.label)}/{where}seed-{self.seed}"

    @property
    def name(self) -> str:
        """The run, for people."""
        where = "" if self.alone else f" on {self.place.env}"
        return f"{self.label}{where}, seed {self.seed}"


def plan(
    models: Sequence[str],
    envs: str | Sequence[str] | Sequence[Place],
    *,
    seeds: Sequence[int],
    steps: int,
    configs: Mapping[str, Source] | None = None,
    overrides: Mapping[str, Any] | None = None,
    trust: Trust = (),
    budgets: bool = True,
) -> list[Entry]:
    """Every run, one seed after another so that an unfinished comparison is a fair one.

    A model is `[NAME=]ID[:PRESET]`; NAME (by default the id) stands in `configs` and before the
    slash of an override that is for one model only. `envs` are ids or what `places` gives. `trust`
    holds the modules that the files of `configs` may name. Without `budgets` they are not compared,
    and torch is not imported.
    """
    ids, where = _labelled(models), _places(envs)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"A comparison needs at least one seed, each once; got {list(seeds)}.")
    for label in configs or {}:
        _check_label(label, ids)
    shared, own = _split(overrides or {}, ids)
    shared = {"train.eval_every": max(1, steps // EVALUATIONS), **shared}
    entries = []
    for seed, place, (label, model) in product(seeds, where, ids.items()):
        config = resolve(
            model, place.env, config=(configs or {}).get(label), steps=steps, trust=trust,
            overrides={**place.settings, **shared, **own[label], "train.seed": seed},
        )  # fmt: skip
        entries.append(Entry(label, seed, config, place, len(where) == 1))
    for entry in entries:
        _refuse_early_ends(entry)
    if budgets:
        _require_equal_budgets(entries)
    return entries


def _places(envs: str | Sequence[str] | Sequence[Place]) -> list[Place]:
    ids = [envs] if isinstance(envs, str) else [env for env in envs if isinstance(env, str)]
    found = [env for env in envs if isinstance(env, Place)] or places(ids)
    slugs: dict[str, str] = {}
    for place in found:
        other = slugs.setdefault(_slug(place.env), place.env)
        if other != place.env:
            raise ConfigError(
                f"{other} and {place.env} would lie in one folder ({_slug(place.env)}). Compare "
                "them apart."
            )
        for key in place.settings:
            _refuse_fixed(key, f"{key} of {place.env}")
    return found


def _labelled(models: Sequence[str]) -> dict[str, str]:
    """Model id by label."""
    ids: dict[str, str] = {}
    slugs: dict[str, str] = {}
    for text in models:
        name, _, model = text.rpartition("=")
        label = name or model
        if not model or _slug(label) in slugs:
            raise ConfigError(
                f"Every model of a comparison needs a name of its own, got {list(models)}. Give "
                f"one with NAME=ID, such as other={model or 'dreamerv3:size1m'}."
            )
        slugs[_slug(label)] = label
        ids[label] = model
    if not ids:
        raise ConfigError("A comparison needs at least one model, such as dreamerv3:size1m.")
    return ids


def _split(
    overrides: Mapping[str, Any], labels: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What is for all, and what is for one model alone."""
    shared: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {label: {} for label in labels}
    for text, value in overrides.items():
        label, slash, key = text.rpartition("/")
        _refuse_fixed(key, text)
        if slash:
            _check_label(label, labels)
            own[label][key] = value
        else:
            shared[key] = value
    return shared, own


def _refuse_early_ends(entry: Entry) -> None:
    for key in ("stop_patience", "stop_score"):
        if getattr(entry.config.train, key) is not None:
            raise ConfigError(
                f"A comparison gives every model the same budget, but train.{key} may end the runs "
                f"of {entry.label!r} early. Leave it out."
            )


def _refuse_fixed(key: str, text: str) -> None:
    if key in FIXED:
        raise ConfigError(
            f"A comparison sets {key} itself: use its {FIXED[key]!r} instead of {text}."
        )


def _check_label(label: str, labels: Mapping[str, str]) -> None:
    if label not in labels:
        raise UnknownIdError(
            f"The comparison has no model {label!r}.{did_you_mean(label, labels)} It has: "
            f"{', '.join(labels)}."
        )


def _require_equal_budgets(entries: Sequence[Entry]) -> None:
    firsts: dict[str, Entry] = {}  # options may differ from one environment to the next
    for other in entries:
        first = firsts.setdefault(other.place.env, other)
        for key, mine, theirs in _budgets(first.config, other.config):
            if mine != theirs:
                raise ConfigError(
                    f"A comparison gives every model the same budget, but {key} is {mine!r} for "
                    f"{first.label!r} and {theirs!r} for {other.label!r}. Set it for all: "
                    f"--set {key}=..."
                )


def _budgets(one: RunConfig, other: RunConfig) -> list[tuple[str, Any, Any]]:
    """What has to be equal: its key, and the value of each."""
    from worldflux_train.assembly import choose_device

    options = {**one.env_options, **other.env_options}
    devices = (str(choose_device(of.train.device)) for of in (one, other))
    return [
        *((f"env.{key}", one.env_options.get(key), other.env_options.get(key)) for key in options),
        *((f"data.{key}", getattr(one.data, key), getattr(other.data, key)) for key in DATA),
        *((f"train.{key}", getattr(one.train, key), getattr(other.train, key)) for key in BUDGET),
        ("train.device", next(devices), next(devices)),
    ]


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-.")
