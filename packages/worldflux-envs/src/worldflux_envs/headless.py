"""Drawing without a display: OpenGL by EGL or OSMesa, SDL by its dummy driver."""

from __future__ import annotations

import ctypes.util
import os
import sys

from worldflux.errors import EnvError

_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


def choose_gl(*, rendering: bool, read_by: str = "mujoco") -> None:
    """Set MUJOCO_GL where nobody has and there is no display.

    The module `read_by` reads it when it is imported, so this comes first even if nothing is
    rendered yet; `rendering` makes it an error if there is no way to render.
    """
    headless = sys.platform.startswith("linux") and not os.environ.get("DISPLAY")
    if headless and "pygame" not in sys.modules:
        # Gymnasium's classic control draws with SDL, which otherwise looks for a screen and
        # complains that there is none.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if os.environ.get("MUJOCO_GL") or not headless:
        return
    found = [name for name, library in _LIBRARIES.items() if ctypes.util.find_library(library)]
    if rendering and not found:
        raise EnvError(
            "Rendering without a display needs EGL or OSMesa, and neither library is here. "
            "On Debian or Ubuntu: apt-get install libegl1 (or libosmesa6)."
        )
    if rendering and read_by in sys.modules:
        raise EnvError(
            f"{read_by} was imported before a way to render without a display was chosen. "
            f"Set MUJOCO_GL={found[0]} before the program starts, or make the environment first."
        )
    if found and read_by not in sys.modules:
        os.environ["MUJOCO_GL"] = found[0]
        os.environ.setdefault("PYOPENGL_PLATFORM", found[0])
