"""Somebody else's files run nothing unless the caller says so; each way in is tried for real."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from worldflux.cli.app import build_app
from worldflux.errors import ConfigError
from worldflux.trust import TrustError, covers, names
from worldflux_train import api
from worldflux_train.config import recipes, resolve
from worldflux_train.trust import code_in

pytestmark = pytest.mark.usefixtures("site")
CARTPOLE = "gym/CartPole-v1"
HOSTILE = [
    ({"id": "gym/evil_module:Env"}, "env.id", "imports the module 'evil_module'", "evil_module"),
    ({"id": "gymnasium/evil.inner:Env"}, "env.id", "imports the module", "evil.inner"),
    ({"id": "dmc/os:system", "task_kwargs": {"command": "true"}}, "env.id", "module 'os'", "os"),
    ({"id": "robotics/evil_module:Env"}, "env.id", "imports the module", "evil_module"),
    ({"id": "unity/./player.x86_64"}, "env.id", "starts the program", "./player.x86_64"),
    ({"id": "unity/editor", "args": ["-x"]}, "env.args", "goes to the program's", "editor"),
    ({"id": "wm/saved", "starts": "gym/os:system"}, "env.starts", "can import that module", "os"),
    (
        {"id": CARTPOLE, "make": {"deep": ["evil_module:Env"]}},
        "env.make.deep", "can import", "evil_module",
    ),
]  # fmt: skip


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on the path that leaves a file behind when it is imported; gives that file."""
    trace = tmp_path / "was-imported"
    (tmp_path / "evil_module.py").write_text(
        f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n"
        "from gymnasium.envs.classic_control import CartPoleEnv as Env\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield trace
    sys.modules.pop("evil_module", None)


def _file(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "theirs.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("env", "key", "effect", "name"), HOSTILE, ids=lambda value: str(value)[:40]
)
def test_code_in_a_file_is_named_and_refused(
    env: dict[str, Any], key: str, effect: str, name: str, tmp_path: Path
) -> None:
    path = _file(tmp_path, {"id": "tiny", "env": env})
    with pytest.raises(TrustError) as error:
        resolve(config=path)
    assert f"{path} names code that would run on this machine:\n  {key}: " in str(error.value)
    assert effect in str(error.value)
    assert str(error.value).endswith(f"If you trust who wrote it: pass trust=({name!r},)")
    with pytest.raises(TrustError, match=r"pass trust=\('other', "):
        resolve(config=path, trust=("other",))
    assert resolve(config=path, trust=(name,)).env_id == env["id"]


def test_a_package_covers_its_modules_and_nothing_beside_it() -> None:
    assert covers(("a",), "a") and covers(("x", "a"), "a.b.c") and covers(("a.b",), "a.b")
    assert not covers((), "a") and not covers(("a.b",), "a") and not covers(("a",), "ab")


@pytest.mark.parametrize("wrong", [True, "my_parts", ("",), (3,), ("my_parts:Encoder",)])
def test_trust_is_a_tuple_of_modules(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"^trust (is a tuple of the|names) modules"):
        names(wrong)


def test_a_configuration_does_not_speak_for_itself(tmp_path: Path) -> None:
    """An option `trust` in a file, however deep, and a class whose options the caller typed."""
    for env in (
        {"id": "wm/saved", "trust": ["evil_module"]},
        {"id": "wm/saved", "starts": {"id": "wm/other", "trust": ["evil_module"]}},
    ):
        with pytest.raises(ConfigError, match=r"env\.trust is no key .* --trust MODULE"):
            resolve(config=_file(tmp_path, {"id": "tiny", "env": env}))
    slots = {"observation_encoder": {"class": "evil_module:Encoder", "depth": 1}}
    path = _file(tmp_path, {"id": "tiny", "env": {"id": CARTPOLE}, "slots": slots})
    with pytest.raises(TrustError, match=r"slots\.observation_encoder: evil_module:Encoder"):
        resolve(config=path, overrides={"slots.observation_encoder.depth": 2})
    own = {"slots.observation_encoder": {"class": "mine:Encoder"}}
    assert resolve(config=path, overrides=own).slots["observation_encoder"]["class"][:4] == "mine"


def test_what_the_caller_says_is_the_callers_word(tmp_path: Path) -> None:
    path = _file(tmp_path, {"id": "tiny", "env": {"id": "gym/evil_module:Env"}})
    assert resolve(config=path, env_id=CARTPOLE).env_id == CARTPOLE  # theirs is not used
    assert resolve(config=path, overrides={"env.id": "gym/a:B"}).env_id == "gym/a:B"
    assert resolve("tiny", "gym/a:B").env_id == "gym/a:B"
    assert resolve(config={"id": "tiny", "env": {"id": "gym/a:B"}}).env_id == "gym/a:B"
    path = _file(tmp_path, {"id": "tiny", "env": {"id": CARTPOLE, "wrapped": "a:B"}})
    with pytest.raises(TrustError, match=r"env\.wrapped"):
        resolve(config=path, env_id=CARTPOLE)  # another key is still theirs


def test_plain_configurations_hold_no_code() -> None:
    for path in recipes().values():
        assert not code_in(yaml.safe_load(path.read_text()))
    plain = {"id": "tiny:wide", "env": {"id": "mujoco/<mujoco a:b='1'/>", "note": "front: left"}}
    assert not code_in(plain)


def test_rooms_that_name_classes_are_looked_at() -> None:
    for spelled in ("evil_module:Encoder", "evil_module.Encoder", {"class": "evil_module.Encoder"}):
        [found] = code_in({"slots": {"observation_encoder": spelled}})
        assert (found.key, found.name) == ("slots.observation_encoder", "evil_module")
    assert not code_in({"data": {"path": "clips:v2", "validation": "more/clips:v3"}})  # folders
    [found] = code_in({"data": {"format": "evil_module:Reader"}})
    assert found.key == "data.format"


def _says(*arguments: object) -> str:
    result = CliRunner().invoke(build_app(), [str(a) for a in arguments])
    assert isinstance(result.exception, TrustError), (result.exception, result.output)
    return str(result.exception)


def test_no_command_runs_code_from_a_file(evil: Path, tmp_path: Path) -> None:
    """train --config, --resume, eval, imagine and compare refuse; report only shows."""
    path = _file(tmp_path, {"id": "tiny", "env": {"id": "gym/evil_module:Env"}})
    command = f"worldflux train --steps 20 --config {path} --trust evil_module"
    assert _says("train", "--config", path, "--steps", 20).endswith(f": {command}")
    other = _file(tmp_path, {"env": {"x": "evil_module:Env"}})
    where = ["--env", CARTPOLE, "--steps", 20, "--out", tmp_path / "cmp"]
    said = _says("compare", "tiny", *where, "--config", f"tiny={other}")
    assert "worldflux compare tiny " in said and f" --env {CARTPOLE} " in said
    assert said.endswith(" --trust evil_module")

    run = tmp_path / "run"
    quick = {"train.steps": 20, "train.eval_episodes": 1, "train.replay_capacity": 100}
    api.train(resolve("tiny", CARTPOLE, overrides=quick), run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(CARTPOLE, "gym/evil_module:Env"))
    assert _says("train", "--resume", run).endswith(
        f"worldflux train --resume {run} --trust evil_module"
    )
    assert _says("eval", run, "--episodes", 1).endswith(
        f"eval {run} --episodes 1 --trust evil_module"
    )
    assert _says("imagine", run).endswith(f"worldflux imagine {run} --trust evil_module")
    result = CliRunner().invoke(build_app(), ["report", str(run)], catch_exceptions=False)
    assert result.exit_code == 0
    assert not evil.exists()

    other = ["--trust", "another", "--changed-config"]
    said = _says("eval", run, *other)
    assert said.endswith(f"eval {run} --trust another --changed-config --trust evil_module")
    assert not evil.exists()
    api.evaluate_run(run, episodes=1, trust=("evil_module",), changed=True)  # the caller's word
    assert evil.exists()


def test_a_run_on_another_device_says_how(tmp_path: Path) -> None:
    run = tmp_path / "run"
    quick = {"train.steps": 20, "train.eval_episodes": 1, "train.replay_capacity": 100}
    api.train(resolve("tiny", CARTPOLE, overrides={**quick, "train.device": "cpu"}), run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("device: cpu", "device: cuda"))
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(Exception, match="--device cpu"):
            api.evaluate_run(run, episodes=1)
    assert CliRunner().invoke(build_app(), ["eval", str(run), "--device", "cpu"]).exit_code == 0
    assert api.imagine_run(run, device="cpu", horizon=2, context=1, episodes=1)[1].is_file()
    assert api.resume(run, steps=30, device="cpu").step >= 30
