"""Hostile pages, names, messages and images do nothing; what a page may hold is bounded."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from play_page import TOKEN
from starlette.websockets import WebSocketDisconnect

from worldflux.errors import ConfigError, ContractError
from worldflux.runs import Run
from worldflux.specs import TensorSpec
from worldflux.trust import TrustError
from worldflux_play.actions import action_array, described, keys, nothing
from worldflux_play.game import REMEMBERED, Game, Shown
from worldflux_play.messages import parsed
from worldflux_play.opened import open_played
from worldflux_play.play_session import MOST_JOBS
from worldflux_play.server import MOST_FAULTS, application
from worldflux_play.serving import bound, checked_token, configured, loopback, prepared
from worldflux_play.sessions import Sessions
from worldflux_play.viewer import IN_FLIGHT, MOST_WAITING, Viewer, packed

PATHS = [
    "/{t}/../../../../etc/passwd", "/{t}/%2e%2e/%2e%2e/etc/passwd",
    "/{t}//etc/passwd", "/{t}/..%2f..%2f..%2fetc%2fpasswd", "/{t}/%2fetc%2fpasswd",
    "/{t}/index.html", "/{t}/server.py", "/{t}/__init__.py", "/{t}/recordings/", "/{t}/recordings",
    "/{t}/recordings/config.yaml", "/{t}/recordings/..%2fconfig.yaml",
    "/{t}/recordings/../config.yaml", "/{t}/recordings/%2e%2e/config.yaml",
    "/{t}/recordings/..\\config.yaml", "/{t}/page/main.js", "/{t}/main.js/", "/{t}/main.js%00",
    "/{t}", "/{t}/%00", "/{t}/..;/", "/{t}/\u202e", "/recordings/x",
]  # fmt: skip


def raw(port, path):
    """The answer to a request for exactly this path, as no client would send it."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts).decode(errors="replace")


def test_no_file_is_reachable(played):
    (played.out / "config.yaml").write_text("secret")
    with Served(played, Sessions(played)) as served:
        assert raw(served.port, f"/{TOKEN}/").startswith("HTTP/1.1 200"), "the page is there"
        for path in PATHS:
            answer = raw(served.port, path.format(t=TOKEN))
            assert answer[9:12] in ("307", "400", "404"), (path, answer[:300])
            assert "secret" not in answer and "root:" not in answer, path


def test_a_film_of_an_earlier_server_is_not_served(client, played):
    (played.out / "play-old.mp4").write_text("not of this server")
    assert client.get(f"/{TOKEN}/recordings/play-old.mp4").status_code == 404


def test_nothing_can_be_put_there(client):
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, f"/{TOKEN}/main.js", content=b"x").status_code == 405


def test_the_page_of_another_origin_cannot_connect(connect):
    elsewhere = {"origin": "https://evil.example"}
    with pytest.raises(WebSocketDisconnect), connect(headers=elsewhere):
        pass
    with connect(headers={"origin": "http://testserver"}) as page:
        assert page.hello()["plays"]


BAD = [
    "", "{", "[]", "null", "1", '"hello"', "{}", '{"type": 1}', '{"type": "shutdown"}',
    '{"type": "act"}', '{"type": "act", "action": "left"}', '{"type": "act", "action": -1}',
    '{"type": "act", "action": 3}', '{"type": "act", "action": true}',
    '{"type": "act", "action": [0]}', '{"type": "act", "action": {"a": 1}}',
    '{"type": "act", "action": 1, "input": -1}', '{"type": "act", "action": 1e999}',
    '{"type": "act", "action": [NaN]}', '{"type": "act", "action": 0, "more": 1}',
    '{"type": "reset", "seed": -1}', '{"type": "reset", "seed": 99999999999999999999}',
    '{"type": "settings", "fps": 0}', '{"type": "settings", "fps": 1e9}',
    '{"type": "settings", "fps": "NaN"}', '{"type": "start", "kind": "/etc/passwd"}',
    '{"type": "start", "kind": "image"}', '{"type": "start", "kind": "data", "episode": -1}',
    '{"type": "record", "kind": "../../x"}', '{"type": "record", "kind": "exe"}',
    '{"type": "hello"}', '{"type": "step"}' + " " * 20_000, "[" * 10_000, '{"type":"play"}\x00',
    json.dumps({"type": "act", "action": [0.5] * 3000}),
]  # fmt: skip


@pytest.mark.parametrize("start", range(0, len(BAD), MOST_FAULTS - 1))
def test_hostile_messages_are_sentences(connect, start, rooms):
    with connect() as page:
        page.hello()
        for text in BAD[start : start + MOST_FAULTS - 1]:
            page.socket.send_text(text)
            said = page.message("error")["text"]
            assert said and len(said) < 400 and "Traceback" not in said, (text[:60], said)
        assert rooms.running[0].game.at == 0, "nothing was done"
        page.say("step")
        assert page.frame()[0]["t"] == 1, "and the game goes on"


def test_a_page_that_says_nothing_else_is_cut_off(connect):
    with connect() as page:
        page.hello()
        for _ in range(MOST_FAULTS):
            page.socket.send_text("nonsense")
        with pytest.raises(ConnectionError):
            while True:
                page.read()


def test_who_is_unknown_is_no_error_of_the_server(connect):
    with connect() as page:
        page.hello()
        page.say("control", who="<img src=x onerror=alert(1)>")
        assert "Nobody here is called" in page.message("error")["text"]
        page.say("step")
        assert page.frame()[0]["t"] == 1


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.text(), st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8,
).map(json.dumps)))  # fmt: skip
def test_any_text_is_a_message_or_refused(text):
    try:
        parsed(text)
    except ConfigError as error:
        assert len(str(error)) < 400


@settings(max_examples=200, deadline=None)
@given(st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(),
    st.lists(st.integers() | st.floats() | st.booleans(), max_size=5),
))  # fmt: skip
def test_any_action_is_one_of_the_space_or_refused(value):
    spaces = (
        TensorSpec((), "int64", n=3), TensorSpec((2,), "int64", n=(2, 5)), TensorSpec((3,)),
        TensorSpec((2, 2)),
    )  # fmt: skip
    for spec in spaces:
        try:
            action = action_array(spec, value)
        except ContractError as error:
            assert len(str(error)) < 200
            continue
        assert action.shape == spec.shape and action.dtype == nothing(spec).dtype
        if spec.discrete:
            assert (action >= 0).all() and (action < spec.counts).all()
        else:
            assert (abs(action) <= 1).all()


@pytest.mark.parametrize("size", [0, 1, 64 * 64 * 3 - 1, 64 * 64 * 3 + 1, 10**6])
def test_an_image_of_any_other_size_is_refused(connect, size):
    with connect() as page:
        page.hello()
        page.socket.send_bytes(bytes(size))
        assert "An image of" in page.message("error")["text"]


def test_requests_do_not_pile_up(connect, rooms):
    with connect() as page:
        page.hello()
        for _ in range(MOST_JOBS + 15):
            page.say("step")
        session = rooms.running[0]
        assert session._jobs.qsize() <= MOST_JOBS
        page.say("pause")
        seen = [page.frame()[0]["t"]]
    assert seen


def test_a_page_that_does_not_read_holds_one_frame_and_is_then_gone():
    async def check():
        viewer = Viewer(plays=True)
        for step in range(1000):
            viewer.show(packed(Shown({"t": step})))
        assert b'"t": 999' in await viewer.next(), "the newest, and no other"
        for step in range(3):
            viewer.show(packed(Shown({"t": step})))
            if step < IN_FLIGHT - 1:
                await viewer.next()
        with pytest.raises(TimeoutError):  # nothing more before it has shown one
            await asyncio.wait_for(viewer.next(), 0.05)
        viewer.seen()
        assert b'"t": 2' in await viewer.next()
        for _ in range(MOST_WAITING):
            viewer.tell({"type": "state"})
        assert not viewer.gone.is_set()
        viewer.tell({"type": "state"})
        assert viewer.gone.is_set() and len(viewer._messages) == MOST_WAITING

    asyncio.run(check())


def test_a_long_game_remembers_only_so_much(played):
    game = Game(played)
    game.goes_on = False
    for _ in range(REMEMBERED + 10):
        game.advance()
    assert len(game.history) == REMEMBERED
    game.close()


def test_only_this_machine_is_no_reason_for_a_warning():
    assert loopback("127.0.0.1") and loopback("::1") and not loopback("0.0.0.0")
    assert not loopback("192.168.1.7") and not loopback("::")


def test_tokens_of_the_callers_are_long_and_plain():
    assert checked_token("a" * 16) == "a" * 16
    for token in ("", "short", "a/" * 20, "a b" * 10, "..%2f" * 5):
        with pytest.raises(ConfigError, match="--token takes at least 16"):
            checked_token(token)


def test_the_next_free_port_is_taken():
    with bound("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        with bound("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] < port + 20
        with pytest.raises(ConfigError, match=r"127\.0\.0\.1:\d+ cannot be listened at"):
            bound("127.0.0.1", port, tries=1)


def test_code_that_a_run_names_is_not_run(run, tmp_path, monkeypatch):
    config = Run.open(run).saved_config()
    config["env"] = {"id": "gym/evil_module:Env"}
    monkeypatch.setattr(Run, "saved_config", lambda self: config)
    with pytest.raises(TrustError, match="evil_module"):
        open_played(run)
    assert open_played(run, env="wf/catch").env == "wf/catch", "the caller's own word"
    assert open_played(run, trust=("evil_module",)).env == "gym/evil_module:Env"


HOSTILE = ("<img src=x onerror=alert(1)>", "../../etc/passwd", "'; DROP TABLE", "\x00\u202e", "")


def test_hostile_names_of_choices_are_only_names():
    spec = TensorSpec((), "int64", n=5, labels=HOSTILE)
    found = described(spec)
    assert found["names"] == list(HOSTILE) and found["keys"] == [["1"], ["2"], ["3"], ["4"], ["5"]]
    json.dumps(found)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["NOOP", "FIRE", "UP", "UPRIGHTFIRE"],
         [[], [" "], ["ArrowUp"], ["ArrowUp", "ArrowRight", " "]]),
        (["0", "1", "2"], [["1"], ["2"], ["3"]]),
        (["left", "stay", "right"], [["ArrowLeft"], [], ["ArrowRight"]]),
        (["noop", "move_left", "move_down", "do"], [[], ["ArrowLeft"], ["ArrowDown"], ["1"]]),
        (["left", "right", "forward", "drop"],
         [["ArrowLeft"], ["ArrowRight"], ["ArrowUp"], ["1"]]),
        (["up", "UP", "down"], [["1"], ["2"], ["3"]]),
        (["a", "b"] * 12, [[key] for key in "1234567890qwertyuiop"] + [[""]] * 4),
    ],
)  # fmt: skip
def test_keys_follow_the_names(names, expected):
    assert keys(names) == expected


class Served:
    """The application behind a real socket, in a thread."""

    def __init__(self, played, rooms, ping=0.3):
        self.socket = bound("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.server = uvicorn.Server(configured(application(played, TOKEN, rooms), ping, ping))
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(15)
        self.socket.close()


VANISHING = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1]) as page:
    page.send('{"type": "hello"}')
    page.recv()
    page.send('{"type": "play"}')
    print("playing", flush=True)
    while True:
        page.recv()
"""


def test_a_viewer_that_vanishes_without_a_word_ends_its_session(played):
    """Its process is stopped, not killed: the connection stays open and silent."""
    rooms = Sessions(played, linger=0.2)
    with Served(played, rooms) as served:
        address = f"ws://127.0.0.1:{served.port}/{TOKEN}/play"
        page = subprocess.Popen(
            [sys.executable, "-c", VANISHING, address], stdout=subprocess.PIPE, text=True
        )
        try:
            assert page.stdout.readline() == "playing\n"
            assert len(rooms.running) == 1
            os.kill(page.pid, signal.SIGSTOP)
            end = time.monotonic() + 20
            while rooms.running:
                assert time.monotonic() < end, "the session outlives its viewer"
                time.sleep(0.05)
        finally:
            page.kill()
            page.wait()


def test_a_message_that_is_too_large_ends_the_connection_and_nothing_else(played):
    websockets = pytest.importorskip("websockets.sync.client")
    rooms = Sessions(played, linger=0.2)
    with Served(played, rooms) as served:
        address = f"ws://127.0.0.1:{served.port}/{TOKEN}/play"
        with websockets.connect(address) as page:
            page.send('{"type": "hello"}')
            page.recv()
            with pytest.raises(Exception, match="1009|too big|message"):
                page.send(bytes(5 * 2**20))
                while True:
                    page.recv()
        with websockets.connect(address) as page:
            page.send('{"type": "hello"}')
            assert json.loads(page.recv())["type"] == "welcome"


def test_the_address_has_a_random_token(played):
    found = []
    for _ in range(2):
        _, listening, [line] = prepared(played, port=0)
        listening.close()
        assert line.startswith("Play at http://127.0.0.1:")
        found.append(line.rstrip("/").rpartition("/")[2])
    assert found[0] != found[1] and all(len(token) >= 32 for token in found)


def test_another_address_is_warned_of(played):
    _, listening, [first, second] = prepared(played, host="0.0.0.0", port=0)
    listening.close()
    assert first.startswith("Warning: 0.0.0.0 can be reached from other machines")
    assert second.startswith("Play at http://0.0.0.0:")


def test_the_port_is_closed_to_others_by_default(played):
    rooms = Sessions(played)
    with Served(played, rooms) as served:
        own = [
            found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
        ]
        for address in own:
            if loopback(address):
                continue
            with pytest.raises(OSError), socket.create_connection((address, served.port), 1):
                pass
