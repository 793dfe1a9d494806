"""`worldflux data`: what there is, whether it is whole, other formats, and recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from worldflux.columns import actions, observations, step_columns
from worldflux.episodes import Episodes, EpisodeWriter, check_episode
from worldflux.errors import ConfigError, ContractError, StorageError
from worldflux.specs import TensorSpec
from worldflux.testing.dummies import TinyAgent, TinyConfig
from worldflux.testing.episodes import counted_episode
from worldflux_train.data.checking import check_recorded
from worldflux_train.data.collecting import collect
from worldflux_train.data.formats import open_recorded
from worldflux_train.data.formats.npz import Npz
from worldflux_train.data_cli import app

COLUMNS = step_columns({"state": TensorSpec((2,))}, TensorSpec((), "int64", n=5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = EpisodeWriter(tmp_path / "episodes", COLUMNS)
    for number, rows in enumerate((4, 9, 2)):
        writer.write(counted_episode(COLUMNS, rows, number), seed=number)
    return tmp_path / "episodes"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_info_says_what_there_is(folder: Path) -> None:
    said = run("info", folder)
    assert "(episodes): 3 episodes, 15 rows" in said
    assert "rows of an episode: 2 to 9, mean 5.0" in said
    assert "  action: int64 () n=5" in said and "  obs.state: float32 (2,)" in said
    values = np.concatenate([100 * n + np.arange(rows) + 1 for n, rows in enumerate((4, 9, 2))])
    assert f"  obs.state: mean {values.mean():.4g}" in said and "from 1 to 202" in said
    assert "of all episodes:" in said and "terminated: 1 of 3" in said
    assert "of 2 of the episodes:" in run("info", folder, "--episodes", 2)
    with pytest.raises(StorageError, match="no images to show"):
        run("info", folder, "--sheet", folder.parent / "x.png")


def test_validate_finds_a_flipped_byte_and_info_does_not_look(folder: Path) -> None:
    assert "3 episodes are whole" in run("validate", folder)
    file = folder / "obs.state.bin"
    data = bytearray(file.read_bytes())
    data[50] ^= 1
    file.write_bytes(data)
    assert "3 episodes" in run("info", folder)
    with pytest.raises(StorageError, match=r"1 of 3 episodes are bad:\n .*damaged in episode 1"):
        run("validate", folder)
    with pytest.raises(StorageError, match="damaged in episode 1"):
        run("convert", folder, folder.parent / "new")
    assert sorted(p.name for p in folder.parent.iterdir()) == ["episodes"], "nothing half-written"


def broken(tmp_path: Path, number: int, change: Any) -> list[str]:
    """What is said of a set of four whose episode `number` was changed."""
    episodes = [(counted_episode(COLUMNS, 12, n), {}) for n in range(4)]
    change(episodes[number][0], episodes)
    Npz.write_to(tmp_path / "set", COLUMNS, episodes)
    return [str(problem) for problem in check_recorded(open_recorded(tmp_path / "set"))]


def test_a_sound_set_has_no_problems(tmp_path: Path) -> None:
    assert broken(tmp_path, 0, lambda *_: None) == []


def set_value(name: str, row: int, value: Any) -> Any:
    def change(episode: Any, _: Any) -> None:
        episode[name][row] = value

    return change


def overlapping(episode: Any, episodes: Any) -> None:
    for name in ("obs.state", "action"):
        episode[name][1:11] = episodes[0][0][name][1:11]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_value("obs.state", 5, np.nan), "'obs.state' is not finite in row 5"),
        (set_value("reward", 3, np.inf), "'reward' is not finite in row 3"),
        (set_value("action", 4, 7), "'action' is 7 in row 4: there are 5 choices"),
        (set_value("reward", 0, 1.0), "the reward of its first row must be 0"),
        (set_value("is_last", 4, True), "is_last must be True at its last row and nowhere else"),
        (overlapping, "rows 1 to 8 are those of episode 0 from row 1 on: the episodes overlap"),
    ],
)
def test_each_fault_is_found_and_said_where(tmp_path: Path, change: Any, said: str) -> None:
    found = broken(tmp_path, 2, change)
    assert len(found) == 1 and said in found[0] and "episode_000002.npz" in found[0]


def test_convert_copies_all_or_a_part(folder: Path, tmp_path: Path) -> None:
    assert "3 episodes written" in run("convert", folder, tmp_path / "all")
    run("convert", folder, tmp_path / "part", "--first", 1, "--count", 1)
    ours, theirs = Episodes(tmp_path / "part"), Episodes(folder)
    assert len(ours) == 1 and ours.columns == theirs.columns and ours.about(0) == {"seed": 1}
    for name, value in theirs[1].items():
        np.testing.assert_array_equal(ours[0][name], value)
    with pytest.raises(StorageError, match="exists already"):
        run("convert", folder, tmp_path / "all")
    with pytest.raises(StorageError, match="has 3 episodes, none from number 3 on"):
        run("convert", folder, tmp_path / "none", "--first", 3)
    with pytest.raises(ConfigError, match=r"'lerobot' cannot be written, only read. Written are: "):
        run("convert", folder, tmp_path / "x", "--to", "lerobot")


def pictures(tmp_path: Path) -> Path:
    """Two episodes of smooth moving images with actions."""
    columns = step_columns(
        {"image": TensorSpec((3, 32, 48), "uint8", low=0, high=255)},
        TensorSpec((), "int64", n=3), reward=False,
    )  # fmt: skip
    writer = EpisodeWriter(tmp_path / "films", columns)
    x, y = np.meshgrid(np.linspace(0, 200, 48), np.linspace(0, 200, 32))
    for rows in (9, 6):
        step = np.arange(rows)
        frames = np.stack([np.stack([x, y, np.full_like(x, 20 * t)]) for t in step])
        action = np.where(step < rows - 1, step % 3, 0)
        flags = {"is_first": step == 0, "is_last": step == rows - 1, "is_terminal": step < 0}
        writer.write({"obs.image": frames.astype(np.uint8), "action": action, **flags})
    return tmp_path / "films"


@pytest.mark.parametrize("kind", ["episodes", "hdf5", "npz", "video", "frames"])
def test_each_format_comes_back(tmp_path: Path, kind: str) -> None:
    new = tmp_path / ("new.hdf5" if kind == "hdf5" else "new")
    run("convert", pictures(tmp_path), new, "--to", kind)
    theirs = open_recorded(tmp_path / "films")
    found = open_recorded(new, kind if kind == "frames" else None)
    assert found.lengths.tolist() == [9, 6]
    assert {name: (s.shape, s.dtype, s.n) for name, s in found.columns.items()} == {
        name: (s.shape, s.dtype, s.n) for name, s in theirs.columns.items()
    }
    lossy = 6 if kind == "video" else 0
    for number in range(2):
        check_episode(found.columns, found[number])
        for name, values in theirs[number].items():
            difference = np.abs(found[number][name].astype(int) - values.astype(int))
            assert difference.mean() <= lossy, (kind, name)


def test_images_of_classes_and_another_size(tmp_path: Path) -> None:
    run("shapes", tmp_path / "s", "--images", 12, "--held-out", 0, "--classes", 3)
    run("convert", tmp_path / "s", tmp_path / "small", "--to", "images", "--size", 16)
    theirs, found = open_recorded(tmp_path / "s"), open_recorded(tmp_path / "small")
    assert found.columns["obs.image"].shape == (3, 16, 16)
    labels = [int(theirs[n]["extra.label"][0]) for n in range(12)]
    again = [int(found[n]["extra.label"][0]) for n in range(12)]
    assert sorted(labels) == sorted(again), "circle, square and hoop sort as they are numbered"
    assert len(found.columns["extra.label"].labels or ()) == 3


def test_a_contact_sheet(tmp_path: Path) -> None:
    sheet = tmp_path / "out" / "sheet.png"
    run("info", pictures(tmp_path), "--sheet", sheet)
    drawn = np.asarray(Image.open(sheet))
    assert drawn.shape == (2 * 100 + 4, 8 * 100 + 4, 3)
    blue = [drawn[50, 50 + 100 * n, 2] for n in range(8)]
    assert blue == sorted(blue) and blue[-1] > blue[0] + 100, "frames in their order"


def test_collect_appends_whole_episodes(tmp_path: Path) -> None:
    said = run("collect", "wf/catch", tmp_path / "c", "--steps", 60, "--envs", 3, "--seed", 4)
    first = Episodes(tmp_path / "c")
    assert f"{len(first)} episodes recorded" in said
    assert 60 <= int((first.lengths - 1).sum()) < 66
    for episode in first:
        check_episode(first.columns, episode)
    run("collect", "wf/catch", tmp_path / "c", "--steps", 30, "--envs", 2, "--seed", 4)
    both = Episodes(tmp_path / "c")
    assert len(both) > len(first)
    key = next(name for name in first.columns if name.startswith("obs."))
    again = both[len(first)]
    same = [np.array_equal(again[key], e[key]) and np.array_equal(again["action"], e["action"])
            for e in first]  # fmt: skip
    assert not any(same), "other episodes are added"
    other = collect("wf/catch", tmp_path / "d", 60, envs=3, seed=4)
    assert other == len(first)
    for ours, theirs in zip(first, Episodes(tmp_path / "d"), strict=True):
        np.testing.assert_array_equal(ours[key], theirs[key])


def test_random_actions_that_last(tmp_path: Path) -> None:
    """About five steps each; a new one begins with every episode."""
    run("collect", "wf/two-room", tmp_path / "c", "--steps", 2000, "--envs", 8, "--hold", 5)
    run("collect", "wf/two-room", tmp_path / "d", "--steps", 200, "--envs", 2)
    held, single = Episodes(tmp_path / "c"), Episodes(tmp_path / "d")
    changes, steps, starts = 0, 0, []
    for episode in held:
        action = episode["action"][:-1]
        changes += int((action[1:] != action[:-1]).any(1).sum())
        steps += len(action) - 1
        starts.append(tuple(action[0]))
    assert 4 < steps / changes < 6.5
    assert len(set(starts)) == len(starts)
    assert all((e["action"][1:-1] != e["action"][:-2]).any(1).all() for e in single)
    with pytest.raises(ConfigError, match="hold=5: random actions may last 1 step or more"):
        collect("wf/two-room", tmp_path / "e", 20, policy=lambda obs: np.ones((1, 2)), hold=5)


def test_an_agent_as_the_policy(tmp_path: Path) -> None:
    collect("wf/catch", tmp_path / "c", 10, envs=2)
    found = Episodes(tmp_path / "c")
    agent = TinyAgent(TinyConfig(), observations(found.columns), actions(found.columns))
    collect("wf/catch", tmp_path / "d", 20, envs=2, policy=agent, acting="eval", mode="sync")
    taken = Episodes(tmp_path / "d")
    assert taken.columns == found.columns and int((taken.lengths - 1).sum()) >= 20


def test_a_policy_of_ones_own(tmp_path: Path) -> None:
    def stay(obs: Any) -> Any:
        return np.ones(len(next(iter(obs.values()))))

    collect("wf/catch", tmp_path / "c", 20, policy=stay, envs=2)
    found = Episodes(tmp_path / "c")
    assert all((episode["action"][:-1] == 1).all() for episode in found)
    with pytest.raises(ContractError, match=r"actions of shape \(1,\), expected \(2,\)"):
        collect("wf/catch", tmp_path / "e", 20, policy=lambda obs: np.ones(1), envs=2)
    with pytest.raises(ConfigError, match="--policy=nobody is neither random nor"):
        run("collect", "wf/catch", tmp_path / "x", "--policy", "nobody")
