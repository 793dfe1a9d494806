"""Real beside imagined, its errors and videos, and the report that embeds them."""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from worldflux.core.rollout import AutoregressiveRollout
from worldflux.episodes import Episode
from worldflux.errors import CapabilityError, ConfigError, StorageError
from worldflux.runs import Run
from worldflux.specs import TensorSpec
from worldflux.testing.dummies import TinyAgent, TinyConfig, TinyModel
from worldflux_train import api, drawing, recording, report
from worldflux_train.drawing import IMAGINED
from worldflux_train.imagination_frames import CONTEXT, frames_of
from worldflux_train.imagine import Imagination, imagine, load_imagination
from worldflux_train.report import write_report
from worldflux_train.video import write_video


def _agent(obs: TensorSpec, key: str = "state") -> TinyAgent:
    return TinyAgent(TinyConfig(), {key: obs}, {"action": TensorSpec((), "int64", n=2)}).eval()


def _episode(length: int, shape: tuple[int, ...] = (3,), key: str = "state") -> Episode:
    random = np.random.default_rng(length)
    if len(shape) == 3:
        obs = random.integers(0, 255, (length, *shape)).astype(np.uint8)
    else:
        obs = random.normal(size=(length, *shape)).astype(np.float32)
    reward = random.normal(size=length).astype(np.float32)
    step = np.arange(length)
    return {
        f"obs.{key}": obs, "action": random.integers(0, 2, length), "reward": reward,
        "is_first": step == 0, "is_last": step == length - 1, "is_terminal": step < 0,
    }  # fmt: skip


class Knows(AutoregressiveRollout):
    """Predicts what really comes: every path lies in the one episode it was given."""

    def __init__(self, episode: Episode, wrong_from: int | None = None) -> None:
        super().__init__()
        self.episode, self.wrong_from = episode, wrong_from

    def forward(
        self, model: Any, state: Any, actions: Any, conditions: Any = None, **o: Any
    ) -> Any:
        path = super().forward(model, state, actions, conditions, **o)
        horizon, starts = path.rewards.shape
        begins = [2 + i * max(1, horizon // 4) for i in range(starts)]
        for i, begin in enumerate(begins):
            rows = slice(begin + 1, begin + 1 + horizon)
            path.rewards[:, i] = torch.as_tensor(self.episode["reward"][rows])
            path.observations["state"][1:, i] = torch.as_tensor(self.episode["obs.state"][rows])
        if self.wrong_from is not None:
            path.rewards[self.wrong_from :] += 1.0
        return path


class Blocks(TinyModel):
    """A model whose step spans two of the environment's."""

    stride = 2


class Asked(AutoregressiveRollout):
    """Keeps the actions that it was asked to imagine."""

    def forward(self, model: Any, state: Any, actions: Any, *rest: Any, **options: Any) -> Any:
        self.actions = actions
        return super().forward(model, state, actions, *rest, **options)


def test_a_model_with_a_stride_imagines_blocks() -> None:
    spaces = {"state": TensorSpec((3,))}, {"action": TensorSpec((), "int64", n=2)}
    model, episode, asked = Blocks(TinyConfig(), *spaces).eval(), _episode(30), Asked()
    model.rollout_executor = asked
    found = imagine(model, [episode], step=1, context=3, horizon=4, seed=0)
    assert (found.context, found.horizon) == (3, 4) and len(found.real["reward"]) == 7
    assert asked.actions[:, 0].tolist() == episode["action"][4:12].reshape(4, 2).tolist()
    sums = episode["reward"][1:13].reshape(6, 2).sum(1)
    assert np.array(found.real["reward"])[1:, 0] == pytest.approx(sums)
    assert np.array(found.real["state"]) == pytest.approx(episode["obs.state"][:13:2])


def test_a_perfect_model_has_no_error_and_a_wrong_one_from_where_it_is_wrong() -> None:
    agent, episode = _agent(TensorSpec((3,))), _episode(30)
    for wrong_from in (None, 4):
        agent.world_model.rollout_executor = Knows(episode, wrong_from)
        found = imagine(agent.world_model, [episode], step=1, context=3, horizon=8, seed=0)
        assert (found.horizon, found.starts) == (8, 10)  # 2, 4, ..., 20, and 8 steps from each
        assert max(found.error["state"]) < 1e-6
        assert found.real["state"] == pytest.approx(np.array(found.imagined["state"]), abs=1e-6)
        rewards = np.array(found.error["reward"])
        assert rewards[:4].max() < 1e-6
        if wrong_from is not None:
            spread = np.stack([episode["reward"][3 + b : 11 + b] for b in range(0, 20, 2)], 1).std()
            assert rewards[4:] == pytest.approx(1 / spread, rel=1e-4)
        assert min(found.still["reward"]) > 0.1


def test_the_imagined_begins_after_the_context() -> None:
    found = imagine(
        _agent(TensorSpec((3,))).world_model, [_episode(12), _episode(40)],
        step=1, context=5, horizon=20, seed=0,
    )  # fmt: skip
    real, imagined = np.array(found.real["state"]), np.array(found.imagined["state"])
    assert real.shape == imagined.shape == (25, 3)
    assert (real[:5] == imagined[:5]).all()
    assert (real[5:] != imagined[5:]).any(1).all()


def test_imagination_decodes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, episode = _agent(TensorSpec((3,))), _episode(30)
    agent.world_model.rollout_executor = Knows(episode)
    decoded: list[int] = []
    rollout = agent.world_model.rollout

    def counted(start: Any, actions: Any, conditions: Any, **options: Any) -> Any:
        decoded.append((len(actions) + 1) * start.batch_size)
        path = rollout(start, actions, conditions, **options)
        for key in ("rewards", "observations"):  # pieces must lie in their order
            value = getattr(path, key)
            (value if key == "rewards" else value["state"]).fill_(len(decoded))
        return path

    monkeypatch.setattr(agent.world_model, "rollout", counted)
    monkeypatch.setattr("worldflux_train.imagine.DECODED_AT_ONCE", 30)
    found = imagine(agent.world_model, [episode], step=1, context=3, horizon=8, seed=0)
    assert found.starts == 10 and decoded == [27, 27, 27, 9]  # three starts of nine states each
    assert set(np.array(found.imagined["reward"])[3:].ravel()) == {1.0}


def test_images_lie_side_by_side(tmp_path: Path) -> None:
    agent = _agent(TensorSpec((3, 8, 8), "uint8", 0, 255), "image")
    found = imagine(
        agent.world_model, [_episode(20, (3, 8, 8), "image")], step=1, context=4, horizon=10, seed=0
    )
    frames = frames_of(found)
    assert frames.shape == (14, 32 + 22 + 224, 3 * 224 + 12, 3)
    real, imagined, difference = (frames[0, 54:, i * 230 : i * 230 + 224] for i in range(3))
    assert (real == imagined).all()  # within the context
    assert (abs(difference.astype(int) - 128) <= 1).all()
    assert (frames[-1, 54:, :224] != frames[-1, 54:, 230:454]).any()
    assert "image" in found.error


def test_a_video_marks_the_context_and_where_imagination_begins() -> None:
    agent = _agent(TensorSpec((3,)))
    found = imagine(agent.world_model, [_episode(20)], step=1, context=4, horizon=12, seed=0)
    frames = frames_of(found)
    slate, red = np.array(ImageColor.getrgb(CONTEXT)), np.array(ImageColor.getrgb(IMAGINED))
    square, line = frames[:, 4, 3], frames[:, 25]  # beside the words; the time line (T, X, 3)
    assert (square[:4] == slate).all() and (square[4:] == red).all()
    width = frames.shape[2]
    assert (line[3, : width // 4 - 4] == slate).all() and not (line[3] == red).all(-1).any()
    assert (line[15, : width // 4 - 4] == slate).all()
    assert (line[15, width // 4 + 4 :] == red).all()  # a quarter of the steps is context
    words = frames[:, :20, 12:]  # other words for each imagined step
    assert (words[3] == words[0]).all() and (words[5] != words[4]).any()


def test_no_card_of_a_report_keeps_a_long_word_in_one_line() -> None:
    rules = (Path(drawing.__file__).parent / "report.css").read_text()
    [body] = [rule for rule in rules.splitlines() if rule.startswith("body {")]
    assert "overflow-wrap: anywhere" in body  # inherited by all that the page holds
    assert "nowrap" not in rules and not re.search(r"[^-]min-width: [1-9]", rules)


def test_recording_for_a_runs_own_video_is_bounded_and_told(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api.train(tiny(overrides={"train.steps": 20}), tmp_path / "run")
    config, agent = api.load_run(tmp_path / "run")
    monkeypatch.setattr(recording, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO):
        assert len(recording.record_episodes(config, agent, 3, 5, seed=0)) == 3
        assert "recording: 2 of 3 episodes, about" in caplog.text
        assert len(recording.record_episodes(config, agent, 3, 5, seed=0, most_seconds=0)) == 1
    assert "recorded 1 of 3 episodes: they take" in caplog.text


def test_curves_of_a_run_with_bursts_go_by_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(drawing, "small_curves", lambda curves: drawn.update(curves) or "")
    rows = [{"step": 5, "tick": tick, "train/loss": 1.0} for tick in (5, 9, 13)]
    report._losses([*rows, {"step": 6, "train/loss": 2.0}])
    assert drawn["loss"] == [(5, 1.0), (9, 1.0), (13, 1.0), (6, 2.0)]


def test_videos_have_every_frame(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (7, 31, 45, 3)).astype(np.uint8)
    mp4 = write_video(tmp_path / "a.mp4", frames, fps=10)
    with av.open(str(mp4)) as container:
        read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(read) == 7
    assert read[0].shape == (30, 44, 3)  # H.264 wants even sides
    gif = Image.open(write_video(tmp_path / "a.gif", frames, fps=10))
    assert getattr(gif, "n_frames", 0) == 7
    with pytest.raises(ConfigError, match=r"a\.avi: videos are written as mp4 or gif"):
        write_video(tmp_path / "a.avi", frames, fps=10)


def test_what_cannot_be_imagined(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = _agent(TensorSpec((3,)))
    with pytest.raises(CapabilityError, match="The longest episode has 1 steps: too few"):
        imagine(agent.world_model, [_episode(1)], step=1, context=3, horizon=3, seed=0)
    monkeypatch.setattr(type(agent.world_model), "capabilities", frozenset())
    with pytest.raises(CapabilityError, match="TinyModel predicts neither observations nor reward"):
        imagine(agent.world_model, [_episode(9)], step=1, context=3, horizon=3, seed=0)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_report_is_one_file_with_everything_in_it(tiny: Any, tmp_path: Path) -> None:
    config = tiny(overrides={"train.steps": 80})
    run = api.train(config, tmp_path / "run").run
    api.imagine_run(run.path, horizon=6, context=2, episodes=2)
    text = write_report(run).read_text("utf-8")
    page = _Links()
    page.feed(text)
    assert page.tags.count("svg") >= 4  # learning curve, real and imagined, error, losses
    assert page.tags.count("video") == 1
    inside = [source for source in page.sources if not source.startswith(("data:", "#"))]
    assert inside == []
    assert not re.search(r"url\((?!#)|@import|<script|<link", text)
    assert config.to_yaml().splitlines()[0] in text
    for part in ("worldflux-core", "torch", "gym/CartPole-v1", "agent steps"):
        assert part in text


def test_a_report_of_a_run_that_just_began(tiny: Any, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    run.config_path.write_text(tiny().to_yaml())
    text = write_report(run).read_text("utf-8")
    assert "No episode has ended yet." in text
    assert "Nothing was learned yet." in text
    assert "run <code>worldflux imagine</code>" in text


def test_a_damaged_imagination_says_how_to_make_it_anew(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    assert load_imagination(run) is None
    (run.videos_path / "imagined-1.json").write_text("{")
    with pytest.raises(StorageError, match="is damaged: .*make it anew with: worldflux imagine"):
        load_imagination(run)


def _drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that the functions of `drawing` make from now on."""
    found: list[Any] = []
    real = drawing.svg

    def keep(fig: Any) -> str:
        found.append(fig)
        return real(fig)

    monkeypatch.setattr(drawing, "svg", keep)
    return found


def test_legends_cover_no_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = _drawn(monkeypatch)
    row = {f"eval/return{end}": 9.0 for end in ("", "_std", "_min", "_max")}
    drawing.learning_curve([{"step": 0, **row}, {"step": 9, **row}], [(0, 1.0), (9, 30.0)])
    curve = [[float(i)] for i in range(9)]
    found = Imagination(1, 2, 3, 4, {"x": curve}, {"x": curve}, {"x": [1.0] * 3}, {"x": [2.0] * 3})
    drawing.real_and_imagined(found)
    drawing.error_over_horizon(found)
    assert len(figures) == 3
    for fig in figures:
        [legend] = fig.legends
        for axes in fig.axes:
            assert axes.get_legend() is None
            assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_a_curve_of_one_point_is_drawn_as_a_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = _drawn(monkeypatch)
    drawing.small_curves({"one": [(5, 1.0)], "two": [(5, 1.0), (6, 1.0)]})
    one, two = (axes.get_lines()[0] for axes in figures[0].axes[:2])
    assert (one.get_marker(), two.get_marker()) == ("o", "None")


def test_cards_show_the_end_and_damaged_rows_are_passed_over() -> None:
    evaluation = {f"eval/return{end}": 9.0 for end in ("", "_std", "_min", "_max")}
    rows = [
        {"step": 100, "updates": 7, "time/elapsed": 1.0, "time/wall": 2.0, "train/loss": 1.0},
        {"step": 120, "eval/return": 9.0},  # an evaluation that lacks keys
        {"step": 130, "episode/return": "x", "train/loss": None, "updates": "many"},
        {"step": 150, **evaluation, "time/wall": 3600.0},
    ]
    text = report._tiles(rows)
    assert '"value">150</div><div class="name">agent steps' in text
    assert '"value">7</div><div class="name">updates, at step 100' in text
    assert '"value">1:00:00</div><div class="name">time' in text
    assert "<svg" in report._learning(rows) and "<svg" in report._losses(rows)


def test_an_environment_without_render_gives_no_pictures() -> None:
    from worldflux_train.recording import _picture

    class Blind:
        def render(self) -> None:
            raise NotImplementedError

    assert _picture(Blind()) is None
