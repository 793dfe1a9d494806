"""The server: a page's conversation, several pages and sessions, and their ends."""

from __future__ import annotations

import time

import pytest
from play_page import TOKEN
from starlette.websockets import WebSocketDisconnect


def until(true, seconds=10.0):
    """Wait until `true()` holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.02)


def test_a_page_plays(connect):
    with connect() as page:
        welcome = page.hello()
        assert welcome["name"] == "rssm:small" and welcome["plays"] and welcome["decodes"]
        assert welcome["actions"]["names"] == ["left", "stay", "right"]
        assert welcome["actions"]["keys"] == [["ArrowLeft"], [], ["ArrowRight"]]
        assert welcome["kinds"] == ["env", "imagined", "image"]
        page.say("act", action=2, input=7, step=True)
        facts, pixels = page.frame()
        assert facts["t"] == 1 and facts["action"] == 2 and facts["input"] == 7
        assert len(pixels["real"]) == len(pixels["dream"]) == 64 * 64 * 3
        assert facts["ms"]["all"] >= facts["ms"]["dream"] > 0


def test_a_key_that_is_let_go_between_two_steps_still_counts(connect):
    with connect() as page:
        page.hello()
        page.say("act", action=0, input=1)
        page.say("act", action=1, input=2)
        taken = []
        for _ in range(3):
            page.say("step")
            taken.append(page.frame()[0]["action"])
        assert taken == [0, 1, 1]


def test_it_goes_on_by_itself_at_the_speed_it_is_told(connect):
    with connect() as page:
        page.hello()
        page.say("settings", fps=50)
        page.say("play")
        began = time.monotonic()
        at = [page.frame()[0]["t"] for _ in range(12)]
        assert time.monotonic() - began > 11 / 50 - 0.01, "not faster than it is told"
        assert len(set(at)) > 5
        page.say("pause")
        page.say("control", who="agent")
        while page.message("state")["who"] != "agent":
            pass
        page.say("reset", seed=5)
        while (facts := page.frame()[0])["t"] or facts["seed"] != 5:
            pass
        page.say("step")
        assert page.frame()[0]["action"] in (0, 1, 2)


def test_what_cannot_be_done_is_a_sentence_and_the_game_goes_on(connect):
    with connect() as page:
        page.hello()
        page.say("start", kind="data")
        assert page.message("error")["text"] == "This game cannot begin from data."
        page.say("step")
        assert page.frame()[0]["t"] == 1


def test_an_image_is_bytes_of_the_models_size(connect):
    with connect() as page:
        page.hello()
        page.socket.send_bytes(bytes(64 * 64))
        assert "expected 64 x 64 x 3" in page.message("error")["text"]
        page.socket.send_bytes(bytes([255, 0, 0]) * 64 * 64)
        facts, pixels = page.frame()
        assert pixels["real"] == bytes([255, 0, 0]) * 64 * 64 and facts["t"] == 0


def test_a_reload_goes_on_where_it_was(connect):
    with connect() as page:
        session = page.hello()["session"]
        for _ in range(3):
            page.say("step")
            page.frame()
    with connect() as page:
        assert page.hello(session=session)["session"] == session
        assert page.first[0]["t"] == 3


def test_two_pages_two_games(connect, rooms):
    with connect() as one, connect() as other:
        assert one.hello()["session"] != other.hello()["session"]
        one.say("step")
        assert one.frame()[0]["t"] == 1
        other.say("step")
        other.say("step")
        other.frame()
        assert other.frame()[0]["t"] == 2 and len(rooms.running) == 2


def test_who_watches_sees_the_same_and_has_no_say(connect):
    with connect() as player, connect() as watcher:
        watch = player.hello()["watch"]
        welcome = watcher.hello(watch=watch)
        assert not welcome["plays"] and welcome["session"] is None
        watcher.say("step")
        watcher.say("reset", seed=9)
        player.say("step")
        assert player.frame()[0]["t"] == 1
        assert watcher.frame()[0]["t"] == 1


def test_a_session_ends_when_its_viewer_leaves(connect, rooms):
    with connect() as page:
        page.hello()
        assert len(rooms.running) == 1
        session = rooms.running[0]
    until(lambda: not rooms.running)
    assert session.closed.is_set()
    until(lambda: not any(thread.is_alive() for thread in session._thread._threads))


def test_there_is_room_for_so_many(connect):
    with connect() as one, connect() as other, connect() as third:
        one.hello()
        watch = other.hello()["watch"]
        third.say("hello")
        assert "2 sessions run already" in third.message("refused")["text"]
        with connect() as fourth, connect() as fifth, connect() as sixth:
            fourth.hello(watch=watch)
            fifth.hello(watch=watch)
            sixth.say("hello", watch=watch)
            assert "3 pages look at this session already" in sixth.message("refused")["text"]


def test_a_session_that_is_over_cannot_be_watched(connect):
    with connect() as page:
        page.say("hello", watch="nobody")
        assert "is over" in page.message("refused")["text"]
        with pytest.raises(ConnectionError):
            page.read()


def test_the_page_is_served_behind_its_token_only(client):
    page = client.get(f"/{TOKEN}/")
    assert page.status_code == 200 and "<title>WorldFlux play</title>" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("main.js", "play.css", "keys.js"):
        assert client.get(f"/{TOKEN}/{name}").status_code == 200
    for path in ("/", "/wrong/", f"/{TOKEN[:-1]}x/", "/wrong/main.js", f"/{TOKEN}/play"):
        assert client.get(path).status_code == 404, path
    for token in ("wrong", TOKEN[:-1], f"{TOKEN}x"):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"/{token}/play"):
            pass
