"""The project's commands: `nox -s train tests learning lint types packaging docs bench`.

Every session but `lint` makes its own virtual environment with pip and installs the packages of
this checkout, so that nothing a developer has lying around hides a missing step. Where torch is
not installed yet, the constraints file pins the version development uses.
"""

from __future__ import annotations

import os
import pathlib
import shutil

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests"]

ROOT = pathlib.Path(__file__).parent
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
TEST_TOOLS = [
    "pytest>=8", "pytest-timeout", "pytest-xdist", "hypothesis", "hatchling", "editables", "build",
    "httpx",
]  # fmt: skip
TWO_AT_ONCE = ["-n", "2", "--dist", "loadfile"]  # what two cores take; a file's tests stay together
TYPE_TOOLS = ["mypy", "pyright", "types-PyYAML"]
# Two threads on two shared cores wait for each other more than they compute.
THREADS = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def install(session: nox.Session, *extra: str, extras: str = "", data: str = "[data]") -> None:
    """Install this checkout's packages, editable, under the constraints.

    `extras` are those of the environments, `data` those of training.
    """
    wanted: list[str] = []
    suffixes = {"worldflux-envs": extras, "worldflux-train": data}
    for name in PACKAGES:
        wanted += ["-e", f"packages/{name}{suffixes.get(name, '')}"]
    wanted += ["-e", "examples/worldflux-ring"]
    session.install("-q", "-c", "constraints.txt", *wanted, *extra)


@nox.session
def train(session: nox.Session) -> None:
    """Set up and run the main job: DreamerV3 learns CartPole and writes its report."""
    install(session, extras="[gym]", data="")
    session.run(
        "worldflux",
        "train",
        "dreamerv3:size1m",
        "--env",
        "gym/CartPole-v1",
        "--config",
        "dreamerv3-cartpole",
        *session.posargs,
    )


@nox.session
def tests(session: nox.Session) -> None:
    """Set up and pass the default tests (without learning and other slow ones)."""
    install(session, *TEST_TOOLS, extras="[all,sb3]", data="[data,tensorboard]")
    chosen = session.posargs or ["tests", "examples"]
    session.run("pytest", "-q", *TWO_AT_ONCE, *chosen, env=THREADS)


@nox.session
def learning(session: nox.Session) -> None:
    """The slow tests: learning runs on three seeds, long fault tests."""
    install(session, *TEST_TOOLS, extras="[all,sb3]", data="[data,tensorboard]")
    elsewhere = ["--ignore=tests/packaging", "--ignore=tests/docs"]
    session.run("pytest", "-m", "slow", *(session.posargs or ["tests", *elsewhere]), env=THREADS)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting and lint rules."""
    session.install("-q", "-c", "constraints.txt", "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Static types, strict: of the packages, and of all code in the documentation."""
    install(session, *TEST_TOOLS, *TYPE_TOOLS, extras="[gym,sb3]")
    paths = [f"packages/{name}/src" for name in PACKAGES]
    session.run("mypy", *paths)
    session.run("pytest", "-q", "-m", "slow or not slow", "tests/docs/test_block_types.py")


@nox.session
def packaging(session: nox.Session) -> None:
    """Build every wheel and install each alone beside core, in an environment of its own."""
    install(session, *TEST_TOOLS)
    session.run(
        "pytest", "-m", "slow or not slow", "tests/packaging", *session.posargs, env=THREADS
    )


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation and run every code block in it."""
    tools = [*TEST_TOOLS, "nox", "sphinx>=8,<9.1", "myst-parser", "furo"]
    install(session, *tools, extras="[gym,sb3]")
    shutil.rmtree(ROOT / "build" / "docs", ignore_errors=True)
    session.run("sphinx-build", "-q", "-W", "-b", "html", "docs", "build/docs")
    tests = ["tests/docs", "--ignore=tests/docs/test_block_types.py"]  # that one is in `types`
    session.run("pytest", "-m", "slow or not slow", *tests, *session.posargs, env=THREADS)


@nox.session
def browser(session: nox.Session) -> None:
    """The page of worldflux-play in Chromium (apt-get install chromium), driven by Playwright."""
    install(session, *TEST_TOOLS, "playwright", extras="[gym]", data="")
    session.run("pytest", "-m", "slow or not slow", "tests/play/browser", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed; prints a table and writes build/bench.json."""
    install(session, extras="[all]")
    session.run("python", "-m", "benchmarks", *session.posargs)
