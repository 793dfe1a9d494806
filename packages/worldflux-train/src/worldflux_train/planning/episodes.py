"""Episodes of an agent that plans, many environments at once, with what a video of them needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from worldflux.core.agent import Agent
from worldflux.core.rand import Rand
from worldflux.nn.device import device_of
from worldflux_train.planning.result import PlannedEpisode
from worldflux_train.planning.tasks import begin, goal_picture, succeeded
from worldflux_train.seeding import derived

AT_ONCE = 16


@torch.no_grad()
def play(
    agent: Agent,
    make: Callable[[], Any],
    count: int,
    seed: int,
    *,
    budget: int | None = None,
    offset: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    shown: int = 8,
) -> list[PlannedEpisode]:
    """`count` episodes of at most `budget` steps, `AT_ONCE` at once.

    `offset` as in `tasks.begin`. The first `shown` keep pictures. `KeyboardInterrupt` as soon as
    `stop` is true.
    """
    rand, found = Rand.seeded(derived(seed, "planner"), device_of(agent)), []
    envs = [make() for _ in range(min(count, AT_ONCE))]
    try:
        for first in range(0, count, len(envs)):
            numbers = range(first, min(first + len(envs), count))
            seeds = [derived(seed, "planned episode", i) for i in numbers]
            lanes = [
                _Lane(env, *begin(env, each, offset), i < shown)
                for env, each, i in zip(envs, seeds, numbers, strict=False)
            ]
            _together(agent, lanes, budget, rand, stop)
            found += [lane.episode() for lane in lanes]
    finally:
        for env in envs:
            env.close()
    return found


class _Lane:
    """An environment with its running episode."""

    def __init__(
        self, env: Any, obs: Mapping[str, Any], info: Mapping[str, Any], shown: bool
    ) -> None:
        self.env, self.obs, self.shown = env, obs, shown
        self.goal = goal_picture(obs)
        self.over, self.total, self.steps = False, 0.0, 0
        self.success: bool | None = succeeded(obs, info, 0.0, False)
        self.frames: list[Any] = []
        self.path: list[tuple[float, float]] = []
        self._keep(info)

    def step(self, action: Any) -> None:
        """Take one action; nothing more after the end."""
        if self.over:
            return
        self.obs, reward, terminated, truncated, info = self.env.step(action)
        self.total, self.steps = self.total + float(reward), self.steps + 1
        told = succeeded(self.obs, info, float(reward), bool(terminated))
        self.success = told if self.success is None else bool(self.success or told)
        self.over = bool(terminated or truncated or self.success)
        self._keep(info)

    def _keep(self, info: Mapping[str, Any]) -> None:
        if not self.shown:
            return
        place = info.get("position")
        if place is not None and np.shape(place) == (2,):
            self.path.append((float(place[0]), float(place[1])))
        picture = _drawn(self.env)
        if picture is not None:
            self.frames.append(picture)

    def episode(self) -> PlannedEpisode:
        """What it came to."""
        return PlannedEpisode(
            self.success, self.total, self.steps, self.frames, self.goal, self.path
        )


def _together(
    agent: Agent, lanes: list[_Lane], budget: int | None, rand: Rand, stop: Callable[[], bool]
) -> None:
    """Step all lanes until each has ended, or `budget` steps are done."""
    device, state, done = device_of(agent), None, 0
    while not all(lane.over for lane in lanes) and (budget is None or done < budget):
        if stop():
            raise KeyboardInterrupt
        keys = lanes[0].obs
        obs = {
            key: torch.as_tensor(np.stack([np.asarray(lane.obs[key]) for lane in lanes])).to(device)
            for key in keys
        }
        first = torch.full((len(lanes),), done == 0, device=device)
        payload, state = agent.act(obs, state, first, "eval", rand=rand)
        action = payload.primary()
        assert action is not None, type(agent)
        for lane, own in zip(lanes, action.cpu().numpy(), strict=True):
            lane.step(own)
        done += 1


def _drawn(env: Any) -> Any:
    """What an environment draws (Y, X, 3), None where it cannot."""
    try:
        picture = env.render()
    except NotImplementedError:
        return None
    return picture if isinstance(picture, np.ndarray) and picture.ndim == 3 else None
