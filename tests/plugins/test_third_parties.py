"""What other people's distributions add: backends, families without an agent, subcommands."""

from __future__ import annotations

from typing import Any

import pytest

BACKEND = """
import gymnasium
from worldflux.hookspecs import hookimpl
from worldflux.specs import EnvSpec

@hookimpl
def worldflux_envs():
    return [
        EnvSpec("ready", make="arena:make", description="two doors", options={"doors": "how many"}),
        EnvSpec("lacking", "arena:make", requires=("math", "no.such"), install="pip install it"),
        EnvSpec("silent", make="arena:make", requires=("no_such", "nor_this")),
    ]

def make(task, doors=2):
    env = gymnasium.make("CartPole-v1")
    space = gymnasium.spaces.Dict(state=env.observation_space)
    return gymnasium.wrappers.TransformObservation(env, lambda obs: {"state": obs}, space)
"""
NAMES = {name: "arena" for name in ("ready", "lacking", "silent")}


@pytest.fixture
def arena(site: Any) -> Any:
    site.install("worldflux-arena", {"worldflux.envs": NAMES | {"bad": "bad_arena"}}, {
        "arena.py": BACKEND, "bad_arena.py": "raise RuntimeError('at import')",
    })  # fmt: skip
    return site


def test_backends_say_why_they_cannot_be_used(arena: Any) -> None:
    lines = arena.python("""
        import worldflux
        for backend in worldflux.list_env_backends():
            print(backend.name, backend.problem, sep=": ")
        """).splitlines()
    assert "ready: None" in lines
    assert "lacking: no.such is not installed. Run: pip install it" in lines
    assert "silent: no_such, nor_this is not installed." in lines
    assert any(line.startswith("bad: Plugin 'bad' of worldflux-arena 1.0") for line in lines)


def test_making_what_lacks_a_package_says_how_to_get_it(arena: Any) -> None:
    report = arena.python("""
        import worldflux
        try:
            worldflux.make_env("lacking/task")
        except worldflux.WorldFluxError as error:
            print(type(error).__name__, error)
        """)
    assert report == (
        "EnvError lacking/task cannot be made: no.such is not installed. Run: pip install it"
    )


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_backend_that_only_makes_one_is_vectorised(arena: Any, mode: str) -> None:
    shape, reset = arena.python(f"""
        import worldflux
        if __name__ == "__main__":
            envs = worldflux.make_vec_env("ready/task", 2, mode={mode!r}, doors=3)
            print(envs.reset(seed=0)[0]["state"].shape)
            print(envs.metadata["autoreset_mode"])
            envs.close()
        """).splitlines()
    assert (shape, reset) == ("(2, 4)", "AutoresetMode.NEXT_STEP")


def test_an_unknown_mode_is_refused(arena: Any) -> None:
    done = arena.run("-c", "import worldflux; worldflux.make_vec_env('ready/x', 1, mode='fast')")
    assert "EnvError: mode='fast' is not one of auto, sync, async, native." in done.stderr


def test_a_family_without_an_agent_says_so(site: Any) -> None:
    site.family("worldflux-quiet", "quiet")
    done = site.run("-c", "import worldflux; worldflux.create_agent('quiet')")
    assert "CapabilityError: 'quiet' has no agent; use create_world_model." in done.stderr


COMMAND = """
from worldflux.errors import StorageError
from worldflux.hookspecs import hookimpl
@hookimpl
def worldflux_cli(app):
    @app.command()
    def greet(name: str):
        if name == "nobody":
            raise StorageError("There is nobody.")
        print("hello", name)
"""
RAISES = "from worldflux.hookspecs import hookimpl\n@hookimpl\ndef worldflux_cli(app): 1 / 0"


@pytest.fixture
def greeter(site: Any) -> Any:
    group = "worldflux.plugins"
    site.install("worldflux-greet", {group: {"greet": "greeter"}}, {"greeter.py": COMMAND})
    site.install("worldflux-bad", {group: {"bad": "bad_cli"}}, {"bad_cli.py": RAISES})
    return site


def test_a_plugin_adds_a_subcommand_beside_a_broken_one(greeter: Any) -> None:
    done = greeter.cli("greet", "Ada", WORLDFLUX_PLUGINS="greet,bad")
    assert (done.returncode, done.stdout) == (0, "hello Ada\n")
    assert done.stderr.startswith("Plugin 'bad' of worldflux-bad 1.0 (bad_cli) cannot be loaded: ")
    assert done.stderr.count("\n") == 1


def test_an_error_of_ours_is_one_message_and_exit_code_2(greeter: Any) -> None:
    done = greeter.cli("greet", "nobody", WORLDFLUX_PLUGINS="greet")
    assert (done.returncode, done.stderr) == (2, "Error: There is nobody.\n")
