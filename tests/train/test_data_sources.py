"""Data on disk: what is held out, reading ahead, and offline data mixed with a replay."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from worldflux.columns import step_columns
from worldflux.core.batch import Batch
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.source import Segments, Source
from worldflux.episodes import EpisodeWriter
from worldflux.errors import ConfigError, StorageError
from worldflux.specs import TensorSpec
from worldflux.testing.episodes import counted_episode, list_source, sampled
from worldflux.training import LeastSampled, Phase
from worldflux_train.config import DataConfig
from worldflux_train.data import Mixture, ReadAhead, open_data
from worldflux_train.replay import Replay

DATA = step_columns({"state": TensorSpec((2,))}, TensorSpec((2,)), extra={"label": TensorSpec(())})
COLUMNS = DATA | {"stored.deter": TensorSpec((3,))}
CPU = torch.device("cpu")


def write(folder: Path, lengths: list[int]) -> Path:
    writer = EpisodeWriter(folder, DATA)
    for number, rows in enumerate(lengths):
        writer.write(counted_episode(DATA, rows, number))
    return folder


def episodes_in(batch: Batch) -> set[int]:
    return set((batch.obs["state"][..., 0] // 100).int().flatten().tolist())


def test_held_out_episodes_are_fixed_by_the_seed_and_never_trained_on(tmp_path: Path) -> None:
    data = DataConfig(path=str(write(tmp_path / "a", [4] * 20)), validation=0.2)
    opened = open_data(data, seed=3)
    held = opened.validation(COLUMNS, CPU)
    assert held is not None and len(held.numbers) == 4 and opened.longest() == 3
    seen = episodes_in(sampled(opened.source(COLUMNS, CPU), 500, 2, boundary="within"))
    unseen = episodes_in(sampled(held, 200, 2, boundary="within"))
    assert seen | unseen == set(range(20)) and not seen & unseen
    assert list(open_data(data, seed=3).held_out_numbers) == list(opened.held_out_numbers)
    assert list(open_data(data, seed=4).held_out_numbers) != list(opened.held_out_numbers)
    assert open_data(DataConfig(path=data.path), 3).validation(COLUMNS, CPU) is None


def test_validation_may_be_a_folder_of_its_own(tmp_path: Path) -> None:
    train, other = write(tmp_path / "a", [4] * 3), write(tmp_path / "b", [4, 4])
    opened = open_data(DataConfig(path=str(train), validation=str(other)), 0)
    held = opened.validation(COLUMNS, CPU)
    assert held is not None and len(held.numbers) == 2 and len(opened.numbers) == 3
    with pytest.raises(ConfigError, match=r"data.validation=.*/a is data.path itself"):
        open_data(DataConfig(path=str(train), validation=str(tmp_path / "b/../a")), 0)


def test_data_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    write(tmp_path / "inside" / "run", [4])
    with pytest.raises(
        StorageError, match=r"data.path: .*/inside is in no known format.*Below it: run .episodes."
    ):
        open_data(DataConfig(path=str(tmp_path / "inside")), 0)
    with pytest.raises(StorageError, match="holds no finished episode"):
        open_data(DataConfig(path=str(write(tmp_path / "empty", []))), 0)
    few = DataConfig(path=str(write(tmp_path / "few", [4])), validation=0.5)
    with pytest.raises(ConfigError, match="of 1 episodes in .* leaves none to train on"):
        open_data(few, 0)
    with pytest.raises(ConfigError, match="less than 1"):
        DataConfig(path="x", validation=1.5)


def tensors(batch: Batch) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    batch.map(lambda tensor: found.append(tensor.clone()) or tensor)  # type: ignore[func-returns-value]
    return found


@pytest.mark.parametrize("weights", [None, LeastSampled(2.0)])
def test_reading_ahead_changes_no_batch(weights: LeastSampled | None) -> None:
    phase = Phase("p", 6, 3, boundary="within", weights=weights)
    other = replace(phase, name="q", length=2)
    plain, ahead = list_source(COLUMNS, [9, 5, 7]), ReadAhead(list_source(COLUMNS, [9, 5, 7]))
    assert isinstance(ahead, Source)
    for update in [0, 1, 2, 3, 7, 8, 2]:  # a resumed run begins anywhere
        for each in (phase, other):
            expected = tensors(plain.read(plain.choose(each, update)))
            found = tensors(ahead.read(ahead.choose(each, update)))
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    part = ahead.choose(phase, 9).rows(np.array([1, 2]))
    assert ahead.read(part).batch_size == 2
    ahead.close()


def online() -> Replay:
    replay = Replay(COLUMNS, capacity=200)
    for number in range(50, 60):
        replay.extend(counted_episode(COLUMNS, 8, number))
    return replay


def mixture(fraction: float = 0.3) -> Mixture:
    data = list_source(DATA, [8] * 10)
    return Mixture({"data": data, "replay": online()}, fraction, COLUMNS)


def test_a_mixture_takes_its_share_on_average_and_lacking_latents_are_zero() -> None:
    mixed = mixture()
    assert isinstance(mixed, Source)
    phase = Phase("p", 5, 2, context=1, boundary="within")
    counts = []
    for update in range(20):
        batch = mixed.read(mixed.choose(phase, update))
        batch.validate()
        offline = batch.obs["state"][:, 0, 0] < 5000
        counts.append(int(offline.sum()))
        assert batch.index is not None
        assert bool((batch.index[offline] == -1).all() and (batch.index[~offline] >= 0).all())
        assert not batch.stored["deter"][offline].any() and batch.stored["deter"][~offline].all()
        assert batch.extra["label"].shape == (5, 3)
    assert sum(counts) == 30 and set(counts) == {1, 2}


@pytest.mark.parametrize("source", [None, "data", "replay"])
@pytest.mark.parametrize("weights", [None, LeastSampled(2.0)])
def test_the_data_of_a_mixture_is_read_ahead_and_changes_no_batch(
    weights: LeastSampled | None, source: str | None
) -> None:
    read: list[str] = []

    class Noted(EpisodeSource):
        def read(self, segments: Segments) -> Batch:
            read.append(threading.current_thread().name)
            return super().read(segments)

    episodes = [counted_episode(DATA, 8, number) for number in range(10)]
    ahead = ReadAhead(Noted(episodes, DATA))
    mixed = Mixture({"data": ahead, "replay": online()}, 0.3, COLUMNS)
    phase = Phase("p", 5, 2, boundary="within", weights=weights, source=source)  # type: ignore[arg-type]
    plain = mixture()
    for update in [0, 1, 2, 3, 4, 7, 8]:
        expected = tensors(plain.read(plain.choose(phase, update)))
        found = tensors(mixed.read(mixed.choose(phase, update)))
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    others = [name for name in read if name.startswith("read ahead")]
    used = 0 if source == "replay" else len(read)
    assert len(read) == used and bool(others) == (source != "replay" and weights is None)
    if source is None and weights is None:  # only what was skipped to is read here
        assert len(read) - len(others) == 2
    mixed.close()


def test_a_mixture_writes_where_rows_came_from() -> None:
    mixed, phase = mixture(), Phase("p", 10, 2, context=1, boundary="within")
    batch = mixed.read(mixed.choose(phase, 0))
    assert batch.index is not None
    index = batch.index.clone()
    mixed.write(index, {"deter": torch.full((10, 3, 3), -5.0)})
    again = mixed.read(mixed.choose(phase, 0))
    online_rows = index[:, 0] >= 0
    assert int(online_rows.sum()) == 7
    assert bool((again.stored["deter"][online_rows] == -5).all())
    assert not again.stored["deter"][~online_rows].any()


def test_a_phase_may_insist_on_one_source_and_all_must_be_ready() -> None:
    mixed = Mixture(
        {"data": list_source(DATA, [8]), "replay": Replay(COLUMNS, capacity=100)}, 0.5, COLUMNS
    )
    phase = Phase("p", 4, 2)
    assert not mixed.ready(phase) and not mixed.ready(replace(phase, source="replay"))
    own = replace(phase, source="data")
    assert mixed.ready(own)
    batch = mixed.read(mixed.choose(own, 0))
    assert batch.batch_size == 4 and episodes_in(batch) == {0}


def test_parts_of_mixed_segments_read_as_the_whole() -> None:
    mixed, phase = mixture(0.5), Phase("p", 6, 2)
    segments = mixed.choose(phase, 1)
    whole = mixed.read(segments).obs["state"].clone()
    order = np.array([5, 0, 3])
    assert torch.equal(mixed.read(segments.rows(order)).obs["state"], whole[order])


def test_statistics_of_a_mixture_are_those_of_all_rows() -> None:
    mixed = mixture()
    values = [episode["obs.state"] for episode in list_source(DATA, [8] * 10).episodes]
    values += [counted_episode(COLUMNS, 8, number)["obs.state"] for number in range(50, 60)]
    found = mixed.statistics("obs.state")
    np.testing.assert_allclose(found.mean, np.concatenate(values).mean(0))
    np.testing.assert_allclose(found.std, np.concatenate(values).std(0))


def test_a_resumed_mixture_goes_on_where_its_parts_were(tmp_path: Path) -> None:
    phase = Phase("p", 6, 2, boundary="within", weights=LeastSampled(3.0))
    mixed = mixture()
    for update in range(5):
        mixed.choose(phase, update)
    mixed.save(tmp_path)
    again = mixture()
    again.load(tmp_path)
    assert mixed.choose(phase, 5).start.tolist() == again.choose(phase, 5).start.tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_share_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="a share between 0 and 1"):
        mixture(fraction)
