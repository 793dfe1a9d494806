"""Recordings: films that show both sides, and episodes that training can read."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from play_page import TOKEN

from worldflux.episodes import Episodes
from worldflux.errors import StorageError
from worldflux_play import films
from worldflux_play.films import Film, drawn_bars, side_by_side
from worldflux_play.game import Game, Shown
from worldflux_play.recordings import recording


def shown(real=200, dream=100):
    pixels = {"real": np.full((64, 64, 3), real, np.uint8)}
    pixels["dream"] = np.full((64, 64, 3), dream, np.uint8)
    return Shown({"bars": {}}, pixels)


def frames(path):
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def test_an_mp4_shows_reality_and_the_dream(tmp_path):
    film = Film(tmp_path / "films" / "one.mp4", "mp4", 15)
    for step in range(10):
        film.show(shown(dream=10 * step))
    assert not (tmp_path / "films" / "one.mp4").exists(), "it has its name when it is complete"
    path = film.finish()
    found = frames(path)
    assert len(found) == 10 and found[0].shape == (256, 2 * 256 + 8, 3)
    assert abs(int(found[9][128, 128, 0]) - 200) < 4 and abs(int(found[9][128, 400, 0]) - 90) < 4
    assert list(path.parent.iterdir()) == [path], "nothing else is left"


def test_a_gif_has_its_frames_and_its_pace(tmp_path):
    film = Film(tmp_path / "one.gif", "gif", 10)
    for step in range(5):
        film.show(shown(dream=20 + 40 * step))
    with Image.open(film.finish()) as image:
        assert image.n_frames == 5 and image.info["duration"] == 100
        image.seek(4)
        assert abs(image.convert("RGB").getpixel((400, 128))[0] - 180) < 12


def test_a_film_is_only_so_long(tmp_path, monkeypatch):
    monkeypatch.setitem(films.MOST_FRAMES, "gif", 3)
    film = Film(tmp_path / "one.gif", "gif", 10)
    for _ in range(9):
        film.show(shown())
    assert film.full and film.frames == 3


def test_a_film_of_nothing_leaves_nothing(tmp_path):
    assert Film(tmp_path / "one.mp4", "mp4", 10).finish() is None
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        Film(tmp_path / "file" / "one.mp4", "mp4", 10)


def test_sides_of_other_sizes_and_vectors_stand_beside_one_another():
    tall = Shown({"bars": {"dream": [1.0, -1.0]}}, {"real": np.zeros((300, 201, 3), np.uint8)})
    assert side_by_side(tall).shape == (300, 464, 3)
    assert side_by_side(Shown({"bars": {}})) is None
    canvas = drawn_bars([1.0, -0.5], (255, 0, 0))
    assert canvas[20, 60, 0] == 255 and canvas[20, 200, 0] < 50 and canvas[160, 200, 0] == 255


@pytest.fixture
def game(played):
    found = Game(played, seed=3)
    yield found
    found.close()


def test_an_episode_is_what_really_happened(game, tmp_path):
    made = recording("episode", tmp_path, game.model, 15)
    game.recorder = made
    seen = [game.moment.obs["image"]]
    for _ in range(9):
        game.advance(np.array(0))
        seen.append(game.moment.obs["image"])
    game.advance(np.array(2))  # the next episode begins
    game.advance(np.array(2))
    game.leave_recorder()
    first, second = Episodes(made.finish())
    assert np.array_equal(first["obs.image"], np.stack(seen))
    assert first["action"].tolist() == [0] * 10 and abs(first["reward"][-1]) == 1
    assert first["is_terminal"].tolist() == [False] * 9 + [True]
    assert second["action"].tolist() == [2, 0] and not second["is_terminal"].any()


def test_an_episode_may_begin_in_the_middle_and_be_broken_off(game, tmp_path):
    game.advance(np.array(2))
    game.recorder = made = recording("episode", tmp_path, game.model, 15)
    start = game.moment.obs["image"]
    game.advance(np.array(0))
    game.reset()
    game.leave_recorder()
    [episode] = Episodes(made.finish())
    assert np.array_equal(episode["obs.image"][0], start) and len(episode["action"]) == 2


def test_without_a_reality_the_dream_is_recorded(game, tmp_path):
    game.begin_from("imagined")
    game.recorder = made = recording("episode", tmp_path, game.model, 15)
    dreamt = [game.advance(np.array(0)).pixels["dream"] for _ in range(3)]
    game.leave_recorder()
    [episode] = Episodes(made.finish())
    assert np.array_equal(episode["obs.image"][1].transpose(1, 2, 0), dreamt[0])


def test_nothing_recorded_is_no_recording(game, tmp_path):
    game.recorder = made = recording("episode", tmp_path, game.model, 15)
    game.leave_recorder()
    assert made.finish() is None


def test_what_is_recorded_can_be_played(game, played, tmp_path):
    game.recorder = made = recording("episode", tmp_path, game.model, 15)
    real = [game.advance(np.array(0)).pixels["real"] for _ in range(3)]
    game.leave_recorder()
    again = Game(replace(played, data=Episodes(made.finish())))
    again.begin_from("data")
    again.control("recorded")
    assert np.array_equal(again.advance().pixels["real"], real[0])


def test_a_page_records_and_gets_the_film(connect, client, played):
    with connect() as page:
        page.hello()
        page.say("record", kind="mp4")
        while page.message("state")["recording"] != "mp4":
            pass
        for _ in range(4):
            page.say("step")
            page.frame()
        page.say("record", kind=None)
        told = page.message("recorded")
        assert told["film"] and Path(told["name"]).suffix == ".mp4"
        answer = client.get(f"/{TOKEN}/recordings/{told['name']}")
        assert answer.headers["content-type"] == "video/mp4"
        assert answer.content == (played.out / told["name"]).read_bytes()
        assert len(frames(played.out / told["name"])) == 5, "the frame it began at, and four steps"
        part = client.get(f"/{TOKEN}/recordings/{told['name']}", headers={"Range": "bytes=0-9"})
        assert part.status_code == 206 and len(part.content) == 10, "videos are sought in"
        assert client.get(f"/wrong/recordings/{told['name']}").status_code == 404


def test_a_film_is_completed_when_its_viewer_leaves(connect, rooms, played):
    before = set(played.out.iterdir())
    with connect() as page:
        page.hello()
        page.say("record", kind="gif")
        while page.message("state")["recording"] != "gif":
            pass
        page.say("step")
        page.frame()
    end = time.monotonic() + 10
    while not (new := [p for p in set(played.out.iterdir()) - before if p.suffix == ".gif"]):
        assert time.monotonic() < end
        time.sleep(0.05)
    with Image.open(new[0]) as image:
        assert image.n_frames == 2
