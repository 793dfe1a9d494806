"""A vector environment of ours: episode seeds, NEXT_STEP autoreset, failures, saving and resuming.

Beyond `gymnasium.vector.VectorEnv`:

* `episode_seeds`: a callable (env index, episode index) -> seed, which the caller may set; by
  default the seeds follow from the one given to `reset`. `episodes` and `seeds` tell which episode
  of each environment runs, and with which seed.
* `infos["is_first"]`: (num_envs,) bool, always there. A row is also first, without a last one
  before it, where an environment failed and began anew; `infos["failure"]` then holds the report.
* `get_state()` and `set_state(state)`: running episodes, bit for bit (`worldflux_envs.resume`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from worldflux.errors import EnvError
from worldflux_envs.boundary.faults import EnvFault
from worldflux_envs.boundary.finite import check_actions, check_rows
from worldflux_envs.boundary.observations import refuse_heads
from worldflux_envs.resume import pack, unpack
from worldflux_envs.seeding import entropy_seed, episode_seed

log = logging.getLogger(__name__)
FAILURES_IN_A_ROW = 3
# An environment that went on this long after a failure has recovered.
_RECOVERED_AFTER = 1000


class Failure(NamedTuple):
    """What happened instead of a step: in full, in one sentence, and whether a restart may help."""

    text: str
    sentence: str = ""
    final: bool = False

    @property
    def reason(self) -> str:
        """The one sentence."""
        return self.sentence or self.text.partition("\n")[0]


Reply = tuple[float, bool, bool, dict[str, Any]]
# ("build", None), ("reset", (seed, options)), ("fresh", (seed, options)), ("step", action),
# ("get_state", None), ("set_state", (seed, state)), ("replay", (seed, actions)), ("render", None),
# ("call", (name, args, kwargs)). Those that reset or step leave their observation in a row.
Command = tuple[str, Any]


class EpisodicVectorEnv(VectorEnv[Any, Any, Any]):
    """Bookkeeping of episodes; subclasses say in `execute` how commands reach environments."""

    # Whether each row was checked already, by the `Contract` around its own environment.
    rows_are_checked = False
    restarts_rows = True
    """Whether `restart` works: some simulators only begin an episode while all rows move."""

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Dict,
        action_space: spaces.Space[Any],
        *,
        name: str,
        metadata: dict[str, Any],
        render_mode: str | None,
        copy: bool = True,
        seed: int | None = None,
    ) -> None:
        refuse_heads(observation_space.spaces)
        self.num_envs, self.name, self.copy = num_envs, name, copy
        self.metadata = {**metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.render_mode = render_mode
        self.single_observation_space = observation_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.single_action_space = action_space
        self.action_space = batch_space(action_space, num_envs)
        self.episode_seeds: Callable[[int, int], int] | None = None
        self.episodes = np.full(num_envs, -1)
        self.seeds: list[int] = [0] * num_envs
        self.lengths = np.zeros(num_envs, int)
        self._bases = self._base_seeds(seed)
        self._ended = np.zeros(num_envs, bool)
        self._failures = np.zeros(num_envs, int)
        self._since_failure = np.zeros(num_envs, int)
        # Actions of running episodes, kept only where there is no other way to resume them.
        self._keeps_actions = False
        self._actions: list[list[Any]] = [[] for _ in range(num_envs)]
        self._options: dict[str, Any] | None = None
        self.buffers: dict[str, np.ndarray] = {}

    def execute(self, indices: Sequence[int], commands: Sequence[Command]) -> list[Reply | Failure]:
        """Run one command on each of these environments."""
        raise NotImplementedError

    # Gymnasium's interface

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode in every environment; environment i has seed + i."""
        if seed is not None:
            self._bases = self._base_seeds(seed)
            self.episodes[:] = -1
        self._options = options
        everyone = range(self.num_envs)
        replies = self.execute(everyone, [("reset", self._begin(i)) for i in everyone])
        rewards, _, _, infos = self._gather(replies)
        infos["is_first"] = np.ones(self.num_envs, bool)
        self.lengths[:] = 0
        self._check(rewards)
        return self._observations(), infos

    def step(self, actions: Any) -> tuple[dict[str, np.ndarray], Any, Any, Any, dict[str, Any]]:
        """One step everywhere; an environment whose episode ended is reset instead (reward 0)."""
        if self.closed or self.episodes[0] < 0:
            state = "is closed" if self.closed else "was not reset"
            raise EnvError(f"The vector environment {self.name} {state}: it cannot be stepped.")
        check_actions(actions, self._where)
        is_first = self._ended.copy()
        commands: list[Command] = [
            ("reset", self._begin(i)) if is_first[i] else ("step", actions[i])
            for i in range(self.num_envs)
        ]
        if self._keeps_actions:
            for i, (kind, action) in enumerate(commands):
                if kind == "step":
                    self._actions[i].append(np.array(action))
        replies = self.execute(range(self.num_envs), commands)
        rewards, terminated, truncated, infos = self._gather(replies)
        if "failure" in infos:
            is_first |= infos["_failure"]
        infos["is_first"] = is_first
        self.lengths += 1
        self.lengths[is_first] = 0
        self._check(rewards)
        self._ended = terminated | truncated
        return self._observations(), rewards, terminated, truncated, infos

    def restart(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Begin the next episode of these environments now, not at the next step.

        For libraries whose vectors reset in the step in which an episode ends. The observations
        (num_envs, ...) of all are given; those of other environments are unchanged.
        """
        replies = self.execute(indices, [("reset", self._begin(i)) for i in indices])
        for i, reply in zip(indices, replies, strict=True):
            if isinstance(reply, Failure):
                self._recover(i, reply)
        self._ended[list(indices)] = False
        self.lengths[list(indices)] = 0
        self._check(np.zeros(self.num_envs))
        return self._observations()

    # Checks

    def _check(self, rewards: np.ndarray) -> None:
        """Stop where a reward or an observation is not finite, before anything can store it."""
        if not self.rows_are_checked:
            check_rows(rewards, self.buffers, self._where)

    def _where(self, i: int) -> str:
        """Environment i and its running episode, in words."""
        return (
            f"Environment {i} of {self.name}, episode {self.episodes[i]} (seed {self.seeds[i]}), "
            f"step {self.lengths[i]}"
        )

    # Episodes and failures

    def _base_seeds(self, seed: int | list[int | None] | None) -> list[int]:
        if seed is None:
            return [entropy_seed() for _ in range(self.num_envs)]
        if isinstance(seed, int | np.integer):
            return [int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise EnvError(f"{self.num_envs} environments were given {len(seed)} seeds.")
        return [entropy_seed() if base is None else int(base) for base in seed]

    def _begin(self, i: int) -> tuple[int, dict[str, Any] | None]:
        """Count a new episode of environment i; its seed and reset options."""
        self.episodes[i] += 1
        episode = int(self.episodes[i])
        seeds = self.episode_seeds
        self.seeds[i] = seeds(i, episode) if seeds else episode_seed(self._bases[i], episode)
        self._actions[i] = []
        return self.seeds[i], self._options

    def _gather(self, replies: list[Reply | Failure]) -> tuple[Any, Any, Any, dict[str, Any]]:
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), bool)
        infos: dict[str, Any] = {}
        for i, reply in enumerate(replies):
            if isinstance(reply, Failure):
                infos = self._add_info(infos, {"failure": reply.text}, i)
                reply = self._recover(i, reply)
            rewards[i], terminated[i], truncated[i], info = reply
            if info:
                infos = self._add_info(infos, info, i)
        self._since_failure += 1
        recovered = terminated | truncated | (self._since_failure > _RECOVERED_AFTER)
        self._failures[recovered] = 0
        return rewards, terminated, truncated, infos

    def _recover(self, i: int, failure: Failure) -> Reply:
        """Make environment i anew and begin its next episode.

        The third failure in a row raises, as does one that would only happen again.
        """
        while True:
            self._failures[i] += 1
            self._since_failure[i] = 0
            report = (
                f"Environment {i} of {self.name} failed in episode {self.episodes[i]} "
                f"(seed {self.seeds[i]})"
            )
            if failure.final:
                raise EnvFault(f"{report}: {failure.reason}")
            if self._failures[i] >= FAILURES_IN_A_ROW:
                log.error("%s: %s", report, failure.text)
                raise EnvError(
                    f"{report}: {failure.reason} That was failure {self._failures[i]} in a row: "
                    "stopped. The log has each of them in full."
                )
            log.warning("%s: %s\nIt is restarted with a fresh episode.", report, failure.text)
            [reply] = self.execute([i], [("fresh", self._begin(i))])
            if not isinstance(reply, Failure):
                return reply
            failure = reply

    def _observations(self) -> dict[str, np.ndarray]:
        if not self.copy:
            return self.buffers
        return {key: buffer.copy() for key, buffer in self.buffers.items()}

    # Saving and resuming

    def get_state(self) -> dict[str, Any]:
        """Everything the next steps depend on, as JSON values."""
        replies = self.execute(range(self.num_envs), [("get_state", None)] * self.num_envs)
        states = [None if isinstance(reply, Failure) else reply[3]["state"] for reply in replies]
        return {
            "episodes": self.episodes.tolist(),
            "seeds": list(self.seeds),
            "lengths": self.lengths.tolist(),
            "bases": list(self._bases),
            "ended": self._ended.tolist(),
            "failures": self._failures.tolist(),
            "since_failure": self._since_failure.tolist(),
            "states": states,
            "actions": [pack(actions) for actions in self._actions],
            "obs": pack({key: buffer.copy() for key, buffer in self.buffers.items()}),
        }

    def set_state(self, state: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Continue from what `get_state` gave: the observations then, and which rows are first.

        A row is first where the episode could not be restored, so that another one begins.
        """
        if len(state["episodes"]) != self.num_envs:
            raise EnvError(
                f"The saved state is of {len(state['episodes'])} environments, "
                f"this vector has {self.num_envs}."
            )
        self.episodes, self._ended = np.array(state["episodes"]), np.array(state["ended"])
        self.lengths = np.array(state["lengths"])
        self.seeds, self._bases = list(state["seeds"]), list(state["bases"])
        self._failures = np.array(state["failures"])
        self._since_failure = np.array(state["since_failure"])
        self._actions = [unpack(actions) for actions in state["actions"]]
        obs = unpack(state["obs"])
        # An ended episode need not be replayed: its environment is reset next.
        states = state["states"]
        known = [i for i in range(self.num_envs) if not self._ended[i] or states[i] is not None]
        commands = [self._restoring(i, states[i]) for i in known]
        replies = self.execute(known, commands)
        is_first = np.zeros(self.num_envs, bool)
        for i, reply, (kind, _) in zip(known, replies, commands, strict=True):
            is_first[i] = not self._restored(i, kind, reply, obs)
        for key, buffer in self.buffers.items():
            buffer[~is_first] = obs[key][~is_first]
        return self._observations(), is_first

    def _restoring(self, i: int, state: dict[str, Any] | None) -> Command:
        if state is None:
            return "replay", (self.seeds[i], self._actions[i])
        return "set_state", (self.seeds[i], state)

    def _restored(
        self, i: int, kind: str, reply: Reply | Failure, obs: dict[str, np.ndarray]
    ) -> bool:
        """Whether environment i is where it was; if not, its next episode has begun."""
        if isinstance(reply, Failure):
            self._recover(i, reply)
            return False
        if kind == "set_state":
            return True
        same = all(np.array_equal(buffer[i], obs[key][i]) for key, buffer in self.buffers.items())
        if same and not (reply[1] or reply[2]):
            return True
        log.warning(
            "Environment %d of %s did not come back to where it was by replaying the %d actions of "
            "episode %d (seed %d): a new episode begins.",
            i, self.name, len(self._actions[i]), self.episodes[i], self.seeds[i],
        )  # fmt: skip
        [reply] = self.execute([i], [("reset", self._begin(i))])
        if isinstance(reply, Failure):
            self._recover(i, reply)
        return False
