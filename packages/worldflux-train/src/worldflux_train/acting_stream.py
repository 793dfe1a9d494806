"""Acting on a GPU beside learning: a CUDA stream of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class ActingStream:
    """What runs in `acting()` waits for the weights it acts with, for no update queued since.

    On one stream, an action read by the host would wait for every update that the learner has
    queued. On a device without streams (the CPU) this does nothing. Memory that `acting()` will use
    and free has to be made in it too: torch gives freed memory to the stream it was made for.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.weights_written()  # those that were there before

    def weights_written(self) -> None:
        """The acting weights were written just now, on the caller's stream."""
        if self.stream is not None:
            self._written = torch.cuda.current_stream(self.stream.device).record_event()

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Work in here goes to the stream; when this ends it is done, and others may read it."""
        if self.stream is None:
            yield
            return
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(self._written)
            yield
        self.stream.synchronize()
