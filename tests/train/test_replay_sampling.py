"""Every sampled sequence against a slow reference that keeps lists of all steps ever made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.columns import step_columns
from worldflux.core.batch import Batch
from worldflux.core.source import Segments
from worldflux.errors import ContractError
from worldflux.specs import TensorSpec
from worldflux.testing.episodes import list_source, sampled
from worldflux.training import LeastSampled, Phase
from worldflux_train.replay import Replay

COLUMNS = step_columns(
    {"state": TensorSpec((2,)), "image": TensorSpec((1, 2, 2), "uint8")},
    TensorSpec((), "int64", n=50),
    {"deter": TensorSpec((3,)), "code": TensorSpec((2,), "uint8")},
)
STORAGES = ("memory", "device")

# What happens to one environment in one step of all of them.
EVENTS = st.sampled_from(["go", "go", "go", "terminal", "limit", "abandon", "absent"])
SCRIPTS = st.integers(1, 3).flatmap(
    lambda envs: st.lists(st.lists(EVENTS, min_size=envs, max_size=envs), min_size=1, max_size=45)
)


@dataclass
class Stream:
    """All steps of one environment, as a list of episodes (each a list of steps)."""

    env: int
    episodes: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [step for episode in self.episodes for step in episode]

    def add(self, event: str) -> None:
        running = self.episodes and not self.episodes[-1][-1]["is_last"]
        if running and event == "abandon":
            self.episodes[-1][-1] |= {"is_last": True, "action": 0}
        if not running or event == "abandon":
            self.episodes.append([])
        name = len(self.steps) + 1
        last = event in ("terminal", "limit")
        self.episodes[-1].append(
            {
                "obs.state": np.array([self.env, name], np.float32),
                "obs.image": np.full((1, 2, 2), (name * 7 + self.env) % 256, np.uint8),
                "action": 0 if last else name % 49 + 1,
                "reward": np.float32(0 if not self.episodes[-1] else name / 8),
                "is_first": not self.episodes[-1],
                "is_last": last,
                "is_terminal": event == "terminal",
                "stored.deter": np.full(3, -name, np.float32),
                "stored.code": np.array([name % 256, self.env], np.uint8),
            }
        )


def play(replay: Replay, streams: list[Stream], script: list[list[str]]) -> None:
    """Plays the script into the replay and into the reference."""
    for events in script:
        rows = {
            name: np.zeros((len(events), *spec.shape), spec.dtype) for name, spec in COLUMNS.items()
        }
        mask = np.array([event != "absent" for event in events])
        for stream, event in zip(streams, events, strict=True):
            if event == "absent":
                continue
            stream.add(event)
            for name, value in stream.steps[-1].items():
                rows[name][stream.env] = value
            if stream.steps[-1]["is_last"]:
                rows["action"][stream.env] = 33  # the replay makes it zero
        replay.append(rows, None if mask.all() else mask)


def fill(replay: Replay, script: list[list[str]]) -> list[Stream]:
    """New streams, played."""
    streams = [Stream(env) for env in range(len(script[0]))]
    play(replay, streams, script)
    return streams


OPTIONS: dict[str, dict[str, Any]] = {
    "cross": {}, "within": {"boundary": "within"}, "pad": {"pad": "after"}
}  # fmt: skip


def can(replay: Replay, length: int, context: int = 0, boundary: str = "cross") -> bool:
    return replay.ready(Phase("sampled", 1, length, context=context, **OPTIONS[boundary]))


def starts(streams: list[Stream], size: int, total: int, boundary: str, least: int) -> set[int]:
    """Names of all rows at which a sequence may start, by brute force."""
    found = set()
    for stream in streams:
        steps = stream.steps
        oldest = max(0, len(steps) - size)
        for start in range(oldest, len(steps)):
            need = least if boundary == "pad" else total
            part = steps[start : start + need]
            cut = boundary != "cross" and any(step["is_first"] for step in part[1:])
            if len(part) == need and not cut:
                found.add(start * len(streams) + stream.env)
    return found


def check(batch: Batch, streams: list[Stream], size: int, boundary: str) -> None:
    """Every row of the batch is the row it names, and rows follow each other."""
    batch.validate()
    assert batch.index is not None
    for b in range(batch.batch_size):
        names = batch.index[b].tolist()
        env, first = names[0] % len(streams), names[0] // len(streams)
        steps = streams[env].steps
        real = len(names)
        if boundary == "pad":
            assert batch.mask is not None
            real = int(batch.mask[b].sum())
            after = steps[first + real : first + real + 1]
            assert real == len(names) or not after or after[0]["is_first"]
            assert batch.mask[b].tolist() == [t < real for t in range(len(names))]
        else:
            assert batch.mask is None
        assert first >= max(0, len(steps) - size)
        for t, name in enumerate(names):
            if t >= real:
                assert name == -1
                for value in (*batch.obs.values(), batch.action, batch.reward, batch.is_last):
                    assert not value[b, t].any()
                continue
            assert name == (first + t) * len(streams) + env
            check_row(batch, b, t, steps[first + t])
            if boundary != "cross" and t:
                assert not steps[first + t]["is_first"]


def check_row(batch: Batch, b: int, t: int, step: dict[str, Any]) -> None:
    for key, value in batch.obs.items():
        np.testing.assert_array_equal(value[b, t].numpy(), step[f"obs.{key}"])
    for name in ("action", "reward", "is_first", "is_last", "is_terminal"):
        assert getattr(batch, name)[b, t].item() == step[name], name
    if t < batch.context:
        for key, value in batch.stored.items():
            np.testing.assert_array_equal(value[b, t].numpy(), step[f"stored.{key}"])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("boundary", ["cross", "within", "pad"])
@settings(max_examples=60, deadline=None)
@given(
    script=SCRIPTS,
    size=st.integers(2, 13),
    length=st.integers(1, 6),
    context=st.integers(0, 2),
    spare=st.integers(0, 1),
)
def test_sequences_are_what_was_recorded(
    storage: str,
    boundary: str,
    script: list[list[str]],
    size: int,
    length: int,
    context: int,
    spare: int,
) -> None:
    envs = len(script[0])
    capacity = size * envs + spare * (envs - 1)
    replay = Replay(COLUMNS, capacity=capacity, num_envs=envs, storage=storage)
    streams = fill(replay, script)
    assert len(replay) == sum(min(size, len(stream.steps)) for stream in streams)
    valid = starts(streams, size, context + length, boundary, context + 1)
    assert can(replay, length, context, boundary) == bool(valid)
    if not valid:
        with pytest.raises(ContractError, match=r"The replay holds no \d+ consecutive rows"):
            sampled(replay, 4, length, context, **OPTIONS[boundary])
        return
    small = sampled(replay, 5, length, context, **OPTIONS[boundary])
    assert small.reward.shape == (5, context + length)
    assert {key: tuple(v.shape[:2]) for key, v in small.stored.items()} == (
        {"deter": (5, context), "code": (5, context)} if context else {}
    )
    check(small, streams, size, boundary)
    many = sampled(replay, 1500, length, context, **OPTIONS[boundary])
    assert many.index is not None
    assert set(many.index[:, 0].tolist()) == valid


@pytest.mark.parametrize("boundary", ["cross", "within", "pad"])
def test_every_start_is_equally_likely(boundary: str) -> None:
    replay = Replay(COLUMNS, capacity=40, num_envs=2, seed=3)
    script = [["go", "absent" if t % 3 else "go"] for t in range(50)]
    script[40][0] = "limit"
    script[44][0] = "terminal"
    streams = fill(replay, script)
    valid = starts(streams, 20, 4, boundary, 2)
    draws = 20000
    batch = sampled(replay, draws, 3, 1, **OPTIONS[boundary])
    assert batch.index is not None
    counts = torch.bincount(batch.index[:, 0])[sorted(valid)].double()
    expected = draws / len(valid)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < len(valid) + 5 * (2 * len(valid)) ** 0.5


@pytest.mark.parametrize("storage", STORAGES)
@settings(max_examples=80, deadline=None)
@given(before=SCRIPTS, after=SCRIPTS, size=st.integers(3, 9), context=st.integers(0, 1))
def test_written_values_return_and_stale_rows_are_skipped(
    storage: str, before: list[list[str]], after: list[list[str]], size: int, context: int
) -> None:
    envs = len(before[0])
    after = [(events * envs)[:envs] for events in after]
    replay = Replay(COLUMNS, capacity=size * envs, num_envs=envs, storage=storage)
    streams = fill(replay, before)
    if not can(replay, 2, context, "pad"):
        return
    drawn = sampled(replay, 4, 2, context, pad="after").index
    assert drawn is not None
    index = drawn.clone()[:, context:]
    play(replay, streams, after)
    code = (index % 200)[..., None].expand(-1, -1, 2)
    replay.write(index, {"deter": index[..., None].expand(-1, -1, 3).float() + 0.5, "code": code})
    written = set(index[index >= 0].tolist())
    for stream in streams:
        for serial, step in enumerate(stream.steps):
            name = serial * envs + stream.env
            if name in written:
                step["stored.deter"] = np.full(3, name + 0.5, np.float32)
                step["stored.code"] = np.full(2, name % 200, np.uint8)
    rows = sampled(replay, 300, 1, 1) if can(replay, 1, 1) else None
    if rows is not None:
        check(rows, streams, size, "cross")


@pytest.mark.parametrize("storage", STORAGES)
def test_padding_at_both_ends_is_cleared(storage: str) -> None:
    replay = Replay(COLUMNS, capacity=30, storage=storage)
    streams = fill(replay, [["terminal" if t % 5 == 4 else "go"] for t in range(33)])
    episodes = replay.lanes.episodes()
    assert episodes.start.tolist() == [3, 5, 10, 15, 20, 25, 30]
    assert episodes.count.tolist() == [2, 5, 5, 5, 5, 5, 3]
    full = Segments.of(Phase("p", 1, 6), 0, "replay", *np.array([[0], [20], [6], [0]]))
    cut = Segments.of(Phase("p", 1, 6, pad="both"), 0, "replay", *np.array([[0], [10], [3], [2]]))
    for _ in range(2):  # the buffers are used again: padding must be cleared
        replay.read(full)
        batch = replay.read(cut)
        assert batch.index is not None and batch.mask is not None
        assert batch.index.tolist() == [[-1, -1, 10, 11, 12, -1]]
        assert batch.mask.tolist() == [[False, False, True, True, True, False]]
        assert not batch.obs["state"][0, [0, 1, 5]].any()
        for t in (2, 3, 4):
            check_row(batch, 0, t, streams[0].steps[8 + t])


@settings(max_examples=60, deadline=None)
@given(script=SCRIPTS, size=st.integers(2, 13), stop=st.integers(0, 45))
def test_the_list_of_episodes_is_that_of_the_rows_and_of_a_restored_replay(
    script: list[list[str]], size: int, stop: int
) -> None:
    envs = len(script[0])
    lanes, again = (Replay(COLUMNS, capacity=size * envs, num_envs=envs).lanes for _ in range(2))
    replay = Replay(COLUMNS, capacity=size * envs, num_envs=envs)
    streams = [Stream(env) for env in range(envs)]
    for t, events in enumerate(script):
        play(replay, streams, [events])
        if t == stop:
            replay.lanes.episodes()
    lanes = replay.lanes
    expected = []
    for stream in streams:
        serial, oldest = 0, max(0, len(stream.steps) - size)
        for episode in stream.episodes:
            stop_at = serial + len(episode)
            if stop_at > oldest:
                first = max(serial, oldest)
                expected.append((serial, stream.env, first, stop_at - first))
            serial = stop_at
    held = lanes.episodes()
    found = list(zip(held.lane.tolist(), held.start.tolist(), held.count.tolist(), strict=True))
    assert found == [row[1:] for row in sorted(expected)]
    names = [serial * envs + env for serial, env, _, _ in sorted(expected)]
    assert lanes.begun.names(lanes).tolist() == names
    flags = lanes.position == 0
    again.restore(lanes.count, lanes.ended, flags, lanes.oldest_position)
    assert again.begun.names(again).tolist() == names
    np.testing.assert_array_equal(again.position, lanes.position)


def test_the_least_sampled_keep_their_count_while_their_first_rows_are_overwritten() -> None:
    replay = Replay(COLUMNS, capacity=30)
    streams = fill(replay, [["terminal" if t % 10 == 9 else "go"] for t in range(30)])
    phase = Phase("p", 3, 1, boundary="within", weights=LeastSampled(100.0))
    for update in range(50):
        replay.choose(phase, update)
    play(replay, streams, [["go"]])  # a fourth begins, the first loses a row
    assert set(replay.choose(phase, 50).start.tolist()) == {30}
    assert replay.drawn.counts["p"].keys() == {0, 10, 20, 30}


def test_a_minimum_of_sequences_is_waited_for() -> None:
    phase = Phase("p", 16, 64, context=1, minimum=1024)
    for envs, steps in ((1, 1088), (16, 128)):  # 1,088 steps alone, 2,048 of 16 environments
        replay = Replay(COLUMNS, capacity=5000, num_envs=envs)
        streams = fill(replay, [["go"] * envs] * (steps - 1))
        assert not replay.ready(phase)
        play(replay, streams, [["go"] * envs])
        assert replay.ready(phase)


def test_a_replay_reads_strides_as_episodes_do() -> None:
    columns = {name: spec for name, spec in COLUMNS.items() if not name.startswith("stored.")}
    source, replay = list_source(columns, [9, 14, 4]), Replay(columns, capacity=100)
    for episode in source.episodes:
        replay.extend(episode)
    for pad in ("none", "before", "after", "both"):
        options: dict[str, Any] = {"pad": pad, "boundary": "within", "stride": 3}
        ours, theirs = (sampled(s, 40, 3, 1, **options) for s in (replay, source))
        assert torch.equal(ours.obs["state"], theirs.obs["state"])
        for name in ("action", "reward", "is_first", "is_last", "is_terminal"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), (pad, name)
        assert pad == "none" or torch.equal(ours.mask, theirs.mask)  # type: ignore[arg-type]
    np.testing.assert_allclose(
        replay.statistics("obs.state").std, source.statistics("obs.state").std
    )


@settings(max_examples=60, deadline=None)
@given(script=SCRIPTS, size=st.integers(4, 13), total=st.integers(1, 5), every=st.integers(1, 7))
def test_the_online_queue_delivers_new_rows_once_and_in_order(
    script: list[list[str]], size: int, total: int, every: int
) -> None:
    envs = len(script[0])
    replay = Replay(COLUMNS, capacity=size * envs, num_envs=envs, online=True)
    streams = [Stream(env) for env in range(envs)]
    handed = [0] * envs
    for t, events in enumerate(script):
        play(replay, streams, [events])
        if t % every or not can(replay, total):
            continue
        expected = []
        for env, stream in enumerate(streams):
            handed[env] = max(handed[env], len(stream.steps) - size)
            while len(stream.steps) - handed[env] >= total:
                expected.append(handed[env] * envs + env)
                handed[env] += total
        batch = sampled(replay, len(expected) + 2, total)
        assert batch.index is not None
        check(batch, streams, size, "cross")
        assert sorted(batch.index[:-2, 0].tolist()) == sorted(expected)


def test_an_episode_whose_beginning_is_gone_counts_as_long_as_what_is_left() -> None:
    replay = Replay(COLUMNS, capacity=6)
    streams = fill(replay, [["go"]] * 9 + [["limit"]] * 5)
    assert not can(replay, 3, 0, "within")  # rows 8 and 9 of the long one, then single steps
    batch = sampled(replay, 50, 2, boundary="within")
    assert batch.index is not None
    assert set(batch.index[:, 0].tolist()) == starts(streams, 6, 2, "within", 0) == {8}


def test_the_online_queue_waits_where_the_batch_is_full() -> None:
    replay = Replay(COLUMNS, capacity=100, online=True)
    fill(replay, [["go"]] * 20)
    got = []
    for update in range(5):
        index = sampled(replay, 2, 3, 1, update=update).index
        assert index is not None
        got += index[:, 0].tolist()
    assert got[:5] == [0, 4, 8, 12, 16]


def test_the_same_seed_draws_the_same_and_another_draws_other() -> None:
    drawn = []
    for seed in (1, 1, 2):
        replay = Replay(COLUMNS, capacity=100, seed=seed)
        fill(replay, [["go"]] * 90)
        index = sampled(replay, 50, 3).index
        assert index is not None
        drawn.append(index[:, 0].tolist())
    assert drawn[0] == drawn[1] != drawn[2]
