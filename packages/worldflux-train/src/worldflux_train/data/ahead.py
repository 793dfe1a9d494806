"""Reads the next batch while the learner works on this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from worldflux.core.batch import Batch
from worldflux.core.source import Segments, Source
from worldflux.training import LeastSampled, Phase
from worldflux_train.data.around import SourceAround


class ReadAhead(SourceAround):
    """An unchanging source that reads the following update's batch in a thread of its own.

    What is chosen follows from the update alone, so the batches are the same as without. A phase
    whose choice has a memory (`LeastSampled`) is not read ahead, and neither are parts of what
    was chosen.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._pool = ThreadPoolExecutor(1, "read ahead")
        self._chosen: Segments | None = None
        self._waiting: dict[str, tuple[Segments, Future[Batch]]] = {}

    def choose(self, phase: Phase, update: int) -> Segments:
        self._chosen = self.source.choose(phase, update)
        return self._chosen

    def read(self, segments: Segments) -> Batch:
        batch = self.taken(segments)
        if segments is self._chosen and chosen_alike(segments.phase):
            self.prepare(self.source.choose(segments.phase, segments.update + 1))
        return batch

    def taken(self, segments: Segments) -> Batch:
        """The Batch (B, T, ...) of segments, which may have been read before; nothing follows."""
        expected, future = self._waiting.pop(segments.phase.name, (None, None))
        if expected is not None and future is not None and expected.same_as(segments):
            return future.result()
        return self.source.read(segments)

    def prepare(self, segments: Segments) -> None:
        """Begin to read these segments, which will be asked for next in their phase."""
        following = self._pool.submit(self.source.read, segments)
        self._waiting[segments.phase.name] = (segments, following)

    def close(self) -> None:
        """Stop reading ahead."""
        self._pool.shutdown(cancel_futures=True)


def chosen_alike(phase: Phase) -> bool:
    """Whether what an update is made of does not depend on what was chosen before."""
    return not isinstance(phase.weights, LeastSampled)
