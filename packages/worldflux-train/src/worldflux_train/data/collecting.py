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
from worldflux.core.agent import Agent
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.episodes import ABOUT, EpisodeRecorder, Episodes, EpisodeWriter
from worldflux.errors import ContractError
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
    mode: str = "train",
    tell: Tell = lambda done: None,
    **options: Any,
) -> int:
    """Record at least `steps` actions in `envs` environments together; the episodes written.

    `policy` is an agent, a function of observations, or None: random actions. Episodes that run
    when the steps are done end there, by a time limit. Further calls append other episodes.
    `options` are those of the environment.
    """
    before = len(Episodes(folder, verify=False)) if (Path(folder) / ABOUT).is_file() else 0
    made = make_vec_env(env_id, envs, **options)
    try:
        seeds = [derived(seed, "collected", before, i) for i in range(envs)]
        stepper = Stepper(made, seeds)
        columns = step_columns(stepper.obs_spec, stepper.action_spec)
        recorder = EpisodeRecorder(EpisodeWriter(folder, columns), envs)
        rand = Rand.seeded(derived(seed, "collecting", before))
        acting = _acting(policy, next(iter(stepper.action_spec.values())), rand, mode)
        _record(stepper, recorder, acting, steps, tell)
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
    policy: Agent | Scripted | None, spec: TensorSpec, rand: Rand, mode: str
) -> Callable[[Stepper], Array]:
    if isinstance(policy, Agent):
        return _Agent(policy, rand, mode)
    if policy is None:
        return lambda stepper: random_action(spec, stepper.num_envs, rand).numpy()

    def scripted(stepper: Stepper) -> Array:
        found = np.asarray(policy(stepper.now.obs))
        if found.shape != (stepper.num_envs, *spec.shape):
            raise ContractError(
                f"The policy gave actions of shape {found.shape}, expected "
                f"{(stepper.num_envs, *spec.shape)}: a row for each environment."
            )
        return found.astype(spec.dtype)

    return scripted


class _Agent:
    """An agent that acts, with its state from step to step."""

    def __init__(self, agent: Agent, rand: Rand, mode: str) -> None:
        self.agent, self.mode = agent.eval(), mode
        device = device_of(agent)
        assert rand.generator is not None, "it was seeded"
        self.rand = Rand.seeded(int(torch.randint(2**31, (), generator=rand.generator)), device)
        self.device, self.state = device, None

    state: State | None

    @torch.no_grad()
    def __call__(self, stepper: Stepper) -> Array:
        obs, first = stepper.tensors(self.device)
        mode: Any = self.mode
        payload, self.state = self.agent.act(obs, self.state, first, mode, rand=self.rand)
        action: Tensor | None = payload.primary()
        assert action is not None, type(self.agent)
        return action.cpu().numpy()
