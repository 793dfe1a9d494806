"""Scores of what is already trained: `score_runs(["runs/a", "runs/b"], seeds=5)`, one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from worldflux.core.agent import Agent
from worldflux.errors import CapabilityError
from worldflux.runs import Run
from worldflux.spaces import action_specs, observation_specs
from worldflux.trust import Trust
from worldflux_train import api
from worldflux_train.assembly import choose_device, make_evaluation_envs
from worldflux_train.comparison.results import interval
from worldflux_train.comparison.suites import Place, places
from worldflux_train.comparison.suites import Source as SuiteSource
from worldflux_train.config import RunConfig, resolve
from worldflux_train.evaluation import Evaluation, evaluate
from worldflux_train.interrupt import Interrupt
from worldflux_train.score_tables import STATISTICS, Line
from worldflux_train.seeding import derived
from worldflux_train.statistics import Scores

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Played:
    """One agent in one environment: an evaluation for each seed."""

    run: str
    model: str
    step: int
    place: Place
    evaluations: list[Evaluation]

    @property
    def returns(self) -> Scores:
        """What an interval resamples: the mean of each seed, or of a single one the episodes."""
        if len(self.evaluations) == 1:
            return np.array(self.evaluations[0].returns)
        return np.array([found.mean for found in self.evaluations])


def score_runs(
    runs: Sequence[str | Path],
    envs: str | Sequence[str] = (),
    *,
    suite: SuiteSource | None = None,
    seeds: int | Sequence[int] = 5,
    episodes: int | None = None,
    steps: Sequence[int] | Literal["every"] | None = None,
    device: str | None = None,
    trust: Trust = (),
    changed: bool = False,
    tell: Tell = lambda played, of: None,
) -> list[Line]:
    """A line for each run, checkpoint and environment; nothing is trained.

    Each is evaluated once for every seed, on `episodes` episodes (None: `train.eval_episodes`); all
    agents start in the same ones. Environments are each run's own, `envs`, or those of a `suite`.
    Checkpoints are the best one, those of `steps`, or "every" one that is kept. Runs of one model
    are also summed up together, environments too where their returns are normalised.
    `device`, `trust` and `changed` as for `load_agent`.
    """
    numbers = list(range(1, seeds + 1) if isinstance(seeds, int) else seeds)
    where = places(envs, suite, trust) if envs or suite is not None else None
    wanted = [(Path(run), step) for run in runs for step in _steps(Run.open(run), steps)]
    played: list[Played] = []
    with Interrupt() as interrupt:
        for path, step in wanted:
            config, agent = api.load_run(path, step, device=device, trust=trust, changed=changed)
            for place in where or [places(config.env_id)[0]]:
                judged = _elsewhere(config, place) if where else config
                found = [
                    _evaluated(judged, agent, episodes, seed, tell, lambda: interrupt.requested)
                    for seed in numbers
                ]
                at = int(api.checkpoint_of(Run.open(path), step).name)
                played.append(Played(str(path), config.id, at, place, found))
    return list(_lines(played))


def _steps(run: Run, steps: Sequence[int] | Literal["every"] | None) -> list[int | None]:
    if steps == "every":
        return [*sorted(int(folder.name) for folder in run.intact_checkpoints())]
    return [None] if steps is None else [*steps]


def _elsewhere(config: RunConfig, place: Place) -> RunConfig:
    """The run's configuration with another environment, and a suite's options of it."""
    options = {key: value for key, value in place.settings.items() if key.startswith("env.")}
    return replace(
        resolve(env_id=place.env, config=config.to_dict(), overrides=options, trust=config.trust),
        family=config.family,
    )


def _evaluated(
    config: RunConfig,
    agent: Agent,
    episodes: int | None,
    seed: int,
    tell: Tell,
    stop: Callable[[], bool],
) -> Evaluation:
    def make(count: int) -> Any:
        envs = make_evaluation_envs(config, count)
        _require_spaces(agent, envs, config.env_id)
        return envs

    found = evaluate(
        agent, make, episodes or config.train.eval_episodes, derived(seed, "evaluation"),
        choose_device(config.train.device), max_steps=config.train.eval_max_steps, stop=stop,
        tell=tell,
    )  # fmt: skip
    if found is None:
        raise KeyboardInterrupt
    return found


def _require_spaces(agent: Agent, envs: Any, env_id: str) -> None:
    """Refuse an environment whose spaces the agent was not made for."""
    obs = observation_specs(envs.single_observation_space)
    pairs = [(f"observation {key!r}", spec, obs.get(key)) for key, spec in agent.obs_spec.items()]
    own = next(iter(agent.action_spec.values()), None)
    action = next(iter(action_specs(envs.single_action_space).values()), None)
    if own is not None:
        pairs.append(("action", own, action))
    for what, wanted, has in pairs:
        if has is None or (has.shape, has.dtype, has.n) != (wanted.shape, wanted.dtype, wanted.n):
            envs.close()
            raise CapabilityError(
                f"The agent's {what} is {wanted.to_json()}, {env_id} has "
                f"{'none' if has is None else has.to_json()}: it cannot be evaluated there."
            )


def _lines(played: Sequence[Played]) -> Iterator[Line]:
    for (run, model, step), own in _grouped(played, lambda of: (of.run, of.model, of.step)).items():
        for each in own:
            yield _line(run, model, step, each.place.env, each.returns, _over(each.evaluations))
        yield from _all_places(run, model, step, own)
    for (model, env), group in _grouped(played, lambda of: (of.model, of.place.env)).items():
        names = {of.run for of in group}
        if len(names) == len(group) > 1:  # one checkpoint of each of several runs
            means = np.array([of.returns.mean() for of in group])
            yield _line(f"all {len(group)} runs", model, None, env, means, f"{len(group)} runs")


def _all_places(run: str, model: str, step: int, played: Sequence[Played]) -> Iterator[Line]:
    """The line over all environments, where their returns are normalised."""
    known = [(of.place.low, of.place.high) for of in played]
    if len(played) < 2 or any(low is None or high is None for low, high in known):
        return
    scores = np.stack(
        [
            (of.returns - float(low or 0)) / (float(high or 0) - float(low or 0))
            for of, (low, high) in zip(played, known, strict=True)
        ],
        1,
    )  # (N, M)
    line = _line(run, model, step, f"all {len(played)}", scores, _over(played[0].evaluations))
    yield replace(line, what="normalised return")


def _grouped(played: Sequence[Played], key: Callable[[Played], Any]) -> dict[Any, list[Played]]:
    found: dict[Any, list[Played]] = {}
    for of in played:
        found.setdefault(key(of), []).append(of)
    return found


def _over(found: Sequence[Evaluation]) -> str:
    episodes = f"{len(found[0].returns)} episodes"
    return episodes if len(found) == 1 else f"{len(found)} seeds of {episodes}"


def _line(run: str, model: str, step: int | None, env: str, samples: Scores, over: str) -> Line:
    statistics = {name: interval(samples, statistic) for name, statistic in STATISTICS.items()}
    return Line(run, model, step, env, samples, "return", over, statistics)
