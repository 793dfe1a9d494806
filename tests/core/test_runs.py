"""The run folder: metrics that survive a kill, checkpoints that are whole or passed over."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest

from worldflux.atomic import MANIFEST, check_seal, new_folder, read_json, seal, write_file
from worldflux.errors import StorageError
from worldflux.runs import Run, having


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run.create(tmp_path / "run")
    made.config_path.write_text("model: {}\n")
    return made


def save(run: Run, step: int, content: bytes = b"weights") -> Path:
    with run.new_checkpoint(step, note="x") as folder:
        (folder / "model.safetensors").write_bytes(content)
    return run.checkpoint_path(step)


def test_create_then_open_finds_the_same_paths(run: Run) -> None:
    assert Run.open(str(run.path)) == run
    assert run.checkpoints_path.is_dir() and run.replay_path.is_dir() and run.videos_path.is_dir()


def test_create_refuses_a_folder_with_content(run: Run) -> None:
    with pytest.raises(StorageError, match=r"is not empty.*--resume"):
        Run.create(run.path)


def test_open_refuses_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"is not a run: it has no config\.yaml"):
        Run.open(tmp_path)


def test_metrics_round_trip_with_non_finite_numbers(run: Run) -> None:
    run.append_metrics({"step": 1, "loss": 0.5, "name": "a"})
    run.append_metrics({"step": 2, "loss": math.nan, "high": math.inf})
    first, second = run.metrics()
    assert first == {"step": 1, "loss": 0.5, "name": "a"}
    assert math.isnan(second["loss"]) and second["high"] == math.inf


def test_metrics_that_cannot_be_written_are_one_sentence(run: Run) -> None:
    run.metrics_path.mkdir()
    with pytest.raises(StorageError, match=r"metrics\.jsonl could not be written: Is a directory"):
        run.append_metrics({"step": 1})


def test_a_line_cut_off_by_a_kill_is_left_out(run: Run) -> None:
    run.append_metrics({"step": 1})
    with run.metrics_path.open("a") as stream:
        stream.write('{"step": 2, "lo')
    assert run.metrics() == [{"step": 1}]


def test_damaged_lines_are_named_and_left_out(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    bad = [b'{"st', b'{"step": "\xff"}', b"[1]", b"{}", b'{"step": "x"}', b'{"step": true}', b"7"]
    lines = [b'{"step": 1}', *bad, b"[" * 100_000, b'{"step": 3}', b""]
    run.metrics_path.write_bytes(b"\n".join(lines))
    assert run.metrics() == [{"step": 1}, {"step": 3}]
    assert "8 damaged lines are left out, the first is line 2" in caplog.text


def test_rows_that_lack_a_number_are_not_had() -> None:
    rows = [{"step": 1, "a": 1.0, "b": 2}, {"step": 2, "a": "x", "b": 2}, {"step": 3, "a": True}]
    assert having(rows, "a", "b") == rows[:1]
    assert having(rows, "step") == rows


def test_only_empty_folders_of_ours_may_be_there_before(tmp_path: Path) -> None:
    Run.create(tmp_path / "killed")  # before its configuration was written
    Run.create(tmp_path / "killed")
    (tmp_path / "killed" / "videos" / "mine.txt").touch()
    with pytest.raises(StorageError, match=r"is not empty\. Choose another --out\.$"):
        Run.create(tmp_path / "killed")
    (tmp_path / "killed" / "config.yaml").touch()
    with pytest.raises(StorageError, match=r"or continue the run in it with --resume"):
        Run.create(tmp_path / "killed")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file is a file\. Choose another --out"):
        Run.create(tmp_path / "file")


def test_rewinding_drops_what_came_after_the_step(run: Run) -> None:
    for step in (1, 2, 3):
        run.append_metrics({"step": step})
    with run.metrics_path.open("a") as stream:
        stream.write('{"step": 4')
    run.rewind_metrics(2)
    run.append_metrics({"step": 3, "again": True})
    assert run.metrics() == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
    run.append_metrics({"step": 3, "tick": 5})  # in a burst
    run.rewind_metrics(4)
    assert run.metrics()[-1] == {"step": 3, "again": True}


def test_rewinding_drops_final_rows_in_one_write_that_can_fail_whole(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.append_metrics({"step": 1})
    run.append_metrics({"step": 1, "final": True})
    before = run.metrics_path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="Nothing was replaced"):
        patch.setattr(os, "fsync", full)
        run.rewind_metrics(1, drop="final")
    assert run.metrics_path.read_bytes() == before
    run.rewind_metrics(1, drop="final")
    assert run.metrics() == [{"step": 1}]


def test_a_run_without_metrics_or_checkpoints_is_empty(run: Run) -> None:
    assert run.metrics() == [] and run.ticks() == [] and run.latest_checkpoint() is None


def test_steps_are_sorted_as_numbers_and_drafts_do_not_count(run: Run) -> None:
    for step in (1000, 20, 300):
        save(run, step)
    (run.checkpoints_path / ".0000000400.1.tmp").mkdir()
    assert run.ticks() == [20, 300, 1000]
    assert run.latest_checkpoint() == run.checkpoint_path(1000)
    assert run.manifest(300)["note"] == "x"


def test_an_exception_leaves_no_checkpoint_behind(run: Run) -> None:
    with pytest.raises(KeyError), run.new_checkpoint(5) as folder:
        (folder / "half").write_bytes(b"1")
        raise KeyError
    assert list(run.checkpoints_path.iterdir()) == []


def test_a_full_disk_leaves_the_previous_checkpoint(run: Run) -> None:
    save(run, 1)
    with (
        pytest.raises(StorageError, match=r"0000000002 could not be written: No space left"),
        run.new_checkpoint(2),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert run.latest_checkpoint() == run.checkpoint_path(1)


def test_a_checkpoint_is_never_written_over(run: Run) -> None:
    save(run, 1)
    with pytest.raises(StorageError, match="already exists"):
        save(run, 1)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forge(path: Path) -> None:
    path.write_text(path.read_text().replace('"tick": 2', '"tick": 3'))


@pytest.mark.parametrize(
    ("damage", "file", "text"),
    [
        (truncate, "model.safetensors", "it has 6 bytes, 7 were written"),
        (flip, "model.safetensors", "does not match its sha256"),
        (Path.unlink, "model.safetensors", "is missing"),
        (truncate, MANIFEST, "not JSON"),
        (forge, MANIFEST, "does not match its sha256"),
        (Path.unlink, MANIFEST, "cannot be read: No such file"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(
    run: Run, damage: object, file: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = save(run, 1), save(run, 2)
    damage(bad / file)  # type: ignore[operator]
    with pytest.raises(StorageError, match=text):
        check_seal(bad)
    assert run.latest_checkpoint() == good
    assert "checkpoint 0000000002 is not used" in caplog.text and file in caplog.text


def test_write_file_keeps_the_old_content_when_it_fails(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "kept").write_text("x")
    with pytest.raises(StorageError, match=r"could not be written.*Nothing was replaced"):
        write_file(target, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_json_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1]")
    with pytest.raises(StorageError, match="holds no JSON object"):
        read_json(path)


def test_new_folder_passes_a_storage_error_on(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="inner"), new_folder(tmp_path / "a"):
        raise StorageError("inner")
    assert list(tmp_path.iterdir()) == []


def test_a_seal_covers_files_in_subfolders(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.bin").write_bytes(b"abc")
    seal(tmp_path, step=3)
    assert check_seal(tmp_path)["step"] == 3
    flip(tmp_path / "sub" / "a.bin")
    with pytest.raises(StorageError, match=r"sub/a\.bin is damaged"):
        check_seal(tmp_path)
