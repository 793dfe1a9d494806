"""Four rooms, their precedence, what misspelt keys and bad values get, and the round trip."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldflux.errors import ConfigError
from worldflux_train.config import parse_overrides, recipes, resolve
from worldflux_train.yaml_text import read_yaml

pytestmark = pytest.mark.usefixtures("site")
CARTPOLE = "gym/CartPole-v1"


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_precedence_is_defaults_preset_file_set(tmp_path: Path) -> None:
    path = _file(tmp_path, "model: {lr: 1e-4}\ntrain: {seed: 3, envs: 2}\nenv: {size: 32}\n")
    config = resolve(
        "tiny:wide", CARTPOLE, config=path, overrides={"train.seed": 4, "env.obs": "both"}, steps=7
    )
    assert config.family.to_dict() == {"width": 32, "lr": 1e-4}  # preset, then the file
    assert (config.train.seed, config.train.envs, config.train.steps) == (4, 2, 7)
    assert config.train.round == 4  # the default
    assert config.env_options == {"size": 32, "obs": "both"}


def test_arguments_stand_above_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, "id: tiny:wide\nenv: {id: gym/Acrobot-v1}\ntrain: {steps: 9}\n")
    assert resolve(config=path).env_id == "gym/Acrobot-v1"
    config = resolve("tiny:small", CARTPOLE, config=path, steps=5)
    assert (config.id, config.env_id, config.train.steps) == ("tiny:small", CARTPOLE, 5)


def test_families_with_rooms_get_both() -> None:
    config = resolve("dreamerv3:size1m", CARTPOLE, overrides={"agent.lr": 1e-3, "model.deter": 64})
    family = config.family.to_dict()
    assert (family["agent"]["lr"], family["model"]["deter"]) == (1e-3, 64)
    assert family["model"]["hidden"] == 64  # the preset's


def test_resolved_configuration_resolves_to_itself(tmp_path: Path) -> None:
    for model in ("tiny:wide", "dreamerv3:size1m"):
        config = resolve(model, CARTPOLE, overrides={"train.seed": 9, "env.size": 48})
        assert resolve(config=_file(tmp_path, config.to_yaml())) == config


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("-2E3", -2000.0), ("3.", 3.0), (".5", 0.5), ("7", 7), ("on", True),
     ("cpu", "cpu"), ("[1, 2e-1]", [1, 0.2]), ("", None), ("a=b", "a=b"), ("1e", "1e")],
)  # fmt: skip
def test_values_of_set(text: str, value: object) -> None:
    found = parse_overrides([f"agent.x={text}"])["agent.x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"train.sed": 1}, "train has no key 'sed'. Did you mean 'seed'?"),
        ({"trian.seed": 1}, "no key 'trian'. Did you mean 'train'?"),
        ({"train.keep_last": 0}, "train.keep_last: Input should be greater than 0, got 0"),
        ({"train.precision": "fp16"}, "train.precision: Input should be 'fp32' or 'bf16'"),
        ({"model.widht": 1}, "model has no key 'widht'. Did you mean 'width'?"),
        ({"agent.lr": 1}, "'tiny' has no room agent.*, got lr. Its keys: model.width, model.lr."),
        ({"train": 3}, "train is a room of keys, such as train.name; got 3."),
    ],
)
def test_bad_keys_and_values(overrides: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve("tiny", CARTPOLE, overrides=overrides)
    assert text in str(error.value)


def test_misspelt_environment_options_get_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"walk/any has no option env\.nose\. Did you mean 'noise'"
    ):
        resolve("tiny", "walk/any", overrides={"env.nose": 1})
    assert resolve("tiny", "walk/any", overrides={"env.noise": 2}).env_options == {"noise": 2}


def test_errors_name_keys_by_room() -> None:
    with pytest.raises(ConfigError, match=r"^agent has no key 'lrr'\. Did you mean 'lr'\?"):
        resolve("dreamerv3", CARTPOLE, overrides={"agent.lrr": 1})
    with pytest.raises(ConfigError, match=r"^model\.deter: Input should be greater than 0, got -8"):
        resolve("dreamerv3", CARTPOLE, overrides={"model.deter": -8})


def test_what_is_missing_or_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="A run needs a model id"):
        resolve(env_id=CARTPOLE)
    with pytest.raises(ConfigError, match="A run needs an environment"):
        resolve("tiny")
    with pytest.raises(ConfigError, match="(?s)is not YAML: .*line 1"):
        resolve(config=_file(tmp_path, "a: [1"))
    with pytest.raises(ConfigError, match="must hold keys and values, it holds a list"):
        resolve(config=_file(tmp_path, "- 1"))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    with pytest.raises(ConfigError, match="dreamerv3-cartpol is neither a file nor a recipe. Did"):
        resolve(config="dreamerv3-cartpol")
    with pytest.raises(ConfigError, match="--set takes key=value, got 'agent.lr'"):
        parse_overrides(["agent.lr"])


def test_every_recipe_resolves() -> None:
    assert "dreamerv3-cartpole" in recipes()
    for path in recipes().values():
        assert resolve(config=path.stem) == resolve(config=path)
