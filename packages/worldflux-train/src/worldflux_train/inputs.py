"""What a run learns from: an environment, data on disk, or both; and the spaces that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from worldflux import distributed
from worldflux.columns import actions, observations, step_columns
from worldflux.config import Config
from worldflux.core.agent import Learner
from worldflux.core.source import Source
from worldflux.errors import ConfigError
from worldflux.factory import make_env
from worldflux.specs import TensorSpec
from worldflux.training import TrainingPlan
from worldflux_train.assembly import make_envs, make_replay
from worldflux_train.config import RunConfig
from worldflux_train.data import Mixture, Opened, ReadAhead, open_data
from worldflux_train.data.share import shared
from worldflux_train.ranks import rank_plan
from worldflux_train.replay.replay import Replay
from worldflux_train.seeding import derived
from worldflux_train.stepping import Stepper

Specs = dict[str, TensorSpec]


@dataclass(frozen=True)
class Inputs:
    """A run's data and spaces. `config` is completed by them."""

    config: RunConfig
    obs_spec: Specs
    action_spec: Specs
    data: Opened | None

    def plan(self, plan: TrainingPlan) -> TrainingPlan:
        """The plan as this run follows it: without an environment to act in nothing is collected.

        `train.collect` decides where there are both; by default the plan does.
        """
        collect = self.config.train.collect
        if collect is None:
            collect = plan.collect_until != 0
        if collect and not self.config.has_env:
            if self.config.train.collect:
                raise ConfigError("train.collect=true needs an environment: give --env.")
            collect = False
        if not collect and self.data is None:
            raise ConfigError(
                f"{self.config.id} collects nothing, so it needs data to learn from: give --data."
            )
        plan = plan if collect else replace(plan, collect_until=0)
        _check_sources(plan, self.data is not None)
        return rank_plan(plan)


def open_inputs(config: RunConfig, stepper: Stepper | None = None) -> Inputs:
    """Opens the data, or asks the environment; with both, the spaces are the data's."""
    if config.data.path is not None:
        data = open_data(config.data, config.train.seed)
        obs, action = observations(data.columns), actions(data.columns)
        limit, columns = data.longest() or None, data.columns
    else:
        data, own = None, stepper or make_stepper(config, 1)  # one tells the spaces
        obs, action = own.obs_spec, own.action_spec
        limit, columns = None, step_columns(obs, action)
        if stepper is None:
            own.envs.close()
    if config.has_env and _asks(config.family):
        limit = _episode_limit(config) or limit
    completed = replace(config, family=config.family.completed(columns, limit))
    return Inputs(completed, obs, action, data)


def completed(config: RunConfig) -> RunConfig:
    """With what the family leaves open filled in, as `config.yaml` of a run has it."""
    return open_inputs(config).config if _asks(config.family) else config


def make_stepper(config: RunConfig, count: int | None = None) -> Stepper:
    """The run's environments: `count`, by default `train.envs`."""
    number = config.train.envs if count is None else count
    envs = make_envs(config, number)
    first = distributed.rank() * number  # of this rank's environments, among those of all
    seeds = [derived(config.train.seed, "environment", first + i) for i in range(number)]
    return Stepper(envs, seeds)


def make_source(
    agent: Learner, inputs: Inputs, plan: TrainingPlan, device: torch.device, folder: Path
) -> tuple[Source, Replay | None]:
    """Where the run's batches come from, and the replay that collected steps go to."""
    columns, train = agent.columns, inputs.config.train
    offline = None if inputs.data is None else shared(inputs.data.source(columns, device))
    if plan.collect_until == 0:
        assert offline is not None, "Inputs.plan refuses a run from nothing"
        return ReadAhead(offline), None
    replay = make_replay(agent, train, device, folder)
    replay.shared = folder
    if offline is None:
        return replay, replay
    both: Mapping[str, Source] = {"data": ReadAhead(offline), "replay": replay}
    return Mixture(both, train.data_fraction, columns), replay


def check_fits(stepper: Stepper, inputs: Inputs) -> None:
    """Raise `ConfigError` unless the environment has the data's keys; it may have more."""
    pairs = [("observation", inputs.obs_spec, stepper.obs_spec)]
    pairs.append(("action", inputs.action_spec, stepper.action_spec))
    for kind, wanted, has in pairs:
        for key, spec in wanted.items():
            own = has.get(key)
            if own is None or (own.shape, own.dtype, own.n) != (spec.shape, spec.dtype, spec.n):
                raise ConfigError(
                    f"The data's {kind} {key!r} is {spec.to_json()}, the environment "
                    f"{inputs.config.env_id} has "
                    f"{'no such key' if own is None else own.to_json()}. Give the environment the "
                    "data was recorded in, with the same options."
                )


def _check_sources(plan: TrainingPlan, data: bool) -> None:
    has = {"data": data, "replay": plan.collect_until != 0}
    for phase in plan.phases:
        if phase.source is not None and not has[phase.source]:
            remedy = "--data" if phase.source == "data" else "--env, with train.collect=true"
            raise ConfigError(
                f"Phase {phase.name!r} learns from the {phase.source}, which this run does not "
                f"have: give {remedy}."
            )


def _asks(family: Config) -> bool:
    """Whether a family completes its configuration, so that the limit is worth looking for."""
    return type(family).completed is not Config.completed


def _episode_limit(config: RunConfig) -> int | None:
    """The environment's limit in agent steps, as its innermost time limit or spec says."""
    given = config.env_options.get("max_episode_steps")
    if given is not None:  # counts the agent's steps as it is
        return int(given)
    env: Any = make_env(config.env_id, **config.env_options)
    try:
        found, layer = None, env
        while layer is not None:
            found = getattr(layer, "_max_episode_steps", None) or found
            layer = getattr(layer, "env", None)
        found = found or getattr(env.spec, "max_episode_steps", None)
    finally:
        env.close()
    repeat = int(config.env_options.get("action_repeat", 1))
    return None if found is None else -(-int(found) // repeat)
