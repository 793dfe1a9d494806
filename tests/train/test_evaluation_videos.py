"""Evaluated episodes that are kept and shown: `keep=`, `--video`, `train.eval_videos`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from worldflux.cli.app import build_app
from worldflux.errors import CapabilityError, ConfigError
from worldflux.runs import Run
from worldflux_train import api
from worldflux_train.evaluation_videos import frames_of
from worldflux_train.sinks.wandb import WandbSink


@pytest.fixture(scope="module")
def run(site: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that shows two episodes at each of its two evaluations."""
    from worldflux_train.config import resolve

    folder = tmp_path_factory.mktemp("shown") / "run"
    overrides = {
        "train.steps": 20, "train.eval_every": 0, "train.eval_episodes": 3, "train.eval_videos": 2,
        "train.tensorboard": True, "train.replay_capacity": 200, "train.threads": 1,
        "train.device": "cpu",
    }  # fmt: skip
    api.train(resolve("tiny", "gym/CartPole-v1", overrides=overrides), folder)
    return folder


def test_evaluations_of_a_run_leave_videos(run: Path) -> None:
    videos = sorted(path.name for path in (run / "videos").glob("evaluation-*.mp4"))
    ticks = {name.split("-")[1] for name in videos}
    assert len(ticks) == 2 and min(ticks) == "0000000000"
    assert [name.split("-", 2)[2] for name in videos] == ["episode-0.mp4", "episode-1.mp4"] * 2


def test_tensorboard_shows_them(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["evaluation/episode-0", "evaluation/episode-1"]
    shown = events.Images("evaluation/episode-0")
    assert shown[0].step == 0 and shown[0].encoded_image_string.startswith(b"GIF89a")


def test_wandb_shows_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Service:
        def __init__(self) -> None:
            self.sent: list[dict[str, Any]] = []

        def init(self, **_: Any) -> Any:
            return self

        def define_metric(self, name: str, step_metric: str | None = None) -> None:
            pass

        def Video(self, frames: Any, fps: int, format: str) -> tuple[int, ...]:
            return tuple(frames.shape)

        def log(self, row: dict[str, Any]) -> None:
            self.sent.append(row)

    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    sink, video = WandbSink("mine", tmp_path, {}), {"episode-0": np.zeros((5, 8, 9, 3), np.uint8)}
    sink.show(video, 7)
    sink.write({"step": 7, "a": 1.0})
    assert service.sent[0] == {"evaluation/episode-0": (5, 3, 8, 9), "tick": 7}
    WandbSink("mine", tmp_path, {}).show(video, 7)  # resumed: sent already
    assert len(service.sent) == 2


def test_kept_episodes_have_steps_frames_and_latents(run: Path) -> None:
    found = api.evaluate_run(run, 2, seed=5, keep=("frames", "latents"))
    for episode, value, length in zip(found.episodes, found.returns, found.lengths, strict=True):
        assert episode["reward"].sum() == value == length
        assert episode["extra.picture"].shape == (length + 1, 400, 600, 3)
        assert episode["extra.latent.deter"].shape[0] == length + 1
        assert np.abs(np.diff(episode["extra.latent.deter"], axis=0)).sum(1).min() > 0
        assert episode["is_last"][-1] and episode["is_terminal"][-1]
    only = api.evaluate_run(run, 2, seed=5, keep=("latents",))
    assert "extra.picture" not in only.episodes[0]
    plain = api.evaluate_run(run, 2, seed=5)
    assert plain.episodes == []
    np.testing.assert_array_equal(
        only.episodes[1]["obs.state"][0], found.episodes[1]["obs.state"][0]
    )
    with pytest.raises(ConfigError, match=r"is a tuple of what is kept: frames, latents\. Did you"):
        api.evaluate_run(run, 1, keep=("frame",))


def test_eval_video_on_the_command_line(run: Path) -> None:
    words = ["eval", str(run), "--episodes", "1", "--video"]
    said = CliRunner().invoke(build_app(), words, catch_exceptions=False)
    assert said.exit_code == 0 and said.output.startswith("episode-0: return ")
    best = Run.open(run).best_tick()
    assert (run / "videos" / f"evaluation-{best:010d}-episode-0.mp4").stat().st_size > 500
    with pytest.raises(ConfigError, match="--video shows the episodes of one run"):
        CliRunner().invoke(build_app(), [*words, "--seeds", "2"], catch_exceptions=False)


def test_an_image_observation_is_shown_where_nothing_is_drawn() -> None:
    image = np.zeros((4, 1, 6, 5), np.uint8)
    image[:, :, 2] = 9
    assert frames_of({"obs.image": image}).shape == (4, 6, 5, 3)
    stacked = np.arange(4 * 6 * 2 * 2, dtype=np.uint8).reshape(4, 6, 2, 2)
    shown = frames_of({"obs.image": stacked})  # the newest of stacked frames
    np.testing.assert_array_equal(shown, stacked[:, 3:].transpose(0, 2, 3, 1))
    with pytest.raises(CapabilityError, match="There is nothing to make a video of: the environ"):
        frames_of({"obs.state": np.zeros((4, 3), np.float32)})
