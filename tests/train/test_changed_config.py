"""A run's config.yaml that was changed since its checkpoints: said, and used only if asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worldflux.atomic import read_json, write_json
from worldflux.errors import ConfigError, StorageError
from worldflux.runs import Run
from worldflux_train import api
from worldflux_train.changed_config import differences
from worldflux_train.cli import add_commands


@pytest.fixture
def run(tiny: Any, tmp_path: Path) -> Run:
    return api.train(tiny(overrides={"train.steps": 30}), tmp_path / "run").run


def change(run: Run, old: str, new: str) -> None:
    text = run.config_path.read_text()
    assert text.count(old) == 1, text
    run.config_path.write_text(text.replace(old, new))


def test_a_flipped_digit_stops_every_command(run: Run) -> None:
    change(run, "lr: 0.003", "lr: 0.303")
    for use in (api.resume, api.load_agent, api.evaluate_run, api.imagine_run):
        with pytest.raises(ConfigError) as caught:
            use(run.path)
        assert "lr: 0.003 in the checkpoint, 0.303 now" in str(caught.value)
        assert str(run.config_path) in str(caught.value) and "--changed-config" in str(caught.value)


def test_the_callers_word_goes_on_and_later_checkpoints_have_the_new_values(run: Run) -> None:
    change(run, "lr: 0.003", "lr: 0.303")
    config, _ = api.load_run(run.path, changed=True)
    assert "lr: 0.303" in config.to_yaml()
    api.resume(run.path, steps=60, changed=True)
    api.load_agent(run.path)


def test_an_end_and_a_device_may_be_changed(run: Run) -> None:
    change(run, "steps: 30", "steps: 40")
    change(run, "device: cpu", "device: auto")
    assert api.resume(run.path).step >= 40


def test_an_unreadable_checkpoint_is_passed_over(run: Run) -> None:
    api.resume(run.path, steps=60)
    newest = run.checkpoint_path(max(run.ticks()))
    (newest / "manifest.json").write_text("{")
    change(run, "lr: 0.003", "lr: 0.303")
    with pytest.raises(ConfigError, match="lr: 0.003 in the checkpoint"):
        api.resume(run.path)


def test_differences_are_named_by_dotted_keys() -> None:
    saved = {"train": {"steps": 1, "seed": 0}, "env": {"id": "a"}, "model": {"sizes": [1, 2]}}
    now = {"train": {"steps": 2, "seed": 1}, "env": {"id": "a", "x": 1}, "model": {"sizes": [1]}}
    assert list(differences(saved, now, {"env": {"y": 1}})) == [
        "env.x: 'nothing' in the checkpoint, 1 now",
        "model.sizes: [1, 2] in the checkpoint, [1] now",
        "train.seed: 0 in the checkpoint, 1 now",
    ]
    assert not list(differences(now, now, {}))


def test_a_key_that_older_checkpoints_lack_counts_as_its_default(run: Run) -> None:
    """So does a run of an older WorldFlux go on; a value of one's own is still a change."""
    manifest = run.checkpoint_path(run.ticks()[-1]) / "manifest.json"
    saved = read_json(manifest)
    del saved["config"]["train"]["accumulate"]
    write_json(manifest, saved)
    api.load_agent(run.path)
    del saved["config"]["train"]["seed"], saved["config"]["model"]["lr"]
    write_json(manifest, saved)
    with pytest.raises(ConfigError, match=r"model.lr: 0.003 in the checkpoint, 0.005 now"):
        change(run, "lr: 0.003", "lr: 0.005")
        api.load_agent(run.path)


def test_the_command_has_the_option(run: Run) -> None:
    import typer
    from typer.testing import CliRunner

    app = typer.Typer()
    add_commands(app)
    change(run, "lr: 0.003", "lr: 0.303")
    refused = CliRunner().invoke(app, ["eval", str(run.path), "--episodes", "1"])
    assert isinstance(refused.exception, ConfigError)
    done = CliRunner().invoke(app, ["eval", str(run.path), "--episodes", "1", "--changed-config"])
    assert done.exit_code == 0, done.output


def test_a_run_that_cannot_be_written_to_is_not_resumed(run: Run) -> None:
    run.log_path.unlink()
    run.log_path.mkdir()  # as on a read-only file system, the log cannot be opened
    with pytest.raises(StorageError, match=r"run\.log could not be written: Is a directory"):
        api.resume(run.path, steps=60)
    api.load_agent(run.path)  # reading goes on
