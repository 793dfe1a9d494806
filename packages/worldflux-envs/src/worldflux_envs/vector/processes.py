"""Environments in worker processes, observations in shared memory: for steps that cost."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.machinery import PathFinder
from multiprocessing import Pipe
from types import ModuleType
from typing import Any

import cloudpickle
from gymnasium import spaces

from worldflux.errors import CapabilityError, EnvError
from worldflux_envs.vector.base import Command, Failure, Reply
from worldflux_envs.vector.buffers import anonymous_file, attach, layout
from worldflux_envs.vector.faults import sentence
from worldflux_envs.vector.subenv import Make, SubEnvVector

log = logging.getLogger(__name__)
# Longer than any step: making an environment, compiling it, drawing its first world.
_STARTING_SECONDS = 300.0
_CLOSING_SECONDS = 5.0
_TRACE_BYTES = 1 << 16


class NotSendableError(EnvError):
    """What makes an environment cannot be written down for another process."""


class Worker:
    """A worker process and the way to it. `rows` are the environments it runs."""

    def __init__(self, rows: Sequence[int], memory: int, start: tuple[Any, ...]) -> None:
        self.rows = rows
        self.connection, theirs = Pipe()
        # Our end of `life` closes when this process is gone; the kernel then ends the worker.
        self._life, life = socket.socketpair()
        self._trace = anonymous_file(0, "worldflux-trace")
        descriptors = (theirs.fileno(), life.fileno(), memory, self._trace)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "worldflux_envs.vector.worker", *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
        )
        theirs.close()
        life.close()
        self.connection.send(sys.path)
        self.connection.send((*start, list(rows)))
        self.ready = False

    def answer(self, deadline: float) -> Any:
        """What the worker sends, or why nothing comes: a Failure."""
        try:
            if self.connection.poll(max(0.0, deadline - time.monotonic())):
                return self.connection.recv()
        except (EOFError, ConnectionResetError):
            return Failure(self._death())
        return Failure(self._hang())

    def send(self, message: Any) -> None:
        """Send, or leave it to `answer` to find out that the worker is gone."""
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            log.debug("worker %d is gone", self.process.pid)

    def stop(self, deadline: float = 0.0) -> None:
        """End the process, by force after the deadline; nothing of it remains."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.debug("worker %d does not end by itself", self.process.pid)
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self._life.close()
        if self._trace >= 0:
            os.close(self._trace)
        self._trace = -1

    def _death(self) -> str:
        self.process.wait()
        code = self.process.returncode
        how = (
            f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        )
        return f"its worker process {self.process.pid} {how}.{self._stacks()}"

    def _hang(self) -> str:
        self.process.send_signal(signal.SIGUSR1)
        time.sleep(0.2)
        return f"its worker process {self.process.pid} did not answer in time.{self._stacks()}"

    def _stacks(self) -> str:
        """The Python stacks the worker wrote when it crashed or was asked."""
        text = os.pread(self._trace, _TRACE_BYTES, 0).decode(errors="replace").strip()
        return f"\n{text}" if text else ""


class AsyncVec(SubEnvVector):
    """`num_envs` environments in `workers` processes; one that fails is replaced."""

    def __init__(
        self,
        make: Make,
        num_envs: int,
        *,
        name: str = "environment",
        workers: int | None = None,
        timeout: float = 60.0,
        copy: bool = True,
        seed: int | None = None,
    ) -> None:
        self._workers: list[Worker] = []
        if not hasattr(signal, "SIGIO"):
            raise CapabilityError("Worker processes need a POSIX system: use mode='sync'.")
        if timeout <= 0 or (workers is not None and workers < 1):
            raise EnvError(f"timeout and workers must be positive: {timeout=}, {workers=}.")
        space, action_space, metadata, render_mode, resumes = _describe(make)
        super().__init__(
            num_envs, space, action_space, name=name, metadata=metadata, render_mode=render_mode,
            copy=copy, seed=seed,
        )  # fmt: skip
        self._keeps_actions = not resumes
        self._timeout = timeout
        sent = _by_value(make)
        self._memory = anonymous_file(max(layout(space, num_envs)[1], 1), "worldflux-obs")
        self.buffers = attach(self._memory, space, num_envs)
        self._start = (sent, space, num_envs)
        count = min(num_envs, workers or os.cpu_count() or 1)
        shares = [range(num_envs * k // count, num_envs * (k + 1) // count) for k in range(count)]
        self._workers = [Worker(rows, self._memory, self._start) for rows in shares]
        self._worker_of = [k for k, rows in enumerate(shares) for _ in rows]

    @property
    def pids(self) -> list[int]:
        """Process id of each environment's worker."""
        return [self._workers[k].process.pid for k in self._worker_of]

    def execute(self, indices: Sequence[int], commands: Sequence[Command]) -> list[Reply | Failure]:
        shares: dict[int, list[tuple[int, Command]]] = {}
        for i, command in zip(indices, commands, strict=True):
            shares.setdefault(self._worker_of[i], []).append((i, command))
        failed = {k: self._ensure_ready(k) for k in shares}
        for k, share in shares.items():
            if failed[k] is None:
                self._workers[k].send(share)
        quick = all(kind == "step" for kind, _ in commands)
        seconds = self._timeout if quick else max(self._timeout, _STARTING_SECONDS)
        deadline = time.monotonic() + seconds
        replies: dict[int, Reply | Failure] = {}
        for k, share in shares.items():
            answer = failed[k] or self._workers[k].answer(deadline)
            if isinstance(answer, Failure):
                self._replace(k)
                answer = [answer] * len(share)
            replies.update(zip((i for i, _ in share), answer, strict=True))
        return [replies[i] for i in indices]

    def problem(self) -> str | None:
        """Why a worker cannot make its environments, None if it can; makes the first one."""
        [reply] = self.execute([0], [("build", None)])
        return reply.reason if isinstance(reply, Failure) else None

    def _ensure_ready(self, k: int) -> Failure | None:
        """Wait until worker k has started; why it has not, if so."""
        worker = self._workers[k]
        if worker.ready:
            return None
        answer = worker.answer(time.monotonic() + _STARTING_SECONDS)
        worker.ready = answer is None
        return answer

    def _replace(self, k: int) -> None:
        old = self._workers[k]
        old.stop()
        self._workers[k] = Worker(old.rows, self._memory, self._start)

    def close_extras(self, **kwargs: Any) -> None:
        for worker in self._workers:
            worker.send(None)
        deadline = time.monotonic() + _CLOSING_SECONDS
        for worker in self._workers:
            worker.stop(deadline)
        if self._workers:
            self._workers = []
            os.close(self._memory)


def _by_value(make: Make) -> bytes:
    """`make` for a worker, with the code of modules that a worker could not import itself."""
    pieces = (make.func, *make.args, *make.keywords.values()) if isinstance(make, partial) else ()
    for piece in (make, *pieces):
        module = sys.modules.get(getattr(piece, "__module__", None) or "")
        if module and not _importable(module):
            cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(make)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise NotSendableError(
            f"what makes it cannot be sent to a worker process: {sentence(error)}"
        ) from error


def _importable(module: ModuleType) -> bool:
    """Whether a new process would find this very file under the module's name."""
    spec, path = None, sys.path
    parts = module.__name__.split(".")
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), path)
        if spec is None:
            return False
        path = list(spec.submodule_search_locations or ())
    return spec is not None and spec.origin == getattr(module, "__file__", None)


def _describe(make: Make) -> tuple[spaces.Dict, Any, dict[str, Any], str | None, bool]:
    """Spaces, metadata, render mode, and whether it resumes without actions, from a first one."""
    from worldflux_envs.vector.sync import resumable

    env = make()
    try:
        assert isinstance(env.observation_space, spaces.Dict), env.observation_space
        resumes = resumable(env)
        return env.observation_space, env.action_space, env.metadata, env.render_mode, resumes
    finally:
        env.close()
