"""Evaluation: whole episodes in environments of their own, with random numbers of its own."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldflux.core.agent import Agent
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.episodes import Episode
from worldflux_train.seeding import derived
from worldflux_train.stepping import Stepper

logger = logging.getLogger(__name__)
MOST_ENVS = 16
SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths of the evaluated episodes."""

    returns: list[float]
    lengths: list[int]
    truncated: int = 0
    """Episodes cut off because they did not end within the most steps an episode may have."""
    episodes: list[Episode] = field(default_factory=list)
    """The steps of them all, where they were kept: `evaluate_run(..., keep=...)`."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    def row(self) -> dict[str, Any]:
        """As a row of metrics."""
        return {
            "eval/return": self.mean,
            "eval/return_std": float(np.std(self.returns)),
            "eval/return_min": min(self.returns),
            "eval/return_max": max(self.returns),
            "eval/length": float(np.mean(self.lengths)),
            "eval/episodes": len(self.returns),
            "eval/truncated": self.truncated,
        }


@torch.no_grad()
def evaluate(
    agent: Agent,
    make_envs: Callable[[int], Any],
    episodes: int,
    seed: int,
    device: torch.device,
    *,
    max_steps: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[int, int], None] = lambda played, episodes: None,
) -> Evaluation | None:
    """`episodes` episodes with mode "eval"; None if `stop` became true before they were played.

    `tell` hears at each step how many have been played, and how many there are.

    Each environment plays a fixed share of them, so that short episodes are not over-represented.
    An episode that has not ended after `max_steps` steps is cut off there and counted as it is.
    Episode n starts from `start_seed(seed, n)`, whatever agent plays and whenever others ended, in
    every vector that has `episode_seeds` (all of ours); in others the first of each environment.
    """
    envs = make_envs(min(episodes, MOST_ENVS))
    try:
        return _play(agent, envs, episodes, seed, device, max_steps, stop, tell)
    finally:
        envs.close()


def _play(
    agent: Agent,
    envs: Any,
    episodes: int,
    seed: int,
    device: torch.device,
    max_steps: int | None,
    stop: Callable[[], bool],
    tell: Callable[[int, int], None],
) -> Evaluation | None:
    count = envs.num_envs
    games = _Games([episodes // count + (i < episodes % count) for i in range(count)], max_steps)
    rand = Rand.seeded(derived(seed, "evaluator"), device)
    starts = _Starts(games, seed)
    if hasattr(envs, "episode_seeds"):
        envs.episode_seeds = starts
    while games.missing().any():
        # An environment cannot drop a running episode: what a cut leaves is played after a reset.
        starts.begin()
        stepper = Stepper(envs, [start_seed(seed, starts.number(i)) for i in range(count)])
        games.begin()
        state: State | None = None
        while games.playing().any():
            if stop():
                return None
            obs, first = stepper.tensors(device)
            payload, state = agent.act(obs, state, first, "eval", rand=rand)
            stepper.step(payload.require().cpu().numpy())
            games.count(stepper)
            tell(games.played, episodes)
    return games.result()


def start_seed(seed: int, number: int) -> int:
    """The seed that evaluated episode `number` starts from."""
    return derived(seed, "evaluated episode", number)


class _Starts:
    """Which seed the next episode of each environment starts from: that of its place in the list.

    An episode that failed is tried again from another one.
    """

    def __init__(self, games: _Games, seed: int) -> None:
        self.games, self.seed = games, seed
        self.begin()

    def begin(self) -> None:
        """All environments are about to be reset."""
        self.asked: Counter[int] = Counter()

    def number(self, i: int) -> int:
        """Which of the evaluated episodes environment `i` plays next."""
        return len(self.games.done[i]) * len(self.games.done) + i

    def __call__(self, i: int, _: int) -> int:
        number = self.number(i)
        self.asked[number] += 1
        again = self.asked[number] - 1
        first = start_seed(self.seed, number)
        return derived(first, "tried again", again) if again else first


class _Games:
    """Counts the episodes that each environment has played, and says how far it has come."""

    def __init__(self, quota: list[int], max_steps: int | None) -> None:
        self.quota = np.array(quota)
        self.max_steps = max_steps
        self.done: list[list[tuple[float, int]]] = [[] for _ in quota]
        self.cut = 0
        self.began = self.told = time.monotonic()
        self.begin()

    def begin(self) -> None:
        """All environments were reset."""
        self.closed = np.zeros(self.quota.size, bool)

    @property
    def played(self) -> int:
        """Episodes played so far."""
        return sum(map(len, self.done))

    def missing(self) -> NDArray[np.bool_]:
        """Environments (N,) that have not played their share."""
        return np.array([len(found) for found in self.done]) < self.quota

    def playing(self) -> NDArray[np.bool_]:
        """Environments (N,) whose running episode counts."""
        return self.missing() & ~self.closed

    def count(self, stepper: Stepper) -> None:
        """Take the episodes that ended with the last step, or have run for too long."""
        over = stepper.now.is_last.copy()
        if self.max_steps is not None:
            endless = (stepper.lengths >= self.max_steps) & ~over & self.playing()
            self.cut += int(endless.sum())
            over |= endless
        else:
            endless = np.zeros_like(over)
        for i in np.flatnonzero(over & self.playing()):
            self.done[i].append((float(stepper.returns[i]), int(stepper.lengths[i])))
        self.closed |= endless
        self._tell(int(stepper.lengths.max()))

    def result(self) -> Evaluation:
        """All episodes, in the order of the environments."""
        played = [episode for found in self.done for episode in found]
        if self.cut:
            logger.warning(
                "%d of %d evaluated episodes had not ended after train.eval_max_steps=%d steps and "
                "were cut off there. Raise it, or end episodes with env.max_episode_steps.",
                self.cut, len(played), self.max_steps,
            )  # fmt: skip
        return Evaluation([ret for ret, _ in played], [length for _, length in played], self.cut)

    def _tell(self, steps: int) -> None:
        now = time.monotonic()
        if now - self.told < SECONDS_BETWEEN_LINES:
            return
        self.told = now
        done, all_of_them = self.played, int(self.quota.sum())
        left = (now - self.began) * (all_of_them - done) / done if done else None
        logger.info(
            "evaluation: %d of %d episodes, the running ones up to %d steps, %s",
            done, all_of_them, steps,
            "none has ended yet" if left is None else f"about {left:.0f} s left",
        )  # fmt: skip
