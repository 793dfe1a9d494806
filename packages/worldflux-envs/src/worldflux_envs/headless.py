"""Drawing without a display: OpenGL by EGL or OSMesa, SDL by its dummy driver."""

from __future__ import annotations

import ctypes.util
import importlib
import os
import sys

from worldflux.errors import EnvError

_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
_READERS = {
    "mujoco": "mujoco.rendering.classic.gl_context",
    "dm_control._render": "dm_control._render",
}
"""The module that reads MUJOCO_GL when a package is imported; others look it up there."""


def choose_gl(*, rendering: bool, read_by: str = "mujoco") -> None:
    """Set MUJOCO_GL where nobody has and there is no display.

    The module `read_by` reads it when it is imported, so this comes first even if nothing is
    rendered yet. `rendering` lets one that was imported before read it again, and makes it an error
    if there is no way to render.
    """
    headless = sys.platform.startswith("linux") and not os.environ.get("DISPLAY")
    if headless and "pygame" not in sys.modules:
        # Gymnasium's classic control draws with SDL, which otherwise looks for a screen and
        # complains that there is none.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if not headless:
        return
    if chosen := os.environ.get("MUJOCO_GL"):
        if rendering and _read(read_by) not in (None, chosen):  # imported before it was set
            _read_again(read_by, chosen)
        return
    found = [name for name, library in _LIBRARIES.items() if ctypes.util.find_library(library)]
    if rendering and not found:
        raise EnvError(
            "Rendering without a display needs EGL or OSMesa, and neither library is here. "
            "On Debian or Ubuntu: apt-get install libegl1 (or libosmesa6)."
        )
    if found and (rendering or read_by not in sys.modules):
        os.environ["MUJOCO_GL"] = found[0]
        os.environ.setdefault("PYOPENGL_PLATFORM", found[0])
        try:
            if rendering and read_by in sys.modules:
                _read_again(read_by, found[0])
        except EnvError:
            del os.environ["MUJOCO_GL"]
            raise


def _read(package: str) -> str | None:
    """The MUJOCO_GL that an imported package goes by; None where that is not known."""
    module = sys.modules.get(_READERS.get(package, ""))
    name = "BACKEND" if package == "dm_control._render" else "_MUJOCO_GL"
    found: str | None = getattr(module, name, None)
    return found


def _read_again(package: str, kind: str) -> None:
    """Let a package that was imported without this MUJOCO_GL draw by `kind` all the same."""
    module = sys.modules.get(_READERS.get(package, ""))
    try:
        if module is None:
            raise ImportError(f"it is not known which of its modules reads MUJOCO_GL={kind}")
        importlib.reload(module)
    except (ImportError, RuntimeError) as error:
        raise EnvError(
            f"{package} was imported before a way to render without a display was chosen ({error})."
            f" Set MUJOCO_GL={kind} before the program starts, or make the environment first."
        ) from error
