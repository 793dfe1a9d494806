"""One thread of this process draws: an OpenGL context is bound to the thread that made it.

A run steps its environments in the collector's thread and makes and closes them in another. So all
that makes, uses or frees a context goes through `drawing`, whoever calls it.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
NAME = "worldflux-drawing"
_LOCK = threading.Lock()
_LIVE: list[weakref.finalize[..., Any]] = []
_ASKED: dict[int, SimpleQueue[tuple[Future[Any], Callable[[], Any]]]] = {}


def drawing(function: Callable[..., T], *args: Any) -> T:
    """`function(*args)` in the thread that draws; its error is raised here."""
    if threading.current_thread().name == NAME:
        return function(*args)
    with _LOCK:
        asked = _ASKED.get(os.getpid())  # a forked worker has none of the parent's threads
        if asked is None:
            asked = _ASKED[os.getpid()] = SimpleQueue()
            # A daemon: it still frees what is left when the process ends.
            threading.Thread(target=_draw, args=(asked,), name=NAME, daemon=True).start()
    found: Future[T] = Future()
    asked.put((found, partial(function, *args)))
    return found.result()


def freed_by_drawing(
    owner: Any, free: Callable[..., None], *args: Any
) -> weakref.finalize[..., Any]:
    """Calls `free(*args)` in that thread, once: when called, when `owner` is gone, or at exit.

    Ask for it after the context was made: at exit what was registered last comes first, and
    libraries free theirs there in whatever thread it is, and close the display that all share.
    """
    finalizer = weakref.finalize(owner, drawing, free, *args)
    finalizer.atexit = False
    with _LOCK:
        _LIVE[:] = [*(other for other in _LIVE if other.alive), finalizer]
        atexit.unregister(_free_all)
        atexit.register(_free_all)
    return finalizer


def _free_all() -> None:
    for finalizer in reversed(_LIVE):
        finalizer()


def draw_in_one_thread(env: Any) -> None:
    """Let the renderer of one of Gymnasium's MuJoCo tasks draw, and be closed, there."""
    renderer = getattr(env.unwrapped, "mujoco_renderer", None)
    if renderer is None:
        return
    draw, close = renderer.render, renderer.close
    freed: list[weakref.finalize[..., Any]] = []
    owner = weakref.ref(env.unwrapped)

    def render(*args: Any) -> Any:
        found = drawing(draw, *args)
        if not freed:
            freed.append(freed_by_drawing(owner(), close))
        return found

    renderer.render = render
    renderer.close = lambda: freed[0]() if freed else None


def _draw(asked: SimpleQueue[tuple[Future[Any], Callable[[], Any]]]) -> None:
    while True:
        found, function = asked.get()
        try:
            found.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that asked
            found.set_exception(error)
        del found, function  # nothing is kept alive until the next one comes
