"""A source over episodes against a slow reference: every rule of a phase, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.columns import step_columns
from worldflux.core.batch import Batch
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.source import Segments, Source
from worldflux.episodes import Episodes, EpisodeWriter
from worldflux.errors import ContractError, StorageError
from worldflux.specs import TensorSpec
from worldflux.testing.episodes import counted_episode, list_source
from worldflux.training import LeastSampled, Phase

COLUMNS = step_columns(
    {"state": TensorSpec((2,)), "image": TensorSpec((1, 2, 2), "uint8")},
    TensorSpec((2,)),
    {"deter": TensorSpec((3,))},
    extra={"label": TensorSpec((), "int64")},
)
PHASES = st.builds(
    lambda pad, length, context, stride, cross: Phase(
        "p", 40, length, pad=pad, context=context, stride=1 if cross else stride,
        boundary="cross" if cross and pad == "none" else "within",
    ),
    st.sampled_from(["none", "before", "after", "both"]),
    st.integers(1, 4), st.integers(0, 3), st.integers(1, 3), st.booleans(),
)  # fmt: skip


def begins(phase: Phase, rows: int) -> Iterator[int]:
    """All windows in an episode of `rows` rows, from the words of `Phase`."""
    k = phase.stride
    for begin in range(-phase.total * k - 1, rows):
        step = [begin + t * k for t in range(phase.total)]
        inside = [0 <= row < rows for row in step]
        wanted = inside[phase.context :]
        if phase.pad == "none" and all(inside):
            yield begin
        if phase.pad == "after" and all(inside[: phase.context]) and wanted[0]:
            yield begin
        if phase.pad == "before" and all(wanted):
            yield begin
        if phase.pad == "both" and any(wanted) and (rows >= k or phase.length == 1):
            yield begin


def expected(phase: Phase, episode: dict[str, np.ndarray], begin: int) -> dict[str, list]:
    """Every step of one window, by the words of `Phase`."""
    k, rows = phase.stride, len(episode["is_first"])
    found: dict[str, list] = {"state": [], "action": [], "reward": [], "is_first": [], "mask": []}
    for t in range(phase.total):
        row = begin + t * k
        held = 0 <= row < rows
        found["mask"].append(held)
        found["state"].append(float(episode["obs.state"][row, 0]) if held else 0.0)
        found["is_first"].append(bool(episode["is_first"][row]) if held else False)
        block = range(row, row + k)
        whole = all(0 <= i < rows for i in block) and not any(episode["is_last"][i] for i in block)
        whole = whole or (k == 1 and held)
        found["action"].append([float(episode["action"][i, 0]) if whole else 0.0 for i in block])
        before = range(row - k + 1, row + 1)
        whole = all(0 <= i < rows for i in before)
        found["reward"].append(sum(float(episode["reward"][i]) for i in before) if whole else 0.0)
    return found


def row_of(batch: Batch, b: int) -> dict[str, list]:
    action, reward = batch.require("action")[b], batch.require("reward")[b]
    action = action[..., 0] if action.ndim == 3 else action[..., None, 0]
    mask = torch.ones(batch.length, dtype=torch.bool) if batch.mask is None else batch.mask[b]
    return {
        "state": batch.obs["state"][b, :, 0].tolist(),
        "action": action.tolist(),
        "reward": reward.tolist(),
        "is_first": batch.is_first[b].tolist(),
        "mask": mask.tolist(),
    }


@settings(max_examples=80, deadline=None)
@given(phase=PHASES, lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_every_window_is_found_and_read_as_the_words_of_a_phase_say(phase, lengths) -> None:
    source = list_source(COLUMNS, lengths)
    if phase.boundary == "cross":
        joined = {
            name: np.concatenate([episode[name] for episode in source.episodes])
            for name in source.episodes[0]
        }
        runs = [joined]
    else:
        runs = list(source.episodes)
    known = [expected(phase, run, b) for run in runs for b in begins(phase, len(run["is_first"]))]
    assert source.ready(phase) == bool(known)
    assert source.ready(replace(phase, minimum=max(1, len(known)))) == bool(known)
    assert not source.ready(replace(phase, minimum=len(known) + 1))
    if not known:
        with pytest.raises(ContractError, match=r"'data' holds no \d+ consecutive rows of one"):
            source.choose(phase, 0)
        return
    seen = []
    for update in range(3):
        batch = source.read(source.choose(phase, update))
        if phase.stride == 1:
            batch.validate()
        assert batch.obs["state"].shape == (40, phase.total, 2)
        assert batch.context == phase.context and bool(batch.stored) == bool(phase.context)
        assert batch.index is not None and bool((batch.index == -1).all())
        assert (batch.mask is None) == (phase.pad == "none")
        seen += [row_of(batch, b) for b in range(40)]
    assert all(row in known for row in seen)
    if len(known) <= 6:
        assert all(row in seen for row in known)


def test_blocks_under_a_stride_are_whole_or_zero() -> None:
    source = list_source(COLUMNS, [8])
    phase = Phase("p", 1, 3, stride=3, boundary="within")  # rows 0 3 6, or 1 4 7
    found = {}
    for update in range(30):
        batch = source.read(source.choose(phase, update))
        assert batch.require("action").shape == (1, 3, 3, 2)
        found[batch.obs["state"][0, 0, 0].item()] = batch
    assert found.keys() == {1.0, 2.0}
    early, late = found[1.0], found[2.0]
    assert early.require("action")[0, ..., 0].tolist() == [[1, 2, 3], [4, 5, 6], [0, 0, 0]]
    assert early.require("reward").tolist() == [[0, 2 + 3 + 4, 5 + 6 + 7]]
    assert late.require("action")[0, ..., 0].tolist() == [[2, 3, 4], [5, 6, 7], [0, 0, 0]]
    assert late.is_last.tolist() == [[False, False, True]]


@pytest.mark.parametrize("pad", ["none", "before", "after", "both"])
def test_every_window_is_equally_likely(pad: str) -> None:
    source = list_source(COLUMNS, [5, 9, 3])
    phase = Phase("p", 30_000, 2, context=1, pad=pad, boundary="within")
    segments = source.choose(phase, 0)
    number = len([0 for n in (5, 9, 3) for _ in begins(phase, n)])
    windows = segments.start * 1000 + segments.count * 10 + segments.padding
    _, counts = np.unique(windows, return_counts=True)
    assert len(counts) == number
    chi_square = ((counts - 30_000 / number) ** 2 / (30_000 / number)).sum()
    assert chi_square < number + 5 * (2 * number) ** 0.5


def shares(source: EpisodeSource, phase: Phase) -> list[float]:
    episode = source.choose(phase, 0).episode
    return [float((episode == n).mean()) for n in range(len(source.numbers))]


def test_weights_are_those_of_parts_of_the_episodes_oldest_first() -> None:
    source = list_source(COLUMNS, [3, 30, 3, 3, 3, 3, 1, 3])
    phase = Phase("p", 20_000, 2, boundary="within", weights=(0.1, 0.1, 0.1, 0.7))
    assert shares(source, phase) == pytest.approx([0.05] * 6 + [0, 0.7], abs=0.02)
    assert shares(source, replace(phase, weights=(1.0,))) == pytest.approx(
        [1 / 7] * 6 + [0, 1 / 7], abs=0.02
    )
    alone = list_source(COLUMNS, [3])  # its part weighs nothing, but it is all there is
    assert shares(alone, replace(phase, weights=(0.0, 1.0))) == [1.0]


def begun(source: EpisodeSource, phase: Phase, rows: list[int]) -> np.ndarray:
    """How often a window began at each row of the first episode, as a share of all in it."""
    segments = source.choose(phase, 0)
    found = segments.start[segments.episode == 0]
    return np.bincount(found, minlength=rows[0]) / found.size


def test_oversampled_ends_begin_at_any_row_or_else_at_the_last_possible() -> None:
    """Of 12 rows, windows of 5 begin at 0 to 7: 4 more rows of chance are the last one's."""
    rows = [12, 5, 4]
    source = list_source(COLUMNS, rows)
    uniform = Phase("p", 60_000, 5, boundary="within", weights=(1.0,))
    phase = replace(uniform, ends="oversampled")
    expected = np.array([*[1 / 12] * 7, 5 / 12, 0, 0, 0, 0])
    assert begun(source, phase, rows) == pytest.approx(expected, abs=0.01)
    assert begun(source, uniform, rows)[:8] == pytest.approx([1 / 8] * 8, abs=0.01)
    assert shares(source, phase) == pytest.approx([0.5, 0.5, 0], abs=0.01)
    by_rows = replace(phase, weights=None)
    assert begun(source, by_rows, rows) == pytest.approx(expected, abs=0.01)
    assert shares(source, by_rows) == pytest.approx([12 / 17, 5 / 17, 0], abs=0.01)


@pytest.mark.parametrize("pad", ["none", "before", "after", "both"])
def test_oversampled_ends_reach_the_same_windows(pad: str) -> None:
    source = list_source(COLUMNS, [5, 9, 3])
    phase = Phase("p", 5_000, 2, context=1, pad=pad, boundary="within")
    found = []
    for ends in ("uniform", "oversampled"):
        segments = source.choose(replace(phase, ends=ends), 0)
        found.append(set(zip(segments.start.tolist(), segments.padding.tolist(), strict=True)))
    assert found[0] == found[1]


def test_the_least_sampled_episodes_are_favoured_and_a_resumed_run_remembers(tmp_path) -> None:
    source = list_source(COLUMNS, [4] * 6)
    phase = Phase("p", 3, 2, boundary="within", weights=LeastSampled(50.0))
    drawn = np.concatenate([source.choose(phase, update).episode for update in range(200)])
    counts = np.bincount(drawn, minlength=6)
    assert counts.max() - counts.min() <= 4
    uniform = replace(phase, weights=LeastSampled(0.0))
    drawn = np.concatenate([source.choose(uniform, update).episode for update in range(200)])
    assert np.ptp(np.bincount(drawn, minlength=6)) > 4
    source.save(tmp_path)
    other = list_source(COLUMNS, [4] * 6)
    other.load(tmp_path)
    for update in range(200, 210):
        same, new = source.choose(phase, update), other.choose(phase, update)
        assert same.start.tolist() == new.start.tolist()
    with pytest.raises(StorageError, match="trained on 6 episodes, 'data' has 5 now"):
        list_source(COLUMNS, [4] * 5).load(tmp_path)


def test_a_choice_follows_from_seed_phase_and_update_alone() -> None:
    source, again = (list_source(COLUMNS, [20, 30], seed=5) for _ in range(2))
    phase, other = Phase("one", 8, 3), Phase("two", 8, 3)
    assert isinstance(source, Source)
    for update in (7, 3, 0):  # in any order, with others in between
        source.choose(other, update)
        ours, theirs = source.choose(phase, update), again.choose(phase, update)
        assert ours.start.tolist() == theirs.start.tolist()
        assert ours.start.tolist() != source.choose(other, update).start.tolist()
        assert ours.start.tolist() != source.choose(phase, update + 1).start.tolist()
    seeded = list_source(COLUMNS, [20, 30], seed=6)
    assert seeded.choose(phase, 7).start.tolist() != source.choose(phase, 7).start.tolist()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    columns = {name: spec for name, spec in COLUMNS.items() if not name.startswith("stored.")}
    writer = EpisodeWriter(tmp_path / "episodes", columns)
    for number, rows in enumerate((6, 9, 4)):
        writer.write(counted_episode(columns, rows, number))
    return tmp_path / "episodes"


def test_episodes_on_disk_read_as_those_in_memory_with_any_number_of_workers(stored) -> None:
    memory = list_source(COLUMNS, [6, 9, 4])
    phase = Phase("p", 16, 3, pad="both", context=2)
    expected = memory.read(memory.choose(phase, 4))
    for workers in (0, 1, 5):
        source = EpisodeSource(Episodes(stored), COLUMNS, workers=workers)
        batch = source.read(source.choose(phase, 4))
        for key in ("state", "image"):
            assert torch.equal(batch.obs[key], expected.obs[key])
        for name in ("action", "reward", "is_first", "is_last", "is_terminal", "mask"):
            assert torch.equal(getattr(batch, name), getattr(expected, name)), name
        assert torch.equal(batch.extra["label"], expected.extra["label"])
        assert not batch.stored["deter"].any(), "what the data lacks is the initial state"
        assert expected.stored["deter"].any()


def test_only_the_chosen_episodes_are_drawn(stored) -> None:
    source = EpisodeSource(Episodes(stored), COLUMNS, numbers=[2, 0])
    for phase in (Phase("p", 200, 2), Phase("p", 200, 2, pad="after")):
        batch = source.read(source.choose(phase, 0))
        seen = batch.obs["state"][..., 0] // 100
        assert set(seen[:, 0].tolist()) == {0.0, 2.0}
    assert source.statistics("action").count == 5 + 3
    with pytest.raises(ContractError, match="'data' holds no episodes"):
        EpisodeSource(Episodes(stored), COLUMNS, numbers=[])


def test_data_that_lacks_what_a_learner_needs_is_refused(stored) -> None:
    needed = COLUMNS | {"obs.depth": TensorSpec((2,))}
    with pytest.raises(ContractError, match="lacks obs.depth, which the learner needs"):
        EpisodeSource(Episodes(stored), needed)


def test_latents_are_not_kept_and_rows_that_name_nothing_are_skipped() -> None:
    source = list_source(COLUMNS, [5])
    source.write(torch.full((2, 3), -1), {"deter": torch.ones(2, 3, 3)})
    with pytest.raises(ContractError, match="'data' keeps no latents"):
        source.write(torch.zeros(2, 3, dtype=torch.int64), {"deter": torch.ones(2, 3, 3)})


def test_statistics_are_those_of_numpy_over_all_rows_that_mean_something() -> None:
    source = list_source(COLUMNS, [5, 3])
    action = np.concatenate([episode["action"][:-1] for episode in source.episodes])
    found = source.statistics("action")
    np.testing.assert_allclose(found.mean, action.mean(0))
    np.testing.assert_allclose(found.std, action.std(0))
    assert (found.low.tolist(), found.high.tolist(), found.count) == ([1, 1], [102, 102], 6)
    assert source.statistics("reward").count == 6
    image = source.statistics("obs.image")
    assert image.mean.shape == (1, 1, 1) and image.count == 8
    with pytest.raises(ContractError, match="no column 'actoin' .* Did you mean 'action'"):
        source.statistics("actoin")


def test_parts_of_segments_read_as_the_whole() -> None:
    """A rank reads its own rows of what all have chosen."""
    source = list_source(COLUMNS, [20, 30])
    whole = source.choose(Phase("p", 8, 3), 0)
    part = whole.rows(np.array([4, 5]))
    assert part.row.tolist() == [4, 5]
    assert torch.equal(source.read(part).obs["state"], source.read(whole).obs["state"][4:6])
    both = Segments.cat([whole, replace(part, source=("other",) * 2)])
    assert [(name, index.tolist(), len(own)) for name, index, own in both.by_source()] == [
        ("data", list(range(8)), 8),
        ("other", [8, 9], 2),
    ]
    assert both.phase.batch == 10 and both.row.tolist() == list(range(10))
