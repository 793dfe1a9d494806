"""Recorded episodes in a replay are the episodes that were recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldflux.columns import step_columns
from worldflux.episodes import EpisodeRecorder, Episodes, EpisodeWriter
from worldflux.errors import ContractError
from worldflux.specs import TensorSpec
from worldflux.testing.episodes import sampled
from worldflux_train.replay import Replay, load_episodes

SPECS: tuple[Any, ...] = ({"state": TensorSpec((2,))}, TensorSpec((1,)))
COLUMNS = step_columns(*SPECS)


def episode(rows: int, label: float) -> dict[str, Any]:
    made: dict[str, Any] = {
        "obs.state": np.stack([np.full(rows, label), np.arange(rows)], 1).astype(np.float32),
        "action": np.ones((rows, 1), np.float32),
        "reward": np.full(rows, label, np.float32),
        "is_first": np.arange(rows) == 0,
        "is_last": np.arange(rows) == rows - 1,
        "is_terminal": np.zeros(rows, bool),
    }
    made["reward"][0] = 0
    made["action"][-1] = 0
    return made


def step(whole: dict[str, Any], t: int) -> dict[str, Any]:
    return {name: value[t : t + 1] for name, value in whole.items()}


def test_the_same_steps_recorded_loaded_or_appended_sample_the_same(tmp_path: Path) -> None:
    """One known history through the recorder, the files and both ways into a replay."""
    history = [episode(rows, label) for label, rows in enumerate((4, 9, 2, 30, 5), 1)]
    recorder = EpisodeRecorder(EpisodeWriter(tmp_path, COLUMNS), num_envs=1)
    direct = Replay(COLUMNS, capacity=33)
    for whole in history:
        for t in range(len(whole["reward"])):
            recorder.append(step(whole, t))
            direct.append(step(whole, t))
    loaded = Replay(COLUMNS, capacity=33)
    assert load_episodes(loaded, Episodes(tmp_path)) == 50
    assert len(loaded) == len(direct) == 33
    for options in ({"pad": "none"}, {"boundary": "within"}, {"pad": "after"}, {"pad": "both"}):
        for update in range(3):
            one, two = (
                sampled(replay, 40, 3, 1, update=update, **options) for replay in (direct, loaded)
            )
            pairs: list[list[torch.Tensor]] = [[], []]
            for found, batch in zip(pairs, (one, two), strict=True):
                batch.map(lambda tensor, found=found: found.append(tensor) or tensor)  # type: ignore[misc]
            assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def test_an_episode_longer_than_the_ring_leaves_its_end() -> None:
    replay = Replay(COLUMNS, capacity=6)
    replay.extend(episode(20, 1.0))
    batch = sampled(replay, 1, 6, boundary="within")
    assert batch.obs["state"][0, :, 1].tolist() == [14, 15, 16, 17, 18, 19]
    assert batch.is_last[0].tolist() == [False] * 5 + [True]


def test_episodes_are_spread_over_the_rings_and_unknown_columns_left_out() -> None:
    replay = Replay(COLUMNS, capacity=200, num_envs=2)
    load_episodes(replay, [episode(10, k) | {"note": np.zeros(10)} for k in range(6)])
    assert replay.lanes.count.tolist() == [30, 30]


def test_stored_columns_that_were_not_recorded_are_zero() -> None:
    columns = step_columns(*SPECS, {"deter": TensorSpec((3,), "bfloat16")})
    replay = Replay(columns, capacity=20)
    replay.extend(episode(8, 1.0))
    batch = sampled(replay, 4, 2, 1)
    assert batch.stored["deter"].shape == (4, 1, 3) and not batch.stored["deter"].any()
    replay.extend(episode(8, 2.0) | {"stored.deter": np.ones((8, 3), np.float32)})
    assert sampled(replay, 50, 2, 1).stored["deter"].float().unique().tolist() == [0, 1]


def test_a_running_episode_ends_where_a_whole_one_follows() -> None:
    replay = Replay(COLUMNS, capacity=20)
    replay.append(step(episode(5, 1.0), 0))
    replay.extend(episode(3, 2.0))
    batch = sampled(replay, 1, 4)
    assert batch.is_last.tolist() == [[True, False, False, True]]
    assert batch.action[0, :, 0].tolist() == [0, 1, 1, 0]


def test_a_broken_episode_is_refused() -> None:
    replay = Replay(COLUMNS, capacity=20)
    with pytest.raises(ContractError, match="breaks the time convention"):
        load_episodes(replay, [episode(5, 1.0) | {"is_first": np.zeros(5, bool)}])
    with pytest.raises(ContractError, match="An episode has no is_first, only action"):
        load_episodes(replay, [{"action": np.zeros(3)}])
    assert len(replay) == 0
