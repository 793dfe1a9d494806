"""Backends with a simulator of their own; each needs its extra and is skipped without."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from worldflux.errors import EnvError
from worldflux.testing import check_env

BALL = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="side" pos="0 -3 1" xyaxes="1 0 0 0 .3 1"/>
    <body name="ball" pos="0 0 1"><freejoint/><geom size=".1" rgba="1 0 0 1"/></body>
    <body pos="0 0 .5">
      <joint name="hinge" axis="0 1 0"/><geom type="capsule" size=".05" fromto="0 0 0 .5 0 0"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="hinge" gear="2"/>
    <motor joint="hinge" ctrllimited="true" ctrlrange="0 4"/>
  </actuator>
</mujoco>
"""
ROBOTS = "gymnasium_robotics"
# (backend, the module its extra brings, task, options)
CASES = [
    ("dmc", "dm_control", "walker-walk", {}),
    ("dmc", "dm_control", "cup_catch", {"obs": "both", "effects": False, "size": 32}),
    ("dmc", "dm_control", "quadruped-escape", {"by_key": True, "action_repeat": 2}),
    ("mujoco", "mujoco", BALL, {"reset_noise": 0.1, "frame_skip": 5}),
    ("mujoco", "mujoco", BALL, {"obs": "both", "camera": "side", "size": (24, 32)}),
    ("mujoco", "mujoco", "Reacher-v5", {}),
    ("robotics", ROBOTS, "PointMaze_UMaze-v3", {}),
    ("robotics", ROBOTS, "FetchReach-v4", {}),
    ("minigrid", "minigrid", "DoorKey-5x5", {}),
    ("minigrid", "minigrid", "MiniGrid-FourRooms-v0", {"obs": "both", "view": "full", "size": 32}),
    # Each of its resets draws a world for more than a second.
    pytest.param("crafter", "crafter", "reward", {"max_episode_steps": 30}, marks=pytest.mark.slow),
    ("pusht", "gym_pusht", "PushT-v0", {}),
    ("pusht", "gym_pusht", "PushT-v0", {"obs": "both", "size": 32}),
    ("atari", "ale_py", "Pong", {"render_mode": "rgb_array"}),
    pytest.param(
        "craftax", "craftax", "Craftax-Classic", {"max_episode_steps": 30}, marks=pytest.mark.slow
    ),
]
RESUMES = {"dmc", "mujoco", "atari", "craftax"}


def backend(name, module):
    pytest.importorskip(module, reason=f"the extra {name} is not installed")
    return importlib.import_module(f"worldflux_envs.backends.{name}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "module", "task", "options"), CASES)
def test_a_backend_keeps_the_contract_and_resumes(name, module, task, options):
    room = backend(name, module)
    check_env(lambda: room.make(task, **options), steps=15)
    env, other = room.make(task, **options), room.make(task, **options)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(16)]
    env.reset(seed=3)
    for action in actions[:8]:
        env.step(action)
    state = env.get_state()
    assert (state is not None) == (name in RESUMES)
    other.reset(seed=3)
    if state is not None:
        other.set_state(json.loads(json.dumps(state)))
    else:
        for action in actions[:8]:
            other.step(action)
    for action in actions[8:]:
        left, right = env.step(action), other.step(action)
        assert all(np.array_equal(left[0][key], right[0][key]) for key in left[0])
        assert left[1:4] == right[1:4]


@pytest.mark.parametrize(
    ("name", "module", "some"),
    [
        ("dmc", "dm_control", {"walker-walk", "ball_in_cup-catch"}),
        ("mujoco", "mujoco", {"HalfCheetah-v5", "Ant-v4"}),
        ("robotics", ROBOTS, {"PointMaze_UMaze-v3", "AntMaze_UMaze-v5"}),
        ("minigrid", "minigrid", {"MiniGrid-DoorKey-8x8-v0", "BabyAI-GoToObj-v0"}),
        ("crafter", "crafter", {"reward", "noreward"}),
        ("craftax", "craftax", {"Craftax", "Craftax-Classic"}),
        ("pusht", "gym_pusht", {"PushT-v0"}),
        ("atari", "ale_py", {"Pong", "MsPacman", "SpaceInvaders"}),
    ],
)
def test_tasks_are_listed(name, module, some):
    assert some <= set(backend(name, module).tasks())


@pytest.mark.parametrize(
    ("name", "module", "task", "options", "text"),
    [
        ("dmc", "dm_control", "waker-walk", {}, "'waker-walk'. Did you mean 'walker-walk'"),
        ("dmc", "dm_control", "walker-walk", {"efects": 1}, "dmc takes no option 'efects'"),
        ("mujoco", "mujoco", "no/such.xml", {}, "There is no MuJoCo model no/such.xml: give"),
        ("mujoco", "mujoco", "<mujoco><bdy/></mujoco>", {}, "MuJoCo cannot read this model: "),
        ("mujoco", "mujoco", BALL, {"camera": "sid"}, "no camera 'sid'. Did you mean 'side'. C"),
        ("mujoco", "mujoco", BALL, {"camera": 3}, r"1 cameras; camera 3 is none \(-1 is free\)"),
        ("mujoco", "mujoco", BALL, {"frame_skip": 0}, "frame_skip must be at least 1, got 0"),
        ("robotics", ROBOTS, "PointMase_UMaze-v3", {}, "Did you mean 'PointMaze_UMaze-v3'"),
        ("minigrid", "minigrid", "MiniGrid-Emty-5x5-v0", {}, "mean 'MiniGrid-Empty-5x5-v0'"),
        ("minigrid", "minigrid", "DoorKey-5x5", {"view": "x"}, "not one of partial, full"),
        ("crafter", "crafter", "rewards", {}, "no task 'rewards'. Did you mean 'reward'. Tasks"),
        ("craftax", "craftax", "Craftex", {}, "no task 'Craftex'. Did you mean 'Craftax'. T"),
        ("craftax", "craftax", "Craftax", {"obs": "both"}, "'pixels' or obs='state', not both"),
        ("pusht", "gym_pusht", "PushU", {}, "PushT has no task 'PushU'. Tasks: PushT-v0"),
        ("atari", "ale_py", "Pongo", {}, "ALE has no game 'Pongo'. Did you mean 'pong'"),
        ("atari", "ale_py", "Pong", {"stiky": 0}, "no option 'stiky'. Did you mean 'sticky'"),
        ("atari", "ale_py", "Pong", {"obs": "both"}, "atari observations are images"),
    ],
)
def test_what_cannot_be_made_says_why(name, module, task, options, text):
    room = backend(name, module)
    with pytest.raises(EnvError, match=text):
        room.make(task, **options)


def test_goal_conditioned_observations_are_kept():
    env = backend("robotics", ROBOTS).make("PointMaze_UMaze-v3")
    assert set(env.observation_space.spaces) == {"state", "achieved_goal", "goal"}
    obs, _ = env.reset(seed=0)
    reward = env.unwrapped.compute_reward(obs["goal"], obs["goal"], {})
    assert reward == 1.0


def test_a_custom_dm_control_environment():
    room = backend("dmc", "dm_control")
    from dm_control import suite

    raw = suite.load("pendulum", "swingup")
    assert room.make(raw).reset(seed=0)[0]["state"].shape == (3,)
    named = room.make("dm_control.suite.pendulum:swingup")
    assert named.reset(seed=0)[0]["state"].shape == (3,)


def test_a_vector_of_dmc_is_its_observations_one_after_the_other():
    room = backend("dmc", "dm_control")
    joined, by_key = (room.make("humanoid-walk", by_key=keys) for keys in (False, True))
    for env in (joined, by_key):
        env.reset(seed=1)
    action = np.linspace(-2, 2, joined.action_space.shape[0], dtype=np.float32)  # some are clipped
    first, second = joined.step(action)[0]["state"], joined.step(action)[0]["state"]
    parts, later = by_key.step(np.clip(action, -1, 1))[0], by_key.step(action.tolist())[0]
    order = by_key.unwrapped._environment.observation_spec()
    assert np.array_equal(first, np.concatenate([parts[key] for key in order]))
    assert np.array_equal(second, np.concatenate([later[key] for key in order]))
    assert not np.shares_memory(first, second) and not np.array_equal(first, second)


def test_the_suites_time_limit_truncates():
    env = backend("dmc", "dm_control").make("cartpole-balance", action_repeat=100)
    env.reset(seed=0)
    ends = [env.step([0.0])[2:4] for _ in range(10)]
    assert ends == [(False, False)] * 9 + [(False, True)]


@pytest.mark.parametrize(
    ("name", "module", "task"),
    [
        ("dmc", "dm_control", "walker-walk"),
        ("mujoco", "mujoco", BALL),
        ("mujoco", "mujoco", "HalfCheetah-v5"),
    ],
)
def test_effects_off_changes_only_the_picture(name, module, task):
    room = backend(name, module)
    plain, full = (room.make(task, obs="both", effects=e) for e in (False, True))
    a, b = plain.reset(seed=0)[0], full.reset(seed=0)[0]
    assert np.array_equal(a["state"], b["state"])
    difference = np.abs(a["image"].astype(int) - b["image"].astype(int)).mean()
    assert 0.1 < difference < 30
    quality = plain.unwrapped.model.vis.quality if name == "mujoco" else None
    assert quality is None or (quality.offsamples, quality.numslices) == (0, 8)


def test_every_picture_of_dmc_is_an_array_of_its_own():
    env = backend("dmc", "dm_control").make("walker-walk", render_mode="rgb_array", effects=False)
    env.reset(seed=0)
    first = env.render()
    kept = first.copy()
    for _ in range(5):
        env.step(np.ones(6))
    assert np.array_equal(first, kept) and not np.array_equal(env.render(), first)
    env.reset(seed=0)
    assert np.array_equal(env.render(), first)


def test_a_model_of_ones_own():
    room = backend("mujoco", "mujoco")
    env = room.make(
        BALL,
        reward_fn=lambda model, data: data.body("ball").xpos[2],
        terminal_fn=lambda model, data: data.body("ball").xpos[2] < 0.5,
        control_range=(-2.0, 2.0),
        frame_skip=20,
    )
    assert env.unwrapped.action_space.low.tolist() == [-2, 0]
    assert env.unwrapped.action_space.high.tolist() == [2, 4]
    env.reset(seed=0)
    rewards, ended = [], False
    while not ended:
        _, reward, ended, truncated, _ = env.step([0.0, 0.0])
        rewards.append(reward)
        assert not truncated
    # It falls, bounces off the other body perhaps, and ends below.
    assert 0.9 < rewards[0] < 1 and rewards[-1] < 0.5 <= min(rewards[:-1])


def test_a_model_file_and_a_compiled_one(tmp_path):
    room = backend("mujoco", "mujoco")
    import mujoco

    (tmp_path / "ball.xml").write_text(BALL)
    first = room.make(str(tmp_path / "ball.xml"))
    model = mujoco.MjModel.from_xml_string(BALL)
    mujoco.mj_saveModel(model, str(tmp_path / "ball.mjb"))
    envs = [first, room.make(str(tmp_path / "ball.mjb")), room.make(model)]
    states = [env.reset(seed=0)[0]["state"] for env in envs]
    assert all(np.array_equal(states[0], state) for state in states)


def test_a_missing_display_library_says_what_to_install(monkeypatch):
    from worldflux_envs import headless

    for name in ("MUJOCO_GL", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(headless.sys, "platform", "linux")
    with pytest.raises(EnvError, match="pytest was imported before a way to render without a disp"):
        headless.choose_gl(rendering=True, read_by="pytest")
    monkeypatch.setattr(headless, "_LIBRARIES", {"egl": "NoSuchLibrary"})
    with pytest.raises(EnvError, match=r"needs EGL or OSMesa.*apt-get install libegl1"):
        headless.choose_gl(rendering=True)


IMPORTED_FIRST = """
import dm_control.suite, mujoco, os, sys
from worldflux.factory import make_env
dmc, model = "dmc/cartpole-swingup", sys.argv[1]
for task in (dmc, "mujoco/" + model):
    image = make_env(task, obs="pixels").reset(seed=0)[0]["image"]
    assert image.std() > 1, (task, image.std())
"""


def test_a_simulator_that_was_imported_first_is_drawn_all_the_same(tmp_path):
    import os
    import subprocess
    import sys

    backend("dmc", "dm_control")
    model = tmp_path / "ball.xml"
    model.write_text(BALL)
    environ = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORTED_FIRST, str(model)],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_listing_the_tasks_of_dmc_chooses_a_way_to_draw_first(monkeypatch):
    from worldflux_envs import headless

    asked = []
    monkeypatch.setattr(headless, "choose_gl", lambda **options: asked.append(options))
    assert "cartpole-swingup" in backend("dmc", "dm_control").tasks()
    assert asked == [{"rendering": False, "read_by": "dm_control._render"}]


def test_crafter_is_the_same_for_the_same_seed_in_every_process():
    import subprocess
    import sys

    backend("crafter", "crafter")
    code = (
        "from worldflux_envs.backends import crafter; import hashlib, numpy as np;"
        "env = crafter.make('reward'); env.reset(seed=2); rng = np.random.default_rng(0);"
        "digest = hashlib.sha256();"
        "[digest.update(env.step(int(rng.integers(17)))[0]['image']) for _ in range(60)];"
        "print(digest.hexdigest())"
    )
    run = [sys.executable, "-c", code]
    found = {subprocess.run(run, capture_output=True, check=True).stdout for _ in range(2)}
    assert len(found) == 1


def test_minigrids_mission_is_in_info():
    env = backend("minigrid", "minigrid").make("DoorKey-5x5", obs="state")
    obs, info = env.reset(seed=0)
    assert "key" in info["mission"] and obs["state"].sum() == 49 * 3 + 1
    assert env.step(2)[4]["mission"] == info["mission"]


THREADS = """
import threading
import numpy as np
from worldflux import make_env

made = [make_env(env_id, obs="pixels", effects=False) for env_id in {ids}]
first = [env.reset(seed=0)[0]["image"] for env in made]  # drawn in this thread ...
steps = []
def step():
    steps.extend(env.step(env.action_space.sample()) for env in made)
thread = threading.Thread(target=step)
thread.start()
thread.join()
assert len(steps) == len(made), "a step in another thread failed"
if {closed}:
    for env in made:  # ... and closed here
        env.close()
print("finished")
"""


@pytest.mark.parametrize("closed", [True, False])
def test_pictures_are_drawn_whatever_thread_asks_and_nothing_is_left_at_the_end(
    closed: bool, tmp_path: Path
) -> None:
    (tmp_path / "ball.xml").write_text(BALL)
    ids = ["dmc/cartpole-balance", "mujoco/InvertedPendulum-v5", f"mujoco/{tmp_path}/ball.xml"]
    for package in ("dm_control", "mujoco"):
        pytest.importorskip(package, reason="the extras dmc and mujoco are not installed")
    done = subprocess.run(
        [sys.executable, "-c", THREADS.format(ids=ids, closed=closed)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "finished\n"
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr


@pytest.mark.parametrize("task", ["FetchPickAndPlace-v4", "HandReach-v3", "FrankaKitchen-v1"])
def test_robots_of_every_kind_work_with_the_mujoco_that_is_installed(task: str) -> None:
    env = backend("robotics", ROBOTS).make(task)
    first, _ = env.reset(seed=0)
    after, reward, *_ = env.step(env.action_space.sample())
    assert np.isfinite(reward) and any((after[key] != first[key]).any() for key in first)
    env.close()
