"""`worldflux plan` from Python: `plan_run("runs/one", env="wf/two-room", episodes=50)`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worldflux.atomic import write_json
from worldflux.errors import ConfigError, EnvError
from worldflux.factory import get_env_spec, make_env
from worldflux.runs import Run
from worldflux.spaces import action_specs, observation_specs
from worldflux.specs import TensorSpec
from worldflux.trust import Trust
from worldflux_train.api import load_learner
from worldflux_train.config import RunConfig
from worldflux_train.interrupt import Interrupt
from worldflux_train.planning.agents import planning_agent, timed
from worldflux_train.planning.episodes import play
from worldflux_train.planning.picture import planning_frames
from worldflux_train.planning.result import PlanResult
from worldflux_train.video import FPS, write_video

logger = logging.getLogger(__name__)


def plan_run(
    path: str | Path,
    env: str | None = None,
    *,
    episodes: int = 50,
    goal_offset: int | None = None,
    budget: int | None = None,
    step: int | None = None,
    seed: int = 1,
    kind: str = "mp4",
    device: str | None = None,
    trust: Trust = (),
    changed: bool = False,
) -> tuple[PlanResult, Path | None]:
    """Plan in an environment with a run's model; what came of it, and the video, saved in the run.

    `env` is the run's own unless given. With `goal_offset` a goal is where a random walk is that
    many steps after the start, else the environment's own; an episode lasts at most `budget`
    steps. The other arguments are those of `imagine_run`. There is no video where the environment
    draws nothing.
    """
    run = Run.open(path)
    config, learner = load_learner(path, step, device=device, trust=trust, changed=changed)
    make = _maker(config, env, learner.obs_spec)
    goals = _check_spaces(make, learner.obs_spec, learner.action_spec)
    agent = planning_agent(learner, goals)
    clock = timed(agent)
    with Interrupt() as interrupt:
        played = play(
            agent, make, episodes, seed, budget=budget, offset=goal_offset,
            stop=lambda: interrupt.requested,
        )  # fmt: skip
    planner = type(clock.planner).__name__
    found = PlanResult(played, clock.plans, clock.seconds, planner)
    at = _tick(run, step)
    write_json(run.path / f"plan-{at:010d}.json", found.to_json())
    frames = planning_frames(played)
    if frames is None:
        logger.info("the environment draws no pictures: there is no video")
        return found, None
    return found, write_video(run.videos_path / f"plan-{at:010d}.{kind}", frames, FPS)


def _tick(run: Run, step: int | None) -> int:
    """That of the checkpoint that was loaded: `step`, the best one, or the newest."""
    if step is not None:
        return step
    newest = max(int(folder.name) for folder in run.intact_checkpoints())
    best = run.best_tick()
    return newest if best is None else best


def _maker(
    config: RunConfig, env: str | None, obs_spec: Mapping[str, TensorSpec]
) -> Callable[[], Any]:
    """Makes one environment that draws itself, in the form that the run's model sees."""
    own = config.has_env and env in (None, config.env_id)
    if env is None and not own:
        raise ConfigError(
            "This run is on data alone: say where to plan with --env, such as wf/two-room."
        )
    name = config.env_id if own else str(env)
    options = config.env_options if own else _seen(obs_spec)
    options = {**get_env_spec(name).evaluation, **options}

    def make() -> Any:
        try:
            return make_env(name, **{"render_mode": "rgb_array", **options})
        except (EnvError, TypeError):
            return make_env(name, **options)

    return make


def _seen(obs_spec: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """Options of an environment whose observations are those of data: images of their size."""
    images = [spec for key, spec in obs_spec.items() if spec.image and key != "goal"]
    if not images:
        return {}
    vectors = any(len(spec.shape) == 1 for spec in obs_spec.values())
    return {"obs": "both" if vectors else "pixels", "size": images[0].shape[-1]}


def _check_spaces(
    make: Callable[[], Any],
    obs_spec: Mapping[str, TensorSpec],
    action_spec: Mapping[str, TensorSpec],
) -> bool:
    """Whether observations have a goal; `ConfigError` unless the model's spaces are there."""
    env = make()
    try:
        has_obs = observation_specs(env.observation_space)
        has_action = action_specs(env.action_space)
    finally:
        env.close()
    pairs = (("observation", obs_spec, has_obs), ("action", action_spec, has_action))
    for kind, wanted, has in pairs:
        for key, spec in wanted.items():
            found = has.get(key)
            if found is None or not _same(found, spec):
                raise ConfigError(
                    f"The model's {kind} {key!r} is {spec.to_json()}, the environment has "
                    f"{'no such key' if found is None else found.to_json()}: what it learnt would "
                    "mean something else. Plan in the environment of its data, with its options."
                )
    return "goal" in has_obs


def _same(left: TensorSpec, right: TensorSpec) -> bool:
    """Whether shapes, types, choices and bounds are equal: a plan is normalised by them."""
    plain = (left.shape, left.dtype, left.n) == (right.shape, right.dtype, right.n)
    return plain and (left.n is not None or _bounds(left) == _bounds(right))


def _bounds(spec: TensorSpec) -> tuple[Any, Any]:
    return (spec.low, spec.high) if len(spec.shape) < 2 else (None, None)
