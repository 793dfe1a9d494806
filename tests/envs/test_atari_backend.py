"""Atari: single, sync and native environments are the same games."""

import json

import numpy as np
import pytest

from worldflux.errors import EnvError

pytest.importorskip("ale_py", reason="the extra atari is not installed")
from worldflux_envs.backends import atari


def play(vecs, steps):
    """Step all with the same random actions and compare; the rows of the first."""
    actions = np.random.default_rng(0).integers(0, 4, (steps, vecs[0].num_envs))
    rows = []
    for action in actions:
        first, *others = (vec.step(action) for vec in vecs)
        for other in others:
            assert np.array_equal(first[0]["image"], other[0]["image"])
            assert all(np.array_equal(a, b) for a, b in zip(first[1:4], other[1:4], strict=True))
            assert np.array_equal(first[4]["is_first"], other[4]["is_first"])
            assert np.array_equal(first[4]["lives"], other[4]["lives"])
        rows.append(first)
    return rows


@pytest.mark.parametrize(
    "options",
    [
        {"max_episode_steps": 25},
        {"life_loss": True, "gray": True, "frame_stack": 4, "size": (32, 48), "sticky": 0.0},
    ],
)
def test_native_and_sync_are_the_same_games_and_resume(options):
    vecs = [atari.make_vec("Breakout", 3, mode=mode, **options) for mode in ("sync", "native")]
    for vec in vecs:
        vec.reset(seed=4)
    assert sum(row[2].sum() + row[3].sum() for row in play(vecs, 80)) > 2
    copies = [atari.make_vec("Breakout", 3, mode=mode, **options) for mode in ("sync", "native")]
    for vec, copy in zip(vecs, reversed(copies), strict=True):  # each in the other's mode
        obs, is_first = copy.set_state(json.loads(json.dumps(vec.get_state())))
        assert not is_first.any() and np.array_equal(obs["image"], vec.buffers["image"])
    play([*vecs, *copies], 30)


def test_the_mode_is_chosen_and_the_games_are_the_same():
    assert type(atari.make_vec("Pong", 1)).__name__ == "NativeAtari"
    vecs = [atari.make_vec("Pong", 2, mode=mode, life_loss=True) for mode in ("auto", "native")]
    firsts = [vec.reset(seed=3)[0]["image"] for vec in vecs]
    assert np.array_equal(*firsts)
    play(vecs, 5)
    for vec in vecs:
        vec.close()
    assert (
        type(atari.make_vec("Pong", 1, render_mode="rgb_array", mode="sync")).__name__ == "SyncVec"
    )


def test_a_lost_life_ends_a_training_episode_but_not_the_game_nor_an_evaluation():
    train = atari.make("Breakout", life_loss=True, sticky=0.0)
    evaluation = atari.make("Breakout", life_loss=True, sticky=0.0, evaluation=True)
    ends = {}
    for name, env in {"train": train, "evaluation": evaluation}.items():
        env.reset(seed=0)
        lives = []
        for _ in range(400):
            *_, terminated, truncated, info = env.step(1)
            if terminated or truncated:
                lives.append(info["lives"])
                _, info = env.reset(seed=1)
                assert info["lives"] == (lives[-1] or 5)
        ends[name] = lives
    assert ends["train"][:5] == [4, 3, 2, 1, 0]
    assert set(ends["evaluation"]) <= {0}


def test_spellings_of_a_game():
    shapes = {atari.make(n).action_space.n for n in ("MsPacman", "ms_pacman", "ALE/MsPacman-v5")}
    assert shapes == {9}
    assert atari.make("Pong", full_action_space=True).action_space.n == 18


def test_the_whole_screen_is_rendered_beside_small_images():
    env = atari.make("Pong", render_mode="rgb_array", gray=True, size=32)
    obs, _ = env.reset(seed=0)
    for _ in range(20):
        obs, *_ = env.step(2)
    screen = env.render()
    assert screen.shape == (210, 160, 3) and obs["image"].shape == (1, 32, 32)
    small = np.asarray(screen.mean(axis=2)).reshape(210, 32, 5).mean(axis=2)
    correlation = np.corrcoef(small[::7].ravel()[: 30 * 32], obs["image"][0, :30].ravel())[0, 1]
    assert correlation > 0.5
    with pytest.raises(EnvError, match="render_mode='rgb_array' to render it"):
        atari.make("Pong").unwrapped.render()


@pytest.mark.parametrize("mode", ["sync", "native"])
def test_the_bilinear_filter_is_pillows(mode):
    from PIL import Image

    options = {"sticky": 0.0, "noops": 0, "mode": mode}
    whole, small, area = (
        atari.make_vec("Pong", 2, **options, **more)
        for more in (
            {"size": (210, 160)},
            {"size": (64, 48), "resize": "bilinear"},
            {"size": (64, 48)},
        )
    )
    for vec in (whole, small, area):
        vec.reset(seed=0)
    for _ in range(20):
        screen, image, other = (v.step(np.array([2, 3]))[0]["image"] for v in (whole, small, area))
    assert image.shape == (2, 3, 64, 48) and image.dtype == np.uint8
    for row in range(2):
        picture = Image.fromarray(screen[row].transpose(1, 2, 0))
        theirs = np.asarray(picture.resize((48, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(theirs.astype(int) - image[row]).max() <= 1
    assert np.abs(image.astype(int) - other).max() > 20
    with pytest.raises(
        EnvError, match="There is no filter 'lanczos': choose one of area, bilinear"
    ):
        atari.make_vec("Pong", 2, resize="lanczos", mode=mode)


@pytest.mark.parametrize(("options", "frames"), [({}, 4), ({"frame_skip": 1}, 1)])
def test_the_frames_of_a_step_are_known(options, frames):
    for mode in ("sync", "native"):
        vec = atari.make_vec("Pong", 1, mode=mode, **options)
        assert vec.metadata["frames_per_step"] == frames


def test_the_choices_have_ales_names():
    from worldflux.spaces import action_specs

    spec = action_specs(atari.make_vec("Pong", 2, mode="native").single_action_space)["action"]
    assert spec.labels == ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")


def test_the_consoles_memory_as_observation():
    from worldflux.testing import check_env

    check_env(lambda: atari.make("Breakout", obs="ram", max_episode_steps=60), steps=20)
    env = atari.make("Breakout", obs="ram", render_mode="rgb_array", sticky=0.0)
    firsts = [env.reset(seed=seed)[0]["state"] for seed in (1, 1, 2)]
    assert firsts[0].shape == (128,) and firsts[0].dtype == np.float32
    assert firsts[0].min() >= 0 and firsts[0].max() <= 1
    assert (firsts[0] == firsts[1]).all() and (firsts[0] != firsts[2]).any()
    assert env.render().shape == (210, 160, 3) and env.action_space.labels[0] == "NOOP"
    lived = atari.make("Breakout", obs="ram", life_loss=True, sticky=0.0)
    lived.reset(seed=0)
    lives = next(step[4]["lives"] for step in (lived.step(1) for _ in range(500)) if step[2])
    assert lives == 4
    vec = atari.make_vec("Breakout", 2, obs="ram", mode="sync")
    assert vec.reset(seed=0)[0]["state"].shape == (2, 128)
    vec.close()
    with pytest.raises(EnvError, match=r"with obs='ram' has no screen: leave gray, size out"):
        atari.make("Breakout", obs="ram", size=32, gray=True)
    with pytest.raises(EnvError, match="vectorised natively only without obs=ram: leave that out"):
        atari.make_vec("Breakout", 2, obs="ram", mode="native")
    with pytest.raises(EnvError, match="natively only without render_mode"):
        atari.make_vec("Breakout", 2, render_mode="rgb_array", mode="native")
