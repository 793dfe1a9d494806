"""One player's game: the dream beside reality, both driven by the same actions, step by step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from worldflux.columns import ACTION, OBS, REWARD
from worldflux.core.agent import Agent
from worldflux.core.observations import image_or_first
from worldflux.errors import CapabilityError, ConfigError, did_you_mean
from worldflux.specs import Capability
from worldflux_play.acting import Actor, Seen, planners, planning
from worldflux_play.actions import any_action, nothing, one_action
from worldflux_play.dream import Dream
from worldflux_play.opened import Played
from worldflux_play.pictures import bars, distance, picture, psnr, thinned
from worldflux_play.reality import Environment, Moment, Reality, Recording, Still

Array = NDArray[Any]
REMEMBERED = 64
"""Real steps that are kept: the dream is put back onto them, agents that take over see them."""
Kind = Literal["env", "data", "image", "imagined"]


@dataclass
class Shown:
    """What one step shows: numbers (JSON-able), and pixels (Y, X, 3) of reality and the dream."""

    facts: dict[str, Any]
    pixels: dict[str, Array] = field(default_factory=dict)


class Recorder(Protocol):
    """Whoever takes down the steps of a game."""

    def show(self, shown: Shown) -> None:
        """Take down what is shown."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Take down one step, in the columns of episodes."""

    def cut(self, last: Mapping[str, Any] | None) -> None:
        """The episode is broken off here; `last` is where it had come to."""


class Game:
    """The dream beside reality. Everything here runs in one thread."""

    def __init__(self, played: Played, seed: int = 0) -> None:
        self.played, self.model = played, played.model
        self.seed, self.episode = seed, 0
        self.image_key = _image_key(played)
        self.reality: Reality = Still(None)
        self.who = "person"
        self.uncertain = False
        """Whether uncertainty is measured where the model gives none itself (by more samples)."""
        self.goes_on = True
        """Whether the step after an end begins the next episode."""
        if self.model.dynamics_model is None:
            raise CapabilityError(
                f"{type(self.model).__name__} has no dynamics: it imagines nothing that could be "
                "played."
            )
        self.spec = one_action(self.model)
        self._uncertainty = self.model.supports(Capability.UNCERTAINTY)
        self._planners = planners(self.model)
        self.recorder: Recorder | None = None
        self._actor: Actor | None = None
        self.kind = self.kinds()[0]
        self.shown = self.begin_from(self.kind)
        """What was shown last."""

    # What there is to choose from

    def kinds(self) -> list[Kind]:
        """Where a game of this model can begin."""
        found: list[Kind] = []
        if self.played.env is not None:
            found.append("env")
        if self.played.data is not None:
            found.append("data")
        if self.model.recurrent and self.model.action is not None:
            found.append("imagined")
        if self.image_key is not None and len(self.model.obs_spec) == 1:
            found.append("image")
        if not found:
            raise CapabilityError(
                f"There is nothing to begin from: {type(self.model).__name__} cannot imagine a "
                "first observation. Give --env or --data."
            )
        return found

    def actors(self) -> list[str]:
        """Who can act."""
        if self.spec is None:
            return ["person"]
        able = self.played.agent is not None and self.model.stride == 1
        agent = ["agent"] if able else []
        recorded = [] if self.played.data is None else ["recorded"]
        return ["person", *agent, *self._planners, *recorded, "random"]

    # What a player does

    def begin_from(
        self, kind: Kind, episode: int = 0, image: dict[str, Array] | None = None
    ) -> Shown:
        """Begin from the environment, an episode of the data, an image, or a start of its own."""
        if kind not in self.kinds():
            raise CapabilityError(f"This game cannot begin from {kind}.")
        reality = self._reality(kind, episode, image)
        self.reality.close()
        self.reality, self.kind = reality, kind
        if self.who == "recorded" and kind != "data":
            self.who = "person"
        return self.reset()

    def reset(self, seed: int | None = None) -> Shown:
        """A new episode, from the seed if one is given; the dream begins at its first moment."""
        self._cut()
        if seed is not None:
            self.seed, self.episode = seed, 0
        self.moment = self.reality.begin(self.seed + self.episode)
        self.at, self.over = 0, False
        self.returns, self._dreamt_reward = {"real": 0.0, "dream": 0.0}, 0.0
        self.history: deque[Seen] = deque(maxlen=REMEMBERED)
        self._dream_from([] if self.moment is None else [Seen(self.moment.obs)])
        self.seen = self._observation()
        if self._actor is not None:
            self._actor = Actor(self._actor.agent, self.seed + self.episode)
        return self._taken_down(self._shown({}))

    def resync(self) -> Shown:
        """Put the dream back onto what really happened."""
        if self.moment is None:
            raise CapabilityError("There is no reality here to put the dream back onto.")
        self._dream_from([*self.history, Seen(self.moment.obs)])
        return self._shown({})

    def control(self, who: str) -> None:
        """From now on `who` acts: the person, the agent, a planner by name, the recording."""
        known = self.actors()
        if who not in known:
            raise ConfigError(f"Nobody here is called {who[:40]!r}.{did_you_mean(who, known)}")
        if who == "recorded" and self.kind != "data":
            raise CapabilityError("Only an episode of data has recorded actions: begin from one.")
        self.who = who
        agent = self._agent(who)
        self._actor = None if agent is None else Actor(agent, self.seed + self.episode)
        if self._actor is not None:
            self._actor.catch_up(self.history)

    def advance(self, action: Array | None = None) -> Shown:
        """One step by `action` where the person acts; after an end, the next episode."""
        if self.over and self.goes_on:
            self.episode += 1
            return self.reset()
        return self.step(action)

    def step(self, action: Array | None = None) -> Shown:
        """One step of both sides."""
        began = time.perf_counter()
        chosen = self._chosen(action)
        choosing, recorded = time.perf_counter(), self._row(chosen)
        block = chosen
        if self.model.stride > 1:  # one step of the dream is several of reality, all by one action
            block = np.repeat(chosen[None], self.model.stride, 0)
        frame = self.dream.step(block)
        dreaming = time.perf_counter()
        self._lived(chosen)
        self.history.append(Seen(self.seen, block))
        self.at += 1
        reward = None if frame.reward is None else float(frame.reward[0])
        self._dreamt_reward = reward or 0.0
        self.returns["dream"] += self._dreamt_reward
        facts: dict[str, Any] = {"action": chosen.tolist(), "reward": {"dream": reward}}
        if frame.continues is not None:
            facts["continue"] = float(frame.continues[0])
            facts["ended"] = bool(frame.ended is not None and frame.ended[0])
        if self.uncertain or self._uncertainty:
            facts["uncertainty"] = float(frame.uncertainty()[0])
        shown = self._shown(facts, block)
        self.seen = self._observation()
        if self.recorder is not None and recorded is not None:
            self.recorder.row(recorded)
            if self.over and (last := self._row(None)) is not None:
                self.recorder.row(last)
        shown.facts["ms"] = {
            "choose": 1e3 * (choosing - began), "dream": 1e3 * (dreaming - choosing),
            "all": 1e3 * (time.perf_counter() - began),
        }  # fmt: skip
        return self._taken_down(shown)

    def leave_recorder(self) -> None:
        """Nobody takes the steps down any more."""
        self._cut()
        self.recorder = None

    def close(self) -> None:
        """Give back the environment."""
        self.reality.close()

    # Inside

    def _reality(self, kind: Kind, episode: int, image: dict[str, Array] | None) -> Reality:
        if kind == "env":
            assert self.played.env is not None, "kinds() says so"
            draws = self.image_key is None
            return Environment(self.played.env, dict(self.played.env_options), draws, self.model)
        if kind == "data":
            data = self.played.data
            assert data is not None, "kinds() says so"
            if not 0 <= episode < len(data):
                raise ConfigError(f"There is no episode {episode}: the data has {len(data)}.")
            return Recording(data[episode])
        if kind == "image" and image is None:  # until there is one: grey
            shape = self.model.obs_spec[str(self.image_key)].shape
            image = {str(self.image_key): np.full(shape, 128, np.uint8)}
        return Still(image if kind == "image" else None)

    def _agent(self, who: str) -> Agent | None:
        if who == "agent":
            return self.played.agent
        return planning(self.model, who) if who in self._planners else None

    def _dream_from(self, history: Sequence[Seen]) -> None:
        self.dream = Dream(self.model, history, self.seed + self.episode)

    def _observation(self) -> dict[str, Array]:
        """What whoever acts sees: reality while there is one, else the dream."""
        return self.dream.obs() if self.moment is None else self.moment.obs

    def _chosen(self, action: Array | None) -> Array:
        spec = self.spec
        if spec is None:
            return np.zeros(0, np.float32)
        if self.who == "random":
            chosen = any_action(spec, np.random.default_rng([self.seed, self.episode, self.at]))
        elif self.who == "recorded":
            recorded = self.reality.recorded()
            chosen = nothing(spec) if recorded is None else recorded
        elif self._actor is not None:
            return self._actor.act(self.seen)
        else:
            chosen = nothing(spec) if action is None else action
        return chosen

    def _lived(self, action: Array) -> None:
        """Reality's side of a step; it stays where it is once the episode is over."""
        total = 0.0
        for _ in range(self.model.stride):
            if self.moment is None or self.over:
                break
            self.moment = self.reality.step(action)
            if self.moment is not None:
                total += self.moment.reward
                self.over = self.moment.over
        self.returns["real"] += total
        if self.moment is not None and self.model.stride > 1:
            self.moment = replace(self.moment, reward=total)

    def _row(self, action: Array | None) -> dict[str, Any] | None:
        """The present step in the columns of episodes, with the action that is taken there.

        Of the dream where there is no reality; None where nothing more happens.
        """
        moment = self.moment
        if self.recorder is None or (self.over and action is not None) or not self.seen:
            return None
        reward = self._dreamt_reward if moment is None else moment.reward
        found = {f"{OBS}{key}": self.seen[key] for key in self.model.obs_spec}
        ended = moment is not None and moment.ended
        return found | {
            ACTION: action, REWARD: reward, "is_first": self.at == 0, "is_last": self.over,
            "is_terminal": ended,
        }  # fmt: skip

    def _cut(self) -> None:
        if self.recorder is not None:
            self.recorder.cut(self._row(None))

    def _taken_down(self, shown: Shown) -> Shown:
        if self.recorder is not None:
            self.recorder.show(shown)
        return shown

    def _shown(self, facts: dict[str, Any], action: Array | None = None) -> Shown:
        moment, dreamt = self.moment, self.dream.obs()
        shown = Shown({"t": self.at, "episode": self.episode, "seed": self.seed, **facts})
        shown.facts |= {"over": self.over, "return": dict(self.returns), "bars": {}}
        if moment is not None:
            shown.facts.setdefault("reward", {})["real"] = moment.reward
            self._show_side(shown, "real", moment.obs, moment.picture)
        self._show_side(shown, "dream", dreamt, None)
        if moment is not None and not self.over:
            self._compare(shown, moment, dreamt, action)
        if not self.dream.decodes:
            shown.facts["bars"]["dream"] = self.dream.latent()
        self.shown = shown
        return shown

    def _show_side(
        self, shown: Shown, side: str, obs: dict[str, Array], drawn: Array | None
    ) -> None:
        if self.image_key in obs:
            shown.pixels[side] = picture(obs[str(self.image_key)])
        elif drawn is not None:
            shown.pixels[side] = thinned(drawn)
        if found := bars(obs, self.model.obs_spec):
            shown.facts["bars"][side] = found

    def _compare(
        self, shown: Shown, moment: Moment, dreamt: dict[str, Array], action: Array | None
    ) -> None:
        """How far the dream is from reality, where both are known."""
        facts = shown.facts
        if not self.dream.decodes:
            if action is not None:
                facts["bars"]["real"], facts["distance"] = self.dream.apart(action, moment.obs)
        elif self.image_key in dreamt:
            key = str(self.image_key)
            facts["psnr"] = psnr(moment.obs[key], dreamt[key])
        else:
            key = str(image_or_first(self.model.obs_spec))
            facts["distance"] = distance(moment.obs[key], dreamt[key])


def _image_key(played: Played) -> str | None:
    """The observation that is shown as a picture, where the model sees one."""
    key = image_or_first(played.model.obs_spec)
    return key if key is not None and played.model.obs_spec[key].image else None
