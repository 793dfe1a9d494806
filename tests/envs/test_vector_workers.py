"""Worker processes that raise, hang, are killed, or lose their parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs.backends import gym


class Faulty(gymnasium.Env):
    """Counts steps; does what its action says: 1 raises, 2 hangs, 3 kills its own process."""

    observation_space = spaces.Box(0, np.inf, (1,))
    action_space = spaces.Discrete(4)

    def __init__(self, fragile: bool = False) -> None:
        self.fragile = fragile

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        if action == 1 or self.fragile:
            raise ZeroDivisionError("the simulator exploded")
        if action == 2:
            time.sleep(600)
        if action == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array([self.count], np.float32), 1.0, False, False, {}


@pytest.fixture
def vec():
    vec = gym.make_vec(Faulty, 3, mode="async", workers=3, timeout=2.0)
    vec.reset(seed=5)
    vec.step([0, 0, 0])
    yield vec
    vec.close()


@pytest.mark.parametrize(
    ("action", "report"),
    [
        (1, r"ZeroDivisionError: the simulator exploded"),
        (2, r"did not answer in time.\n(?s:.*)time.sleep|in step"),
        (3, r"was killed by SIGKILL"),
    ],
)
def test_a_failing_environment_is_reported_and_begins_anew(vec, caplog, action, report):
    obs, rewards, terminated, truncated, infos = vec.step([0, action, 0])
    assert infos["is_first"].tolist() == [False, True, False]
    assert obs["state"].ravel().tolist() == [2, 0, 2] and rewards.tolist() == [1, 0, 1]
    assert not (terminated | truncated).any()
    assert infos["failure"][0] is None
    import re

    assert re.search(report, infos["failure"][1]), infos["failure"][1]
    assert "Environment 1 of gym/Faulty failed in episode 0 (seed 6)" in caplog.text
    assert "restarted with a fresh episode" in caplog.text
    obs, _, _, _, infos = vec.step([0, 0, 0])
    assert obs["state"].ravel().tolist() == [3, 1, 3] and not infos["is_first"].any()


def test_a_worker_killed_from_outside_is_replaced(vec):
    before = vec.pids
    os.kill(before[2], signal.SIGKILL)
    obs, _, _, _, infos = vec.step([0, 0, 0])
    assert infos["is_first"].tolist() == [False, False, True]
    assert obs["state"].ravel().tolist() == [2, 2, 0]
    assert vec.pids[:2] == before[:2] and vec.pids[2] != before[2]


def test_environments_that_share_a_worker_begin_anew_together():
    vec = gym.make_vec(Faulty, 4, mode="async", workers=2, timeout=5.0)
    try:
        vec.reset(seed=0)
        _, _, _, _, infos = vec.step([0, 0, 0, 3])
        assert infos["is_first"].tolist() == [False, False, True, True]
    finally:
        vec.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_three_failures_in_a_row_stop_the_run(mode):
    vec = gym.make_vec(Faulty, 2, mode=mode, fragile=True)
    try:
        vec.reset(seed=0)
        for _ in range(2):
            assert vec.step([0, 0])[4]["is_first"].all()
        with pytest.raises(EnvError, match=r"(?s)exploded.*That was failure 3 in a row: stopped"):
            vec.step([0, 0])
    finally:
        vec.close()


def test_a_recovered_environment_may_fail_again():
    vec = gym.make_vec(Faulty, 1, mode="sync", max_episode_steps=3)
    vec.reset(seed=0)
    for _ in range(4):
        vec.step([1])
        for _ in range(4):  # to the end of the episode
            vec.step([0])


def test_without_the_signals_of_posix_there_are_no_workers(monkeypatch):
    from worldflux.errors import CapabilityError

    monkeypatch.delattr(signal, "SIGIO")
    with pytest.raises(CapabilityError, match="need a POSIX system: use mode='sync'"):
        gym.make_vec(Faulty, 2, mode="async")


def test_closing_ends_every_worker_even_a_stopped_one(vec):
    pids = vec.pids
    os.kill(pids[0], signal.SIGSTOP)
    vec.close()
    assert not any(alive(pid) for pid in pids)
    vec.close()


PARENT = """
import logging, sys, time
import numpy as np
from worldflux_envs.backends import gym
vec = gym.make_vec("CartPole-v1", 4, mode="async", workers=2)
vec.reset(seed=0)
print(*set(vec.pids), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_nothing_remains_when_the_parent_dies(how):
    segments = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    code = textwrap.dedent(PARENT)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    parent.send_signal(how)
    parent.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)
    if segments:
        assert not [s for s in set(os.listdir("/dev/shm")) - segments if "worldflux-obs" in s]
    parent.stdout.close()


BUSY = """
import ctypes, os, sys
from worldflux_envs.vector import worker
worker._die_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)  # only now can the parent's end be noticed by the kernel alone
ctypes.PyDLL(None).sleep(600)  # C code that never gives the interpreter lock back
"""


def test_a_worker_stuck_in_c_code_dies_with_its_parent():
    import socket

    ours, theirs = socket.socketpair()
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdout=subprocess.PIPE,
    )
    child.stdout.readline()
    theirs.close()
    time.sleep(0.7)
    assert child.poll() is None
    ours.close()
    assert child.wait(10) == -signal.SIGIO
    child.stdout.close()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
