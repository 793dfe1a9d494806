"""`worldflux data list` and `fetch`: known sets, fetched by their own libraries."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from worldflux.cli.app import build_app
from worldflux.errors import ConfigError, StorageError
from worldflux_train.data import catalogue
from worldflux_train.data.catalogue import CATALOGUE, fetch
from worldflux_train.data.formats.registry import formats


def test_every_set_has_a_format_that_reads_it() -> None:
    assert {known.format for known in CATALOGUE.values()} <= set(formats())
    said = CliRunner().invoke(build_app(), ["data", "list"], env={"COLUMNS": "200"})
    assert said.exit_code == 0
    for name in CATALOGUE:
        assert name in said.output
    assert "pip install minari" in said.output and "by hand" in said.output


def test_sets_are_fetched_by_their_own_libraries(tmp_path: Path) -> None:
    asked: list[Any] = []

    def snapshot(where: str, repo_type: str, local_dir: Path) -> None:
        asked.append((where, repo_type))
        (local_dir / "meta").mkdir()

    hub = SimpleNamespace(snapshot_download=snapshot)
    assert fetch("lerobot/pusht", tmp_path, hub) == tmp_path / "lerobot-pusht"
    assert asked == [("lerobot/pusht", "dataset")]
    seen: list[str] = []
    minari = SimpleNamespace(
        download_dataset=lambda name: seen.append(os.environ["MINARI_DATASETS_PATH"])
    )
    where = fetch("minari/D4RL/door/human-v2", tmp_path, minari)
    assert where == Path(seen[0]) / "D4RL/door/human-v2" or where.resolve() == Path(
        seen[0], "D4RL/door/human-v2"
    )
    assert "MINARI_DATASETS_PATH" not in os.environ

    class Cifar:
        def __init__(self, root: str, download: bool) -> None:
            (Path(root) / "cifar-10-batches-py").mkdir()

    vision = SimpleNamespace(datasets=SimpleNamespace(CIFAR10=Cifar))
    assert fetch("cifar10", tmp_path, vision).name == "cifar-10-batches-py"


def test_what_cannot_be_fetched_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host.")

    with pytest.raises(
        StorageError, match=r"by huggingface_hub: no route to host\. Without a conn"
    ):
        fetch("lerobot/pusht", tmp_path, SimpleNamespace(snapshot_download=offline))
    with pytest.raises(
        StorageError, match=r"imagenet is given out at https.*the format 'images' r"
    ):
        fetch("imagenet", tmp_path)
    with pytest.raises(ConfigError, match="no data set 'cifar1'. Did you mean 'cifar10'"):
        fetch("cifar1", tmp_path)
    monkeypatch.setitem(catalogue.PACKAGES, "minari", "no_such_package")
    with pytest.raises(
        StorageError, match="which is not installed .* Run: pip install no_such_pac"
    ):
        fetch("minari/D4RL/door/human-v2", tmp_path)
