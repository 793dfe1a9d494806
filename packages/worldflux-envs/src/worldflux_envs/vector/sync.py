"""Environments one after the other in this process: fastest where a step is cheap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
from gymnasium import spaces

from worldflux_envs.vector.base import Command, Failure, Reply
from worldflux_envs.vector.buffers import plain
from worldflux_envs.vector.subenv import Make, SubEnv, SubEnvVector


class SyncVec(SubEnvVector):
    """`num_envs` environments in this process; `first`, if given, is used as the first one."""

    _subenvs: Sequence[SubEnv] = ()

    def __init__(
        self,
        make: Make,
        num_envs: int,
        *,
        name: str = "environment",
        first: gymnasium.Env[Any, Any] | None = None,
        copy: bool = True,
        seed: int | None = None,
    ) -> None:
        first = make() if first is None else first
        space = first.observation_space
        assert isinstance(space, spaces.Dict), space
        super().__init__(
            num_envs, space, first.action_space, name=name, metadata=first.metadata,
            render_mode=first.render_mode, copy=copy, seed=seed,
        )  # fmt: skip
        self.buffers = plain(space, num_envs)
        envs = [first] + [make() for _ in range(num_envs - 1)]
        self._subenvs = [SubEnv(make, i, self.buffers, env) for i, env in enumerate(envs)]
        self._keeps_actions = not resumable(first)

    @property
    def envs(self) -> list[gymnasium.Env[Any, Any] | None]:
        """The environments."""
        return [subenv.env for subenv in self._subenvs]

    def execute(self, indices: Sequence[int], commands: Sequence[Command]) -> list[Reply | Failure]:
        subenvs = self._subenvs
        return [subenvs[i].run(c) for i, c in zip(indices, commands, strict=True)]

    def close_extras(self, **kwargs: Any) -> None:
        for subenv in self._subenvs:
            subenv.close()


def resumable(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether a running episode of `env` can be saved without its actions."""
    from worldflux_envs.resume import get_state

    env.reset(seed=0)
    return get_state(env) is not None
