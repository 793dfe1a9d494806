"""What an environment raises, as one sentence that says where."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldflux.errors import EnvError, WorldFluxError


def sentence(error: BaseException) -> str:
    """The kind of the error, its first line, and the file and line that raised it."""
    first = str(error).strip().partition("\n")[0]
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    if frames := traceback.extract_tb(error.__traceback__):
        text = f"{text.rstrip('.')} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    return f"{text}."


@contextmanager
def starting(name: str) -> Iterator[None]:
    """Whatever the environment `name` raises while it is made and first reset, as an `EnvError`."""
    try:
        yield
    except (WorldFluxError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # SystemExit too
        raise EnvError(f"{name} cannot be started: {sentence(error)}") from error
