"""Four rooms, their precedence, what misspelt keys and bad values get, and the round trip."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldflux.errors import ConfigError
from worldflux.yaml_text import read_yaml
from worldflux_train.config import recipes, resolve
from worldflux_train.nested import parse_overrides

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


def test_no_value_replaces_another_in_silence() -> None:
    with pytest.raises(ConfigError, match=r"--set agent\.lr=\.\.\. is given twice"):
        parse_overrides(["agent.lr=1", "agent.lr=2"])
    with pytest.raises(ConfigError, match=r"train\.seed is set twice, once as 'seed'"):
        resolve("tiny", CARTPOLE, overrides={"train.seed": 1, "seed": 2})


def test_every_recipe_resolves() -> None:
    assert "dreamerv3-cartpole" in recipes()
    for path in recipes().values():
        given = {} if "env:" in path.read_text() else {"data.path": "recorded"}
        assert resolve(config=path.stem, overrides=given) == resolve(config=path, overrides=given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "agent: {lr: .inf}",
            "agent.lr: Input should be a finite number, got inf. It is: Learning",
        ),
        ("agent: {lr: .nan}", "agent.lr: Input should be"),
        ("agent: {lr: 1e400}", "line 1: 1e400 is beyond the largest number"),
        ("agent: {lr: true}", "agent: Value error, lr is a number, got true"),
        ("agent: {length: 1}", "agent.length: Input should be greater than or equal to 2, got 1."),
        ("agent: {context: 1000}", "context=1000 is more than length=64"),
        ("model: {bins: 1}", "model.bins: Input should be greater than or equal to 3"),
        ("model: {classes: 1}", "model.classes=1: a categorical latent needs at least 2"),
        ("train: {steps: yes}", "train: Value error, steps is a number, got true"),
        ("train: {device: meta}", "train.device: String should match pattern"),
        ("env: {max_episode_steps: 0}", "env.max_episode_steps is at least 1, got 0"),
        ("env: {max_episode_steps: -1}", "env.max_episode_steps is at least 1, got -1"),
        ("env: {size: 0}", "env.size is at least 1, got 0"),
        ("env: {size: [64, 0]}", "env.size is at least 1, got [64, 0]"),
        ("env: {frame_stack: true}", "env.frame_stack is at least 1, got True"),
    ],
)
def test_values_out_of_range_say_the_range_and_what_the_key_is(
    text: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        resolve("dreamerv3:size1m", CARTPOLE, config=_file(tmp_path, text))
    assert said in str(error.value)


_BOMB = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else '1'] * 9)}]\n" for i in range(9))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train:\n  seed: 1\n  seed: 2", "line 3: 'seed' stands here and in line 2: keep one"),
        ("train: {seed: 1:30}", "1:30 would be read in base 60, as 90: quote it"),
        ("agent: {lr: 1:30.5}", "1:30.5 would be read in base 60, as 90.5: quote it"),
        ("train: {seed: 010}", "010 would be read in base 8, as 8: quote it"),
        ("1: 2", "line 1: the key 1 is no text: quote it"),
        ("env: {on: 1}", "the key on is no text"),
        ("{[1, 2]: 3}", "the key a list or mapping is no text"),
        ("env: {x: 2024-13-45}", "holds a value that cannot be read: month must be in"),
        ("[" * 60 + "]" * 60, "is nested more than 50 deep"),
        ("[" * 5000 + "]" * 5000, "is nested more than 50 deep"),
        ("env: &e {x: *e}", "is nested more than 50 deep"),
        (f"{_BOMB}env:\n  size: *a8\n", "values once its aliases (*name) are written out"),
        ("a: &a {x: 1}\nb: &b {<<: *a, <<: *a}", "'<<' stands here and in line 2"),
        ("a: &a {x: 1}\nb: &b {<<: [*a, *a]}", "<< takes one mapping"),
    ],
)
def test_yaml_that_is_easily_misread_or_hostile(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        resolve("dreamerv3:size1m", CARTPOLE, config=_file(tmp_path, text))
    assert said in str(error.value)
    assert len(str(error.value)) < 1000


def test_yaml_that_is_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("id: tiny # ä".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8 text: byte 11 is 0xe4. Save it as UTF-8"):
        read_yaml(path)


def test_merging_one_mapping_and_quoted_keys_are_fine(tmp_path: Path) -> None:
    text = "base: &b {x: 1}\nother: {<<: *b, y: 2}\n'on': '1:30'\n"
    found = read_yaml(_file(tmp_path, text))
    assert found == {"base": {"x": 1}, "other": {"x": 1, "y": 2}, "on": "1:30"}


def test_what_is_refused_is_shown_shortly() -> None:
    with pytest.raises(ConfigError) as error:
        resolve("tiny", CARTPOLE, overrides={"model.width": list(range(10**6))})
    assert len(str(error.value)) < 500


def test_sizes_that_cannot_be_allocated_name_their_keys() -> None:
    import torch

    from worldflux.specs import TensorSpec
    from worldflux_train.assembly import make_agent, make_replay

    spaces = {"state": TensorSpec((4,))}, {"action": TensorSpec((), "int64", n=2)}
    cpu = torch.device("cpu")
    for width in (10**15, 10**19):
        config = resolve("tiny", CARTPOLE, overrides={"model.width": width})
        with pytest.raises(ConfigError, match=rf"does not fit into memory .*width={width}"):
            make_agent(config, *spaces, cpu)
    agent = make_agent(resolve("tiny", CARTPOLE), *spaces, cpu)
    for capacity in (10**15, 10**18):
        train = resolve("tiny", CARTPOLE, overrides={"train.replay_capacity": capacity}).train
        with pytest.raises(ConfigError, match=r"cannot be had .*Lower train\.replay_capacity, or"):
            make_replay(agent, train, cpu, Path("unused"))


def test_many_environments_say_what_is_being_done(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worldflux_train import assembly

    monkeypatch.setattr(assembly, "MANY_ENVS", 2)
    with caplog.at_level("INFO", "worldflux_train"):
        assembly.make_envs(resolve("tiny", CARTPOLE), 2).close()
    assert "making 2 environments of gym/CartPole-v1" in caplog.text


def test_a_key_that_one_room_alone_has_needs_no_room() -> None:
    assert resolve("dreamerv3", CARTPOLE, overrides={"lr": 1e-3}).family.agent.lr == 1e-3
    assert resolve("dreamerv3", CARTPOLE, overrides={"deter": 64}).family.model.deter == 64
    assert resolve("tiny", CARTPOLE, overrides={"width": 5}).family.width == 5
    assert resolve("tiny", CARTPOLE, overrides={"seed": 5}).train.seed == 5
    config = resolve("ring", CARTPOLE, overrides={"agent.lr": 1e-3, "units": 9})  # as new-plugin's
    assert (config.family.agent.lr, config.family.model.units) == (1e-3, 9)
    config = resolve(config={"id": "tdmpc2", "env": {"id": CARTPOLE}}, overrides={"lr": 1e-3})
    assert config.family.agent.lr == 1e-3


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("learning_rate", "no key 'learning_rate'. Did you mean 'agent.lr'?"),
        ("agent.learning_rate", "agent has no key 'learning_rate'. Did you mean 'lr'?"),
        ("num_envs", "no key 'num_envs'. Did you mean 'train.envs'?"),
        ("detr", "no key 'detr'. Did you mean 'model.deter'?"),
    ],
)
def test_keys_by_other_names_get_ours(key: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve("dreamerv3", CARTPOLE, overrides={key: 1})
    assert said in str(error.value)


def test_a_task_without_its_backend_gets_it() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'gym/CartPole-v1'\?"):
        resolve("tiny", "CartPole-v1")
