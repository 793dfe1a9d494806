"""Unity: the real ML-Agents client against a player of ours in a process of its own."""

import json
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldflux.errors import EnvError
from worldflux.testing import check_env
from worldflux_envs.backends import unity

pytest.importorskip("mlagents_envs", reason="the extra unity is not installed")
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the player is a script"),
    pytest.mark.filterwarnings("ignore"),
]
SOURCE = (Path(__file__).parent / "fake_player.py").read_text()


@pytest.fixture
def player(tmp_path):
    """Options for `make`: the executable and the scenario; `told()` is what it was told."""
    file = tmp_path / "Game.x86_64"
    file.write_text(f"#!{sys.executable}\n{SOURCE}")
    file.chmod(0o755)
    return Fake(tmp_path)


class Fake:
    def __init__(self, folder):
        self.path, self.record = str(folder / "Game"), folder / "record"

    def options(self, scenario, *args, **options):
        found = ["--scenario", scenario, "--record", str(self.record), *map(str, args)]
        return {"task": self.path, "args": found, "timeout_wait": 20, **options}

    def make(self, *args, **options):
        return unity.make(**self.options(*args, **options))

    def told(self, key):
        lines = map(json.loads, self.record.read_text().splitlines())
        return [line[key] for line in lines if key in line]


def gone(pid, seconds=5.0):
    """Whether the process ends in time (a zombie, which others have to reap, has ended)."""
    for _ in range(1 + int(seconds / 0.05)):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or ") Z" in stat.read_text():
            return True
        time.sleep(0.05)
    return False


def image(step, rows=8, columns=10, channels=3):
    c, y, x = np.ogrid[:channels, :rows, :columns]
    return ((10 * y + x + 60 * c + 7 * step) % 256).astype(np.uint8)


def test_vectors_and_continuous_actions(player):
    check_env(lambda: player.make("vector"), steps=20)
    env = player.make("vector")
    assert env.action_space.shape == (2,)
    obs, _ = env.reset(seed=10)
    assert np.allclose(obs["state"], [(310 % 100) / 200 - 0.25, 0, 0])
    obs, reward, terminated, truncated, _ = env.step(np.array([0.5, -3.0]))
    assert np.allclose(obs["state"], [-0.15, 1, 0]) and (terminated, truncated) == (False, False)
    assert reward == pytest.approx(0.5 + 0.5)  # its own and its group's
    env.close()
    assert player.told("actions")[-1] == {"Walk?team=0": [[[0.5, -1.0], []]]}
    assert gone(player.told("pid")[-1], 0)


def test_an_end_is_told_from_a_limit(player):
    env = player.make("vector", "--limit", 12)
    env.reset(seed=3)
    ends = [env.step([0.0, 0.0])[2:4] for _ in range(12)]
    assert ends == [(False, False)] * 11 + [(False, True)]
    env.reset(seed=3)
    ends = [env.step([1.0, 0.0])[2:4] for _ in range(8)]
    assert ends[-1] == (True, False) and not any(map(any, ends[:-1]))
    assert env.reset(seed=3)[0]["state"][1] == 0
    env.close()


def test_images_and_one_branch(player):
    env = player.make("pixels", obs="pixels", render_mode="rgb_array")
    assert env.action_space.n == 3 and set(env.observation_space.spaces) == {"image"}
    obs, info = env.reset(seed=0)
    assert np.array_equal(obs["image"], image(0)) and info["action_mask"].tolist() == [1, 1, 1]
    obs, _, _, _, info = env.step(2)
    assert np.array_equal(obs["image"], image(1)) and info["action_mask"].tolist() == [0, 1, 1]
    assert np.array_equal(env.render(), image(1).transpose(1, 2, 0))
    env.close()
    assert player.told("actions") == [{"See": [[[], [2]]]}]


def test_mixed_observations_and_branched_actions(player):
    env = player.make("mixed")
    assert env.action_space.nvec.tolist() == [3, 2, 4]
    env.reset(seed=0)
    obs, *_, info = env.step([2, 1, 3])
    assert np.allclose(obs["state"], [-0.05, 1, 0, -1]) and np.allclose(obs["goal"], [-0.05, 1])
    assert np.array_equal(obs["image"], image(1))
    assert np.array_equal(obs["night_eye"], image(1, 6, 7, 1))
    assert np.array_equal(obs["buffer"], np.arange(12))
    grid = image(1, 6, 7, 2).transpose(1, 2, 0).ravel() / 255
    assert np.allclose(obs["grid"], grid) and info["action_mask"].shape == (9,)
    check_env(lambda: env, steps=10)
    assert player.told("actions")[0] == {"Mix": [[[], [2, 1, 3]]]}


def test_continuous_and_discrete_actions_together(player):
    env = player.make("hybrid")
    assert env.action_space.shape == (4,)
    env.reset(seed=0)
    for last in ([-1, -1], [0, -0.01], [1, 1]):
        env.step(np.array([0.5, -0.5, *last]))
    env.close()
    assert [told["Both"][0][1] for told in player.told("actions")] == [[0, 0], [1, 0], [2, 1]]


def test_images_with_channels_first_of_newer_players(player):
    env = player.make("first")
    obs, _ = env.reset(seed=0)
    obs, *_ = env.step([0.0])
    assert np.array_equal(obs["image"], image(1)) and np.array_equal(obs["two"], image(1, 6, 7))
    env.close()


def test_a_behaviour_is_chosen(player):
    env = player.make("two", behavior="Walk")
    env.reset(seed=0)
    env.step([0.25, 0.0])
    env.close()
    told = {"Walk": [[[0.25, 0.0], []]], "See": [[[], [0]], [[], [0]]]}
    assert player.told("actions") == [told]  # the others stand still


def test_engine_and_environment_parameters_and_side_channels(player):
    from mlagents_envs.side_channel.raw_bytes_channel import RawBytesChannel

    channel = RawBytesChannel(__import__("uuid").UUID(int=7))
    env = player.make(
        "vector", time_scale=3.0, width=64, height=32, quality_level=2, target_frame_rate=-1,
        capture_frame_rate=50, parameters={"gravity": 2.5}, no_graphics=True, num_areas=2,
        side_channels=lambda: [channel],
    )  # fmt: skip
    channel.send_raw_data(b"hello")
    env.reset(seed=5, options={"wind": 0.5})
    env.step([0.0, 0.0])
    assert env.unwrapped.player.stats.get_and_reset_stats()["steps"][-1][0] == 1.0
    env.close()
    engine = [tuple(e) for e in player.told("engine")]
    assert set(engine) == {(0, 64, 32), (1, 2), (2, 3.0), (3, -1), (4, 50)}
    assert player.told("parameter") == [["gravity", 2.5], ["wind", 0.5], ["seed", 5.0]]
    assert str(channel.channel_id) in player.told("channel") and player.told("areas") == [2]
    assert {"-nographics", "-batchmode"} <= set(player.told("argv")[0])


def test_a_restart_gives_the_player_the_seed(player):
    env = player.make("vector", restart=True, seed_parameter=None)
    first, _ = env.reset(seed=9)
    env.step([1.0, 0.0])
    second, _ = env.reset(seed=9)
    env.close()
    assert player.told("seed") == [0, 9, 9] and np.array_equal(first["state"], second["state"])
    assert all(gone(pid, 0) for pid in player.told("pid"))


def walk(vec, steps, seed=0):
    """Observations, and which rows were first, ended or cut off."""
    vec.reset(seed=seed)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(steps):
        obs, reward, terminated, truncated, infos = vec.step(rng.uniform(0, 1, (vec.num_envs, 1)))
        rows.append((obs["state"], reward, terminated, truncated, infos["is_first"]))
    return rows


@pytest.mark.parametrize(
    "args", [(), ("--spread", 2), ("--spread", 1, "--period", 2, "--late"), ("--drift", 1)]
)
def test_several_agents_are_a_vector_environment(player, args):
    options = player.options("crowd", *args, size=4)
    vec = unity.make_vec(num_envs=3, **options)
    assert type(vec).__name__ == "UnityVec" and vec.buffers["image"].shape == (3, 3, 4, 4)
    rows = walk(vec, 30)
    vec.close()
    assert gone(player.told("pid")[0], 0)
    ended = np.array([a | b for _, _, a, b, _ in rows])
    first = np.array([f for *_, f in rows])
    assert np.array_equal(ended[:-1], first[1:]) and (ended.sum(0) >= 2).all()
    step = np.array([s[:, 1] for s, *_ in rows])
    for row in range(3):
        going_on = ~first[1:, row]
        assert (np.diff(step[:, row])[going_on] > 0).all()
        assert (step[first[:, row], row] < step[ended[:, row], row].min()).all()
        assert (rows[0][1] > 0).all() and all(reward[f].sum() == 0 for _, reward, *_, f in rows)


def test_several_players_for_more_agents(player):
    vec = unity.make_vec(num_envs=6, **player.options("crowd"))
    walk(vec, 12)
    assert len(vec.groups) == 2 and len(vec.render()) == 6
    vec.set_parameters(wind=1.0)
    vec.step(np.zeros((6, 1)))
    vec.close()
    assert all(gone(pid, 0) for pid in player.told("pid"))
    assert player.told("parameter").count(["wind", 1.0]) == 2


def test_one_agent_in_every_mode_is_the_same_episode(player):
    options = player.options("vector", "--limit", 5)
    found = []
    for mode in ("sync", "native"):
        vec = unity.make_vec(num_envs=2, mode=mode, **options)
        vec.reset(seed=4)
        found.append([vec.step(np.full((2, 2), 0.5))[:4] for _ in range(9)])
        vec.close()
    for (obs, *left), (other, *right) in zip(*found, strict=True):
        assert np.array_equal(obs["state"], other["state"])
        assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
    assert all(gone(pid, 0) for pid in player.told("pid"))


def test_a_player_that_dies_is_reported_and_its_agents_begin_anew(player):
    vec = unity.make_vec(num_envs=3, **player.options("crowd", "--die-at", 4))
    vec.reset(seed=0)
    failures = []
    for _ in range(6):
        *_, infos = vec.step(np.zeros((3, 1)))
        failures += [text for text in infos.get("failure", ()) if text]
        if "failure" in infos:
            assert infos["is_first"].all()
    assert len(failures) == 3 and "shut down with return code 3" in failures[0]
    vec.close()
    assert len(player.told("pid")) == 2 and all(gone(pid, 0) for pid in player.told("pid"))


def test_agents_that_do_not_come_back_are_reported(player, monkeypatch):
    from worldflux_envs.unity import agents

    monkeypatch.setattr(agents, "_LONGEST", 5)
    vec = unity.make_vec(num_envs=3, **player.options("crowd", "--vanish", "--spread", 9))
    with pytest.raises(
        EnvError, match="of 3 agents of Walk only 2 still ask for decisions. As a v"
    ):
        walk(vec, 60)
    vec.close()


def test_an_episode_that_cannot_be_resumed_begins_anew(player):
    options = player.options("crowd", "--spread", 2)
    vec, other = (unity.make_vec(num_envs=3, **options) for _ in range(2))
    walk(vec, 8)
    state = json.loads(json.dumps(vec.get_state()))
    ended = np.array(state["ended"])
    assert 0 < ended.sum() < 3
    obs, is_first = other.set_state(state)
    assert np.array_equal(is_first, ~ended) and (obs["state"][is_first, 1] == 0).all()
    obs, *_, infos = other.step(np.zeros((3, 1)))
    assert np.array_equal(infos["is_first"], ended) and (obs["state"][:, 1] == 1).all()
    vec.close(), other.close()


@pytest.mark.parametrize(
    ("args", "options", "text"),
    [
        (("--die-at", 1), {}, "Game: .*return code 3.* With log_folder=... it writes why"),
        (("--quit-at", 1), {}, "unity/Game has quit by itself"),
        (("--hang-at", 1), {"timeout_wait": 1.5}, r"has not answered for 1.5 s\. It may be load"),
    ],
)
def test_a_player_that_fails_in_a_step(player, args, options, text):
    env = player.make("vector", *args)
    env.reset(seed=0)
    running = env.unwrapped.player
    patient, running.launch = running.launch, replace(running.launch, **options)
    running._client._communicator._wait = running.launch.timeout_wait
    with pytest.raises(EnvError, match=text):
        env.step([0.0, 0.0])
    assert gone(player.told("pid")[0], 0)
    # It may be used again: a reset starts the player.
    running.launch = patient
    env.reset(seed=0)
    env.close()
    assert all(gone(pid, 0) for pid in player.told("pid")) and len(player.told("pid")) == 2


@pytest.mark.parametrize(
    ("scenario", "args", "options", "text"),
    [
        ("vector", ("--mute",), {"timeout_wait": 2.5}, "Game has not answered for 2.5 s"),
        ("vector", ("--version", "2.0.0"), {}, "API version is not compatible"),
        ("two", (), {}, "Game has 2 behaviours: say behavior=, one of Walk, See"),
        ("two", (), {"behavior": "Wark"}, "no behaviour 'Wark'. Did you mean 'Walk'.*Walk, See"),
        ("two", (), {"behavior": "See"}, r"Game has 2 agents of See.*num_envs=2\)"),
        ("nobody", (), {}, "unity/Game has no agent that asks us for decisions"),
        ("vector", (), {"obs": "both"}, "obs='both' needs images, and this behaviour has no vis"),
        ("vector", (), {"time_skale": 1}, "no option 'time_skale'. Did you mean 'time_scale'"),
    ],
)
def test_what_cannot_be_made_says_why_and_leaves_nothing(player, scenario, args, options, text):
    with pytest.raises(EnvError, match=text):
        player.make(scenario, *args, **options)
    if player.record.exists():
        assert all(gone(pid, 1) for pid in player.told("pid"))


def test_other_errors(player, tmp_path):
    with pytest.raises(EnvError, match=r"no Unity player at /.*Gane: give the path of the exe"):
        unity.make(str(tmp_path / "Gane"))
    (tmp_path / "Text.x86_64").write_text("no program")
    with pytest.raises(EnvError, match="unity/Text: .*permissions"):
        unity.make(str(tmp_path / "Text"))
    with pytest.raises(EnvError, match="num_envs must be 3 or a multiple, not 4"):
        unity.make_vec(num_envs=4, **player.options("crowd"))
    env = player.make("vector")
    with pytest.raises(EnvError, match="observes no image, so there is nothing to render"):
        env.unwrapped.render()
    env.close()


def test_ports(player):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EnvError, match=rf"Port {port} of this machine is in use: another env"):
            player.make("vector", base_port=port - 1, worker_id=1)
        first = player.make("vector", base_port=port)
        second = player.make("vector", base_port=port)
        ports = [int(argv[1]) for argv in player.told("argv")]
        assert port < ports[0] < ports[1]
        first.close(), second.close()
        # The second of two players cannot start: the first does not stay.
        with pytest.raises(EnvError, match=f"Port {port} of this machine is in use"):
            unity.make_vec(num_envs=6, **player.options("crowd", base_port=port - 1, worker_id=0))
        assert all(gone(pid, 0) for pid in player.told("pid"))


def test_the_editor_is_waited_for(player):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [player.path + ".x86_64", "--mlagents-port", str(port)]
    with subprocess.Popen(command) as editor:
        env = unity.make("editor", base_port=port, timeout_wait=20)
        assert env.reset(seed=0)[0]["state"].shape == (3,)
        env.close()
        assert editor.wait(5) == 0


def test_a_player_that_does_not_quit_is_ended_with_its_children(player):
    env = player.make("vector", "--stubborn")
    client = env.unwrapped.player._client
    client.end(0.3)
    assert gone(player.told("pid")[0], 0) and gone(player.told("child")[0])
    env.close()


@pytest.mark.parametrize("how", ["", "raise SystemExit(3)", "os.kill(os.getpid(), 9)"])
def test_no_player_survives_a_program_that_does_not_close(player, how):
    options = player.options("vector")
    code = (
        "import os; from worldflux_envs.backends import unity\n"
        f"env = unity.make(**{options!r}); env.reset(seed=0)\n{how}\n"
    )
    run = subprocess.run([sys.executable, "-c", code], timeout=30)
    assert run.returncode == {"": 0, "raise SystemExit(3)": 3}.get(how, -9)
    assert gone(player.told("pid")[0])


def test_the_clients_messages_work_beside_a_current_protobuf():
    code = (
        "import sys; from worldflux_envs.unity.coexistence import make_importable\n"
        "before = sys.modules.get('distutils'); make_importable(); make_importable()\n"
        "assert sys.modules.get('distutils') is before\n"
        "from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto as M\n"
        "from mlagents_envs.communicator_objects.command_pb2 import STEP, RESET\n"
        "m = M(); m.unity_output.rl_output.agentInfos['a'].value.add(reward=2)\n"
        "assert (STEP, RESET) == (0, 1) and M.FromString(m.SerializeToString()) == m\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_a_module_without_a_definition_is_refused(tmp_path):
    from worldflux_envs.unity.coexistence import definition

    (tmp_path / "a_pb2.py").write_text("x = 1\n")
    with pytest.raises(EnvError, match="a_pb2.py holds no message definition: this mlagents-envs"):
        definition(tmp_path / "a_pb2.py")
