"""The transport under ML-Agents' client: a gRPC server on this machine that one player calls.

In place of the client's own, which listens on every network interface, cannot let the system choose
a port, keeps the interpreter from ending while a player waits, and polls in a busy loop.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any

import grpc
import numpy as np
from mlagents_envs.communicator import Communicator
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.communicator_objects.unity_to_external_pb2_grpc import (
    UnityToExternalProtoServicer,
    add_UnityToExternalProtoServicer_to_server,
)
from mlagents_envs.exception import UnityTimeOutException

from worldflux.errors import EnvError

HOST = "127.0.0.1"
_GO, _QUIT = 200, 400
# One server to a port; images of many agents are larger than the 4 MB that gRPC allows.
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
_LOOK = 0.1  # seconds between looks at whether the player still lives


class Connection(Communicator, UnityToExternalProtoServicer):  # type: ignore[misc]
    """Messages to and from one player; `ports` are tried in turn, 0 is any free one."""

    def __init__(self, ports: Iterable[int], wait: float) -> None:
        self._wait = wait
        self._heard: queue.Queue[Any] = queue.Queue()
        self._answers: queue.Queue[Any] = queue.Queue()
        self._closed = threading.Event()
        self._server, self.port = self._listen(list(ports))

    def _listen(self, ports: list[int]) -> tuple[Any, int]:
        for port in ports:
            server = grpc.server(_Daemons(), options=_OPTIONS)
            add_UnityToExternalProtoServicer_to_server(self, server)
            try:
                bound = server.add_insecure_port(f"{HOST}:{port}")
            except RuntimeError:
                bound = 0
            if bound:
                server.start()
                return server, bound
        raise EnvError(
            f"Port {ports[0]} of this machine is in use{'' if len(ports) == 1 else ', and so on'}: "
            "another environment or a player that was left has it. Give another worker_id or "
            "base_port, or neither, so that a free port is chosen."
        )

    def Exchange(self, request: Any, context: Any) -> Any:
        """The player's call: what it has to say, answered by what it is to do next."""
        self._heard.put(request)
        return self._answers.get()

    def initialize(self, inputs: Any, poll_callback: Callable[[], None] | None = None) -> Any:
        """Greet the player: its first call is answered by `inputs`, its second waits."""
        first = self._hear(poll_callback)
        self._answer(inputs)
        self._hear(poll_callback)
        return first.unity_output

    def exchange(self, inputs: Any, poll_callback: Callable[[], None] | None = None) -> Any:
        """Answer the call that waits by `inputs`; the player's next one, None if it quits."""
        self._answer(inputs)
        message = self._hear(poll_callback)
        return message.unity_output if message.header.status == _GO else None

    def close(self) -> None:
        """Tell the player to quit and stop listening."""
        if self._closed.is_set():
            return
        self._closed.set()
        goodbye = UnityMessageProto()
        goodbye.header.status = _QUIT
        self._answers.put(goodbye)
        self._server.stop(grace=1.0).wait(2.0)

    def _answer(self, inputs: Any) -> None:
        message = UnityMessageProto()
        message.header.status = _GO
        message.unity_input.CopyFrom(inputs)
        self._answers.put(message)

    def _hear(self, poll_callback: Callable[[], None] | None) -> Any:
        deadline = time.monotonic() + self._wait
        while time.monotonic() < deadline:
            try:
                message = self._heard.get(timeout=min(_LOOK, self._wait))
            except queue.Empty:
                if poll_callback is not None:
                    poll_callback()  # raises if the player has ended
                continue
            for agents in message.unity_output.rl_output.agentInfos.values():
                for agent in agents.value:
                    for observation in agent.observations:
                        channels_last(observation)
            return message
        raise UnityTimeOutException(f"no answer within {self._wait:g} s")


class _Daemons(futures.Executor):
    """A thread per call that does not keep the interpreter from ending."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        future: futures.Future[Any] = futures.Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - the executor's contract
                future.set_exception(error)

        threading.Thread(target=run, daemon=True, name="unity-player").start()
        return future


_NO_PROPERTY, _PICTURE_AXIS = 1, 2  # DimensionPropertyProto


def channels_last(observation: Any) -> None:
    """An image (C, Y, X), as players of ML-Agents 3 send it, as the (Y, X, C) this client reads."""
    properties = list(observation.dimension_properties)
    if properties != [_NO_PROPERTY, _PICTURE_AXIS, _PICTURE_AXIS]:
        return
    channels, rows, columns = observation.shape
    observation.shape[:] = [rows, columns, channels]
    observation.dimension_properties[:] = [_PICTURE_AXIS, _PICTURE_AXIS, _NO_PROPERTY]
    if observation.WhichOneof("observation_data") == "float_data":
        data = np.array(observation.float_data.data, np.float32).reshape(channels, rows, columns)
        observation.float_data.data[:] = data.transpose(1, 2, 0).ravel().tolist()
