"""The agents of one behaviour in one player, each in a row of its own.

Agents of a player live in one world: none can be begun anew or stepped by itself. A row whose agent
has ended waits for the agent's next episode, and stands still (zeros) in the step in which the
others move on, which is the step that a reset takes with NEXT_STEP autoreset. An agent that decides
again before others have decided at all keeps its action, and its rewards add up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mlagents_envs.base_env import ActionTuple

from worldflux.errors import EnvError, did_you_mean
from worldflux_envs.unity.layout import Layout
from worldflux_envs.unity.player import Launch, Player

Result = tuple[float, bool, bool]
_LONGEST = 10_000  # exchanges without what is waited for


@dataclass
class Row:
    """One agent: its id in the current episode (None between two) and what it observes.

    `new` until it first acts; `upcoming` is the first observation of the episode that began while
    the last one of the episode before was still to be shown.
    """

    agent: int | None = None
    new: bool = False
    observed: dict[str, np.ndarray] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    upcoming: tuple[dict[str, np.ndarray], dict[str, Any]] | None = None


class Agents:
    """All agents of `behavior`, which may be left out where there is one."""

    def __init__(
        self, launch: Launch, *, seed: int = 0, behavior: str | None = None, obs: str = "state",
        size: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        self.player = Player(launch, seed)
        try:
            self.behavior = _choose(self.player, behavior)
            self.layout = Layout(self.player.behaviors[self.behavior], obs=obs, size=size)
        except EnvError:
            self.player.close()
            raise
        count = len(self.player.steps(self.behavior)[0])
        self.rows = [Row() for _ in range(count)]

    def begin(self, seed: int | None) -> None:
        """New episodes in all rows."""
        self.player.reset(seed)
        for row in self.rows:
            row.agent = row.upcoming = None
        self._gather({}, set(range(len(self.rows))))
        self._run({}, set(), set(range(len(self.rows))))

    def advance(self, actions: dict[int, Any], waiting: set[int]) -> dict[int, Result]:
        """Act in some rows and see others into their next episode: the results of the former."""
        results: dict[int, Result] = dict.fromkeys(actions, (0.0, False, False))
        moves = {row: self.layout.told(action) for row, action in actions.items()}
        for i in actions:
            self.rows[i].new = False
        for row in (self.rows[i] for i in waiting):
            if row.upcoming is not None:
                (row.observed, row.info), row.upcoming = row.upcoming, None
        undecided = set(actions)
        if actions or not self.ready(waiting):
            self._act(moves)
            undecided -= self._gather(results, waiting)
            self._run(moves, undecided, waiting, results)
        return results

    def _run(
        self, moves: dict[int, Any], undecided: set[int], waiting: set[int],
        results: dict[int, Result] | None = None,
    ) -> None:  # fmt: skip
        """Go on until every row of `undecided` has decided or ended and `waiting` has begun."""
        results = {} if results is None else results
        for _ in range(_LONGEST):
            if not undecided and self.ready(waiting):
                return
            self._act(moves)
            undecided -= self._gather(results, waiting)
        raise EnvError(
            f"unity/{self.player.name}: of {len(self.rows)} agents of {self.behavior} only "
            f"{sum(row.agent is not None for row in self.rows)} still ask for decisions. As a "
            "vector environment their number must stay the same."
        )

    def ready(self, rows: Iterable[int]) -> bool:
        """Whether the agents of these rows are at the beginning of an episode."""
        return all(row.new and row.agent is not None for row in (self.rows[i] for i in rows))

    def _act(self, moves: dict[int, Any]) -> None:
        by_agent = {row.agent: moves.get(i) for i, row in enumerate(self.rows) if not row.new}
        decisions, _ = self.player.steps(self.behavior)
        told = [by_agent.get(int(a)) or self.layout.idle() for a in decisions.agent_id]
        actions = None
        if told:
            continuous, discrete = (np.stack(part) for part in zip(*told, strict=True))
            actions = ActionTuple(continuous=continuous, discrete=discrete)
        self.player.step(self.behavior, actions)

    def _gather(self, results: dict[int, Result], waiting: set[int]) -> set[int]:
        """Sort what the player sent into rows; the rows of `results` that have decided or ended."""
        decisions, terminals = self.player.steps(self.behavior)
        by_agent = {row.agent: i for i, row in enumerate(self.rows) if row.agent is not None}
        done = set()
        for n, agent in enumerate(terminals.agent_id):
            i = by_agent.pop(int(agent), None)
            if i is None:
                continue
            row, row.agent = self.rows[i], None  # type: ignore[misc]
            if i in results and not row.new:
                reward = results[i][0] + _reward(terminals, n)
                cut = bool(terminals.interrupted[n])
                results[i] = (reward, not cut, cut)
                row.observed, row.info = self._seen(terminals, n)
                done.add(i)
        free = [i for i, row in enumerate(self.rows) if row.agent is None]
        for n, agent in enumerate(decisions.agent_id):
            known = by_agent.get(int(agent))
            if known is None and not free:
                continue  # more agents than rows: these stand still
            i = free.pop(0) if known is None else known
            row = self.rows[i]
            if known is None:
                row.agent, row.new = int(agent), True
            if i in results and not row.new:
                results[i] = (results[i][0] + _reward(decisions, n), False, False)
                done.add(i)
            if i in results and row.new:
                row.upcoming = self._seen(decisions, n)
            else:
                row.observed, row.info = self._seen(decisions, n)
        return done

    def _seen(self, steps: Any, n: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        observed = self.layout.observed([part[n] for part in steps.obs])
        masks = getattr(steps, "action_mask", None)
        if masks is None:
            return observed, {}
        # ML-Agents marks what is forbidden, Gymnasium what is allowed.
        allowed = np.concatenate([~part[n] for part in masks]).astype(np.int8)
        return observed, {"action_mask": allowed}


def _reward(steps: Any, n: int) -> float:
    """An agent's own reward and that of its group."""
    return float(steps.reward[n]) + float(steps.group_reward[n])


def _choose(player: Player, behavior: str | None) -> str:
    """`behavior` if the player has it; its team (`?team=0`) may be left out."""
    names = [name for name in player.behaviors if len(player.steps(name)[0])]
    if not names:
        raise EnvError(f"unity/{player.name} has no agent that asks us for decisions.")
    if behavior is None and len(names) == 1:
        return names[0]
    matching = [n for n in names if behavior in (n, n.partition("?")[0])]
    if len(matching) == 1:
        return matching[0]
    listed = ", ".join(names)
    if behavior is None or matching:
        raise EnvError(f"unity/{player.name} has {len(names)} behaviours: say behavior=, one of "
                       f"{listed}.")  # fmt: skip
    raise EnvError(f"unity/{player.name} has no behaviour {behavior!r}."
                   f"{did_you_mean(behavior, names)} Behaviours: {listed}.")  # fmt: skip
