"""Recording episodes of a policy in parallel environments, behind what a folder holds already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldflux.columns import ACTION, OBS, step_columns
from worldflux.core.agent import Agent, Mode
from worldflux.core.rand import Rand, uniform
from worldflux.core.state import State
from worldflux.episodes import ABOUT, EpisodeRecorder, Episodes, EpisodeWriter
from worldflux.errors import ConfigError, ContractError
from worldflux.factory import make_vec_env
from worldflux.nn.device import device_of
from worldflux.specs import TensorSpec
from worldflux_train.collector import random_action
from worldflux_train.seeding import derived
from worldflux_train.stepping import Stepper

Array = NDArray[Any]
Scripted = Callable[[Mapping[str, Array]], Array]
"""A policy of one's own: observations (N, ...) by key to actions (N, ...)."""
Tell = Callable[[int], None]


def collect(
    env_id: str,
    folder: str | Path,
    steps: int,
    *,
    policy: Agent | Scripted | None = None,
    envs: int = 1,
    seed: int = 0,
    acting: Mode = "train",
    hold: int = 1,
    tell: Tell = lambda done: None,
    **options: Any,
) -> int:
    """Record at least `steps` actions in `envs` environments together; the episodes written.

    `policy` is an agent, a function of observations, or None: random actions. Episodes that run
    when the steps are done end there, by a time limit. Further calls append other episodes.
    An agent acts as in training (or "eval"). A random action lasts `hold` steps on average, so
    that the walk gets somewhere. `options` are those of the environment. `ConfigError` for a
    `hold` of actions that are not random.
    """
    if hold < 1 or (hold > 1 and policy is not None):
        raise ConfigError(
            f"hold={hold}: random actions may last 1 step or more; a policy's last one step. "
            "Leave out hold, or the policy."
        )
    before = len(Episodes(folder, verify=False)) if (Path(folder) / ABOUT).is_file() else 0
    made = make_vec_env(env_id, envs, **options)
    try:
        seeds = [derived(seed, "collected", before, i) for i in range(envs)]
        stepper = Stepper(made, seeds)
        columns = step_columns(stepper.obs_spec, stepper.action_spec)
        recorder = EpisodeRecorder(EpisodeWriter(folder, columns), envs)
        rand = Rand.seeded(derived(seed, "collecting", before))
        choose = _acting(policy, next(iter(stepper.action_spec.values())), rand, acting, hold)
        _record(stepper, recorder, choose, steps, tell)
    finally:
        made.close()
    return len(Episodes(folder, verify=False)) - before


def _record(
    stepper: Stepper,
    recorder: EpisodeRecorder,
    acting: Callable[[Stepper], Array],
    steps: int,
    tell: Tell,
) -> None:
    done = 0
    while done < steps:
        action = acting(stepper)
        now = stepper.now
        done += int((~now.is_last).sum())
        recorder.append(_rows(stepper, np.where(_wide(now.is_last, action), 0, action)))
        stepper.step(action)
        tell(done)
    nothing = np.zeros_like(action)
    recorder.append(_rows(stepper, nothing))  # what the last actions led to
    recorder.finish()


def _rows(stepper: Stepper, action: Array) -> dict[str, Array]:
    now = stepper.now
    return {
        **{f"{OBS}{key}": value for key, value in now.obs.items()},
        ACTION: action, "reward": now.reward, "is_first": now.is_first, "is_last": now.is_last,
        "is_terminal": now.is_terminal,
    }  # fmt: skip


def _wide(flags: NDArray[np.bool_], action: Array) -> NDArray[np.bool_]:
    """Flags (N,) in the shape of actions (N, ...)."""
    return flags.reshape(len(flags), *[1] * (action.ndim - 1))


def _acting(
    policy: Agent | Scripted | None, spec: TensorSpec, rand: Rand, mode: Mode, hold: int
) -> Callable[[Stepper], Array]:
    if isinstance(policy, Agent):
        return _Agent(policy, rand, mode)
    if policy is None:
        return _Random(spec, rand, hold)

    def scripted(stepper: Stepper) -> Array:
        found = np.asarray(policy(stepper.now.obs))
        if found.shape != (stepper.num_envs, *spec.shape):
            raise ContractError(
                f"The policy gave actions of shape {found.shape}, expected "
                f"{(stepper.num_envs, *spec.shape)}: a row for each environment."
            )
        return found.astype(spec.dtype)

    return scripted


class _Random:
    """Uniform actions, each of which lasts about `hold` steps and ends with its episode."""

    def __init__(self, spec: TensorSpec, rand: Rand, hold: int) -> None:
        self.spec, self.rand, self.hold = spec, rand, hold
        self.action: Array | None = None

    def __call__(self, stepper: Stepper) -> Array:
        drawn = random_action(self.spec, stepper.num_envs, self.rand).numpy()
        if self.hold > 1 and self.action is not None:
            ends = self.rand.draw("ends", (stepper.num_envs,), uniform).numpy() < 1 / self.hold
            ends |= np.asarray(stepper.now.is_first)
            drawn = np.where(_wide(ends, drawn), drawn, self.action)
        self.action = drawn
        return drawn


class _Agent:
    """An agent that acts, with its state from step to step."""

    def __init__(self, agent: Agent, rand: Rand, mode: Mode) -> None:
        self.agent, self.mode = agent.eval(), mode
        device = device_of(agent)
        assert rand.generator is not None, "it was seeded"
        self.rand = Rand.seeded(int(torch.randint(2**31, (), generator=rand.generator)), device)
        self.device, self.state = device, None

    state: State | None

    @torch.no_grad()
    def __call__(self, stepper: Stepper) -> Array:
        obs, first = stepper.tensors(self.device)
        payload, self.state = self.agent.act(obs, self.state, first, self.mode, rand=self.rand)
        action: Tensor | None = payload.primary()
        assert action is not None, type(self.agent)
        return action.cpu().numpy()
