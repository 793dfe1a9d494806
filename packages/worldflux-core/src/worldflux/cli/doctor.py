"""`worldflux doctor`: what this machine and this environment can do."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

import typer
from packaging.requirements import Requirement

from worldflux.cli.catalogue import plugins as show_plugins
from worldflux.cli.table import show_table
from worldflux.factory import list_env_backends
from worldflux.plugins import CORE
from worldflux.plugins import plugins as plugin_manager

_RENDER = (
    "import mujoco; context = mujoco.GLContext(64, 64); context.make_current(); context.free()"
)


def doctor() -> None:
    """Report Python, torch, devices, plugins, optional dependencies and headless rendering."""
    _section("System")
    show_table(("WHAT", "FOUND"), _system())
    _section("Devices")
    show_table(("DEVICE", "FOUND"), _devices())
    _section("Plugins")
    show_plugins()
    _section("Environment backends")
    rows = [(backend.name, backend.problem or "ready") for backend in list_env_backends()]
    show_table(("BACKEND", "STATUS"), rows)
    _section("Optional dependencies")
    show_table(("EXTRA", "PACKAGE", "FOUND"), sorted(set(optional_dependencies())))
    _section("Headless rendering (MuJoCo)")
    show_table(("MUJOCO_GL", "STATUS"), _rendering())


def optional_dependencies() -> Iterator[tuple[str, str, str]]:
    """(extra, package, version or what is wrong) of every extra our distributions declare."""
    for name in sorted({CORE, *(plugin.distribution for plugin in plugin_manager().installed)}):
        distribution = metadata.distribution(name)
        for extra in distribution.metadata.get_all("Provides-Extra") or []:
            for text in distribution.requires or ():
                requirement = Requirement(text)
                marker = requirement.marker
                if requirement.name == name or marker is None or marker.evaluate({"extra": ""}):
                    continue  # an extra of extras, or needed without the extra too
                if marker.evaluate({"extra": extra}):
                    yield f"{name}[{extra}]", requirement.name, _found(requirement)


def _found(requirement: Requirement) -> str:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return "not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return version
    return f"{version}, but {requirement.specifier} is needed"


def _system() -> list[tuple[str, str]]:
    import torch

    return [
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", platform.platform()),
        ("cpu cores", str(os.cpu_count())),
        (CORE, metadata.version(CORE)),
        ("torch", torch.__version__),
        ("torch threads", str(torch.get_num_threads())),
    ]


def _devices() -> list[tuple[str, str]]:
    import torch

    found = [("cpu", "available")]
    for index in range(torch.cuda.device_count()):
        gigabytes = torch.cuda.get_device_properties(index).total_memory / 2**30
        found.append((f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {gigabytes:.0f} GiB"))
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"torch is built for CUDA {built}, no usable GPU" if built else "torch is a CPU build"
        found.append(("cuda", why))
    if torch.backends.mps.is_available():
        found.append(("mps", "available"))
    return found


def _rendering() -> list[tuple[str, str]]:
    if importlib.util.find_spec("mujoco") is None:
        return [("-", 'mujoco is not installed. Run: pip install "worldflux-envs[mujoco]"')]
    chosen = os.environ.get("MUJOCO_GL")
    return [(kind, _renders(kind)) for kind in ([chosen] if chosen else ["egl", "osmesa"])]


def _renders(kind: str) -> str:
    """Whether an offscreen context of this kind can be made, tried in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _RENDER],
            env={**os.environ, "MUJOCO_GL": kind},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode == 0:
        return "works"
    last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    return f"does not work: {last}"


def _section(title: str) -> None:
    typer.secho(f"\n{title}", bold=True, underline=True)
