"""One sub-environment: makes it, runs commands on it, writes its observations into a row."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np

from worldflux.errors import EnvError
from worldflux_envs import resume
from worldflux_envs.boundary.faults import EnvFault
from worldflux_envs.vector.base import Command, EpisodicVectorEnv, Failure, Reply
from worldflux_envs.vector.faults import sentence

Make = Callable[[], gymnasium.Env[Any, Any]]


class SubEnv:
    """Environment i of a vector, in this process."""

    def __init__(
        self, make: Make, row: int, buffers: dict[str, np.ndarray], env: Any = None
    ) -> None:
        self._make, self._row = make, row
        self._buffers = tuple(buffers.items())
        self.env: gymnasium.Env[Any, Any] | None = env

    def run(self, command: Command) -> Reply | Failure:
        """Carry out one command; whatever the environment raises comes back as a Failure."""
        kind, argument = command
        try:
            if kind == "step":
                obs, reward, terminated, truncated, info = self.env.step(argument)  # type: ignore[union-attr]
                self._write(obs)
                return reward, terminated, truncated, info  # type: ignore[return-value]
            return getattr(self, f"_{kind}")(argument)
        except EnvFault as fault:
            return Failure(traceback.format_exc(), str(fault), final=True)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the worker boundary
            return Failure(traceback.format_exc(), sentence(error))

    def close(self) -> None:
        """Close the environment, if there is one."""
        env, self.env = self.env, None
        if env is not None:
            env.close()

    def _build(self, _: None) -> Reply:
        if self.env is None:
            self.env = self._make()
        return 0.0, False, False, {}

    def _reset(self, argument: tuple[int, dict[str, Any] | None]) -> Reply:
        seed, options = argument
        if self.env is None:
            self.env = self._make()
        obs, info = self.env.reset(seed=seed, options=options)
        self._write(obs)
        return 0.0, False, False, info

    def _fresh(self, argument: tuple[int, dict[str, Any] | None]) -> Reply:
        with suppress(Exception, SystemExit):  # a broken environment may not close either
            self.close()
        return self._reset(argument)

    def _get_state(self, _: None) -> Reply:
        state = None if self.env is None else resume.get_state(self.env)
        return 0.0, False, False, {"state": state}

    def _set_state(self, argument: tuple[int, dict[str, Any]]) -> Reply:
        seed, state = argument
        self._reset((seed, None))
        resume.set_state(self.env, state)  # type: ignore[arg-type]
        return 0.0, False, False, {}

    def _replay(self, argument: tuple[int, list[Any]]) -> Reply:
        seed, actions = argument
        reply = self._reset((seed, None))
        for action in actions:
            reply = self.run(("step", action))  # type: ignore[assignment]
            if isinstance(reply, Failure) or reply[1] or reply[2]:
                break
        return reply

    def _render(self, _: None) -> Reply:
        return 0.0, False, False, {"value": self.env.render()}  # type: ignore[union-attr]

    def _call(self, argument: tuple[str, tuple[Any, ...], dict[str, Any]]) -> Reply:
        name, args, kwargs = argument
        value = self.env.get_wrapper_attr(name)  # type: ignore[union-attr]
        return 0.0, False, False, {"value": value(*args, **kwargs) if callable(value) else value}

    def _write(self, obs: dict[str, Any]) -> None:
        for key, buffer in self._buffers:
            buffer[self._row] = obs[key]


class SubEnvVector(EpisodicVectorEnv):
    """A vector whose environments are SubEnvs, here or in workers: they can be drawn and asked."""

    rows_are_checked = True

    def render(self) -> tuple[Any, ...]:
        """What each environment draws."""
        return self._ask("render", None)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Each environment's attribute `name`, called with the arguments if it is a method."""
        return self._ask("call", (name, args, kwargs))

    def _ask(self, kind: str, argument: Any) -> tuple[Any, ...]:
        replies = self.execute(range(self.num_envs), [(kind, argument)] * self.num_envs)
        values = []
        for i, reply in enumerate(replies):
            if isinstance(reply, Failure):
                raise EnvError(f"{kind} failed in environment {i} of {self.name}: {reply.reason}")
            values.append(reply[3]["value"])
        return tuple(values)
