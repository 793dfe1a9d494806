"""The process that runs some of a vector's environments; it never outlives its parent."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from worldflux_envs.vector.base import Failure


def main() -> None:
    """Serve the parent over the descriptors on the command line: pipe, life, memory, trace."""
    pipe, life, memory, trace = (int(number) for number in sys.argv[1:5])
    _die_with_parent(life)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    faulthandler.enable(trace)
    faulthandler.register(signal.SIGUSR1, trace, all_threads=True)
    with Connection(pipe) as connection:
        try:
            subenvs = _subenvs(connection, memory)
        except Exception:  # noqa: BLE001 - the worker boundary
            connection.send(Failure(traceback.format_exc()))
            return
        connection.send(None)
        _serve(connection, subenvs)


def _die_with_parent(life: int) -> None:
    """Let the kernel end this process when the other end of `life` closes, even inside C code."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if not os.read(life, 1):  # closed before we asked to be told
            os._exit(1)
    except BlockingIOError:
        pass


def _subenvs(connection: Connection, memory: int) -> dict[int, Any]:
    sys.path[:] = connection.recv()
    from worldflux_envs.vector.buffers import attach
    from worldflux_envs.vector.subenv import SubEnv

    payload, space, num_envs, rows = connection.recv()
    make, buffers = pickle.loads(payload), attach(memory, space, num_envs)
    return {row: SubEnv(make, row, buffers) for row in rows}


def _serve(connection: Connection, subenvs: dict[int, Any]) -> None:
    while True:
        try:
            requests = connection.recv()
        except EOFError:
            return
        if requests is None:
            break
        connection.send([subenvs[row].run(command) for row, command in requests])
    for subenv in subenvs.values():
        subenv.close()


if __name__ == "__main__":
    main()
