"""What a run says: everything into `run.log`, what its user should know onto the console."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler

from worldflux import distributed
from worldflux.atomic import not_written
from worldflux.runs import Run

LOGGED = ("worldflux", "worldflux_train", "worldflux_envs")
OURS = "worldflux_train"


@contextmanager
def logged(run: Run, console: Console | None, packages: Iterable[str] = ()) -> Iterator[None]:
    """Inside `with`, messages of our packages and `packages` go to the run's log and `console`."""
    if distributed.rank():  # rank 0 says what there is to say
        yield
        return
    try:
        handlers: list[logging.Handler] = [logging.FileHandler(run.log_path, encoding="utf-8")]
    except OSError as error:  # a read-only file system, say
        raise not_written(run.log_path, error) from error
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handlers[0].setFormatter(form)
    if console is not None:
        handlers.append(_shown(console))
    loggers = [logging.getLogger(name) for name in dict.fromkeys([*LOGGED, *packages])]
    before = [found.level for found in loggers]
    for found in loggers:
        found.setLevel(logging.INFO)
        for handler in handlers:
            found.addHandler(handler)
    try:
        yield
    except BaseException as error:
        logging.getLogger(__name__).error("the run stopped: %s: %s", type(error).__name__, error)
        raise
    finally:
        for found, level in zip(loggers, before, strict=True):
            found.setLevel(level)
            for handler in handlers:
                found.removeHandler(handler)
        for handler in handlers:
            handler.close()


def _shown(console: Console) -> RichHandler:
    handler = RichHandler(
        console=console, show_time=False, show_level=False, show_path=False, markup=False
    )
    handler.addFilter(_worth_showing)
    return handler


def _worth_showing(record: logging.LogRecord) -> bool:
    """Warnings, and what the loop itself says; errors are shown by whoever catches them."""
    if record.levelno >= logging.ERROR:
        return False
    return record.levelno >= logging.WARNING or record.name.startswith(OURS)
