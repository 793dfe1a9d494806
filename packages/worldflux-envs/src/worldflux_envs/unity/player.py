"""One Unity player (or the editor): started, reset, stepped, restarted and ended."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlagents_envs.env_utils import validate_environment_path
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.exception import (
    UnityCommunicatorStoppedException,
    UnityException,
    UnityTimeOutException,
)
from mlagents_envs.side_channel.engine_configuration_channel import EngineConfigurationChannel
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.stats_side_channel import StatsSideChannel

from worldflux.errors import EnvError
from worldflux_envs.unity.connection import Connection

EDITOR = "editor"
_TO_END = 5.0  # seconds a player has to end by itself
_FLOATS = 2**24  # environment parameters are float32, which holds integers up to this


@dataclass(frozen=True)
class Launch:
    """How to start a player; the names are ML-Agents' own where it has them."""

    path: str
    worker_id: int | None = None
    base_port: int | None = None
    timeout_wait: float = 60.0
    no_graphics: bool = False
    time_scale: float = 20.0
    width: int | None = None
    height: int | None = None
    quality_level: int | None = None
    target_frame_rate: int | None = None
    capture_frame_rate: int | None = None
    args: Sequence[str] = ()
    log_folder: str | None = None
    num_areas: int = 1
    parameters: dict[str, float] = field(default_factory=dict)
    side_channels: Callable[[], list[Any]] | None = None
    seed_parameter: str | None = "seed"
    restart: bool = False

    def ports(self) -> Sequence[int]:
        """Ports to listen on, the first that is free; 0 is any."""
        if self.path == EDITOR:
            return [self.base_port or UnityEnvironment.DEFAULT_EDITOR_PORT]
        if self.worker_id is not None:
            return [(self.base_port or UnityEnvironment.BASE_ENVIRONMENT_PORT) + self.worker_id]
        return [0] if self.base_port is None else range(self.base_port, self.base_port + 100)

    def file(self) -> str | None:
        """The executable, None for the editor."""
        if self.path == EDITOR:
            return None
        file = str(Path(self.path).expanduser().absolute())
        if validate_environment_path(file) is None:
            raise EnvError(
                f"There is no Unity player at {file}: give the path of the executable a build made "
                "(on Linux Name.x86_64, the ending may be left out), or 'unity/editor'."
            )
        return file

    def engine(self) -> dict[str, Any]:
        """The engine's parameters."""
        names = "width height quality_level time_scale target_frame_rate capture_frame_rate"
        return {name: getattr(self, name) for name in names.split()}


class _Client(UnityEnvironment):  # type: ignore[misc]
    """ML-Agents' client over our transport; leaves nothing behind, however it ends."""

    def __init__(self, launch: Launch, seed: int, channels: list[Any]) -> None:
        self._ports = launch.ports()
        try:
            super().__init__(
                launch.file(), worker_id=0 if launch.path == EDITOR else launch.worker_id or 0,
                seed=seed, no_graphics=launch.no_graphics, timeout_wait=launch.timeout_wait,
                additional_args=list(launch.args), side_channels=channels,
                log_folder=launch.log_folder, num_areas=launch.num_areas,
            )  # fmt: skip
            self.reset()  # which is when behaviours are first told
        except BaseException:
            self.end(0.0)
            raise
        atexit.unregister(self._close)
        atexit.register(self.end)

    def _get_communicator(self, worker_id: int, base_port: int, timeout_wait: float) -> Connection:
        connection = Connection(self._ports, timeout_wait)
        self._port = connection.port
        return connection

    def end(self, wait: float = _TO_END) -> None:
        """Tell the player to quit, and end it with all it started if it does not."""
        for callback in (self._close, self.end):
            atexit.unregister(callback)
        process, self._process = getattr(self, "_process", None), None
        if hasattr(self, "_communicator"):
            self._close(0)
        if process is None:
            return
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            if os.name == "posix":  # the client starts it as the leader of a group
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()


class Player:
    """A running player and its side channels; `alive` is False after a failure."""

    def __init__(self, launch: Launch, seed: int = 0) -> None:
        self.launch = launch
        self.name = Path(launch.path).name
        self._client: Any = None
        self.start(seed)

    @property
    def alive(self) -> bool:
        """Whether it can be stepped."""
        return self._client is not None

    @property
    def behaviors(self) -> dict[str, Any]:
        """The specifications by behaviour name."""
        return dict(self._client.behavior_specs)

    def start(self, seed: int) -> None:
        """Start it, again if it runs."""
        self.close()
        self.engine, self.parameters = EngineConfigurationChannel(), EnvironmentParametersChannel()
        self.stats = StatsSideChannel()
        own = self.launch.side_channels() if self.launch.side_channels else []
        self.engine.set_configuration_parameters(**self.launch.engine())
        self.set_parameters(**self.launch.parameters)
        with self._watched():
            channels = [self.engine, self.parameters, self.stats, *own]
            self._client = _Client(self.launch, seed % 2**31, channels)

    def set_parameters(self, **values: float) -> None:
        """Environment parameters, sent with the next step or reset."""
        for name, value in values.items():
            self.parameters.set_float_parameter(name, float(value))

    def reset(self, seed: int | None) -> None:
        """Begin new episodes of all agents."""
        if not self.alive or (self.launch.restart and seed is not None):
            self.start(seed or 0)
        if seed is not None and self.launch.seed_parameter:
            self.set_parameters(**{self.launch.seed_parameter: seed % _FLOATS})
        with self._watched():
            self._client.reset()

    def step(self, behavior: str, actions: Any) -> None:
        """Let it run to the next decision of any agent; None: no agent of ours decides now."""
        with self._watched():
            if actions is not None:
                self._client.set_actions(behavior, actions)
            self._client.step()

    def steps(self, behavior: str) -> tuple[Any, Any]:
        """(agents that decide now, agents whose episode has ended)."""
        return self._client.get_steps(behavior)

    def close(self) -> None:
        """End it, and wait until it has."""
        client, self._client = self._client, None
        if client is not None:
            client.end()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """ML-Agents' errors as ours; the player is over after one."""
        try:
            yield
        except UnityTimeOutException as error:
            self._give_up()
            raise EnvError(
                f"unity/{self.name} has not answered for {self.launch.timeout_wait:g} s. It may be "
                "loading (raise timeout_wait), waiting for a display (no_graphics=True), or have "
                "no agent whose Behavior Type is Default."
            ) from error
        except UnityCommunicatorStoppedException as error:
            self._give_up()
            raise EnvError(f"unity/{self.name} has quit by itself.") from error
        except (UnityException, OSError) as error:
            self._give_up()
            raise EnvError(
                f"unity/{self.name}: {error} With log_folder=... it writes why into a file."
            ) from error

    def _give_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.end(0.0)
