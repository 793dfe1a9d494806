"""`worldflux doctor`: what this machine and this environment can do, and a verdict."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

import typer

from worldflux.cli.catalogue import status_of
from worldflux.cli.table import show_table
from worldflux.factory import EnvBackend, list_env_backends
from worldflux.plugins import CORE, Plugin
from worldflux.plugins import plugins as plugin_manager

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_RENDER = (
    "import mujoco; context = mujoco.GLContext(64, 64); context.make_current(); context.free()"
)
_PATIENCE = 60.0  # seconds


def doctor() -> None:
    """Report Python, torch, devices, plugins, environments, rendering; end with a verdict."""
    tried = _try_rendering()  # in processes of their own, while the rest is looked at
    _section("System (importing torch)")
    show_table(("WHAT", "FOUND"), _system())
    _section("Devices")
    show_table(("DEVICE", "FOUND"), _devices())
    _section("Plugins")
    broken = _plugins()
    _section("Environment backends")
    backends = list_env_backends()
    rows = [(backend.name, backend.problem or "ready") for backend in backends]
    show_table(("BACKEND", "STATUS"), rows)
    _section("Optional dependencies")
    show_table(("PACKAGE", "FOUND", "FOR"), _grouped(optional_dependencies()))
    _section(f"Headless rendering, MuJoCo (at most {_PATIENCE:.0f} seconds)")
    show_table(("MUJOCO_GL", "STATUS"), _rendering(tried))
    _section("Verdict")
    for line in _verdict(broken, backends):
        typer.echo(line)
    if broken:
        raise typer.Exit(1)


def optional_dependencies() -> Iterator[tuple[str, str, str]]:
    """(extra, package, version or what is wrong) of every extra our distributions declare."""
    from packaging.requirements import Requirement

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


def _grouped(found: Iterator[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """One row for each package: what is found of it, and every extra that asks for it."""
    extras: dict[tuple[str, str], list[str]] = {}
    for extra, package, version in found:
        extras.setdefault((package, version), []).append(extra)
    return [(*key, ", ".join(sorted(set(names)))) for key, names in sorted(extras.items())]


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


def _plugins() -> list[str]:
    """One row for each plugin module; gives the names of those that are broken."""
    manager, broken = plugin_manager(), []
    names: dict[str, list[Plugin]] = {}
    for plugin in manager.installed:
        names.setdefault(plugin.key, []).append(plugin)
    rows = []
    for found in names.values():
        first, status = found[0], [status_of(plugin) for plugin in found]
        word = "broken" if "broken" in status else "ok"
        broken += [first.module] if word == "broken" else []
        owner = f"{first.distribution} {first.version}"
        rows.append((owner, first.module, word, " ".join(dict.fromkeys(p.name for p in found))))
    show_table(("DISTRIBUTION", "MODULE", "STATUS", "PROVIDES"), sorted(rows))
    for report in dict.fromkeys(manager.failures.values()):
        typer.echo(f"\n{report}")
    return broken


def _try_rendering() -> dict[str, subprocess.Popen[str]]:
    """An offscreen context of each kind, tried in a process of its own."""
    if importlib.util.find_spec("mujoco") is None:
        return {}
    chosen = os.environ.get("MUJOCO_GL")
    return {
        kind: subprocess.Popen(
            [sys.executable, "-c", _RENDER],
            env={**os.environ, "MUJOCO_GL": kind},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for kind in ([chosen] if chosen else ["egl", "osmesa"])
    }


def _rendering(tried: dict[str, subprocess.Popen[str]]) -> list[tuple[str, str]]:
    if not tried:
        return [("-", 'mujoco is not installed. Run: pip install "worldflux-envs[mujoco]"')]
    return [(kind, _outcome(process)) for kind, process in tried.items()]


def _outcome(process: subprocess.Popen[str]) -> str:
    try:
        said = process.communicate(timeout=_PATIENCE)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "hangs"
    if process.returncode == 0:
        return "works"
    last = (said.strip() or f"exit status {process.returncode}").splitlines()[-1]
    return f"does not work: {last}"


def _verdict(broken: list[str], backends: list[EnvBackend]) -> list[str]:
    """What can be done here, in a few lines."""
    families = len({plugin.name for plugin in plugin_manager().group("worldflux.models")})
    ready = sum(backend.problem is None for backend in backends)
    lines = [
        f"{families} model families and {ready} of {len(backends)} environment backends are ready."
    ]
    if broken:
        lines.append(f"Broken: {', '.join(broken)}. The tracebacks stand under Plugins.")
    elif families and ready:
        lines.append("Nothing is broken: worldflux train can be used.")
    else:
        lacking = "a model family, such as worldflux-dreamer" if not families else "a backend"
        lines.append(f"Nothing is broken, but training needs {lacking}.")
    return lines


def _section(title: str) -> None:
    typer.secho(f"\n{title}", bold=True, underline=True)
