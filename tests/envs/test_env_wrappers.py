"""Wrappers: each with its space, its values and its refusals."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs import wrappers


class Picture(gymnasium.Env):
    """A picture and a number that both show the step; takes what `action_space` says."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(self, action_space=None, render_mode=None, shape=(3, 8, 6), end=4):
        self.observation_space = spaces.Dict(
            {"image": spaces.Box(0, 255, shape, np.uint8), "state": spaces.Box(0, 9, (1,))}
        )
        self.action_space = action_space or spaces.Discrete(3, start=1)
        self.render_mode, self.end = render_mode, end
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._obs(), {}

    def step(self, action):
        self.actions.append(action)
        self.count += 1
        return self._obs(), float(self.count), self.count >= self.end, False, {}

    def render(self):
        return np.full((7, 9, 3), 10 * self.count, np.uint8)

    def _obs(self):
        image = np.full(self.observation_space["image"].shape, self.count, np.uint8)
        return {"image": image, "state": np.array([self.count], np.float32)}


class Bare(Picture):
    """The number alone."""

    def __init__(self):
        super().__init__()
        self.observation_space = self.observation_space["state"]

    def _obs(self):
        return np.array([self.count], np.float32)


def steps(env, actions):
    rows = [env.reset(seed=0)[0]] + [env.step(action)[0] for action in actions]
    assert all(row in env.observation_space for row in rows)
    return rows


def test_time_limit_is_gymnasiums():
    assert wrappers.TimeLimit is gymnasium.wrappers.TimeLimit


def test_action_repeat_sums_rewards_and_stops_at_the_end():
    env = wrappers.ActionRepeat(Picture(end=5), 3)
    env.reset()
    obs, reward, terminated, _, _ = env.step(1)
    assert (obs["state"][0], reward, terminated) == (3, 1 + 2 + 3, False)
    obs, reward, terminated, _, _ = env.step(1)
    assert (obs["state"][0], reward, terminated) == (5, 4 + 5, True)


def test_normalized_actions_reach_the_environment_rescaled():
    raw = Picture(spaces.Box(np.array([0.0, 2.0]), np.array([4.0, 6.0])))
    env = wrappers.NormalizeActions(raw)
    assert env.action_space == spaces.Box(-1.0, 1.0, (2,))
    steps(env, [[0.0, 9.0]])
    assert raw.actions[0].tolist() == [2.0, 6.0]


def test_one_hot_actions():
    raw = Picture()
    env = wrappers.OneHotAction(raw)
    assert env.action_space == spaces.Box(0.0, 1.0, (3,))
    steps(env, [[0, 0, 1], [0.9, 0.1, 0.0]])
    assert raw.actions == [3, 1]


def test_one_of_several_actions():
    parts = {"move": spaces.Discrete(4), "speed": spaces.Box(1.0, 2.0, (1,))}
    space = spaces.Dict(
        {**parts, "more": spaces.MultiDiscrete([2, 2]), "bits": spaces.MultiBinary(2)}
    )
    raw = Picture(space)
    env = wrappers.SelectAction(raw, "move", fixed={"bits": [1, 0]})
    assert env.action_space == spaces.Discrete(4)
    steps(env, [2])
    [action] = raw.actions
    assert action["move"] == 2 and action["speed"].tolist() == [1.0]
    assert action["more"].tolist() == [0, 0] and action["bits"] == [1, 0]


def test_obs_dict_names_a_bare_observation():
    env = wrappers.ObsDict(Bare(), key="count")
    assert [row["count"].tolist() for row in steps(env, [1])] == [[0], [1]]


def test_reward_as_observation():
    env = wrappers.RewardObs(Picture())
    assert [row["last_reward"].tolist() for row in steps(env, [1, 1])] == [[0], [1], [2]]


@pytest.mark.parametrize("method", ["area", "bilinear"])
def test_resized_images_keep_their_type_and_value(method):
    env = wrappers.ResizeImage(Picture(), size=(4, 12), method=method)
    rows = steps(env, [1])
    assert rows[1]["image"].shape == (3, 4, 12) and (rows[1]["image"] == 1).all()
    assert rows[1]["image"].dtype == np.uint8 and rows[1]["state"].tolist() == [1]


def test_grey_images():
    env = wrappers.GrayScale(Picture())
    assert steps(env, [1])[1]["image"].tolist() == np.ones((1, 8, 6)).tolist()


def test_stacked_frames_are_oldest_first_and_start_with_the_first():
    env = wrappers.FrameStack(Picture(), amount=3)
    shown = [row["image"][::3, 0, 0].tolist() for row in steps(env, [1, 1])]
    assert shown == [[0, 0, 0], [0, 0, 1], [0, 1, 2]]
    env.step(1)
    assert env.reset()[0]["image"].max() == 0


def test_a_rendered_image():
    env = wrappers.RenderImage(Picture(render_mode="rgb_array"), key="view", size=(7, 9))
    assert steps(env, [1])[1]["view"].tolist() == np.full((3, 7, 9), 10).tolist()
    env = wrappers.RenderImage(Picture(render_mode="rgb_array"), only=True)
    assert set(steps(env, [1])[1]) == {"image"} and env.observation_space["image"].shape[1] == 64


def test_episodes_become_videos(tmp_path):
    av = pytest.importorskip("av", reason="the extra video is not installed")
    env = wrappers.VideoRecorder(Picture(render_mode="rgb_array"), tmp_path, every=2)
    for _ in range(3):
        steps(env, [1] * 4)
    assert [path.name for path in env.paths] == ["episode-000000.mp4", "episode-000002.mp4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in env.paths]
    with av.open(str(env.paths[0])) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 5 and frames[0].shape == (188, 242, 3)
    assert abs(int(frames[3].mean()) - 30) < 4


def test_a_broken_off_episode_is_kept_and_images_do_without_rendering(tmp_path):
    av = pytest.importorskip("av", reason="the extra video is not installed")
    env = wrappers.VideoRecorder(Picture(shape=(1, 8, 6)), tmp_path, fps=7)
    steps(env, [1, 1])
    env.close()
    with av.open(str(env.paths[0])) as video:
        assert video.streams.video[0].average_rate == 7
        assert len(list(video.decode(video=0))) == 3


def test_a_discarded_video_leaves_nothing(tmp_path):
    pytest.importorskip("av", reason="the extra video is not installed")
    writer = wrappers.VideoWriter(tmp_path / "a.mp4", fps=5)
    writer.write(np.zeros((200, 200, 3), np.uint8))
    writer.discard()
    assert not list(tmp_path.iterdir())


BOX = spaces.Box(-1.0, 1.0, (1,))
TEXTS = spaces.Dict({"a": BOX, "t": spaces.Text(3)})


@pytest.mark.parametrize(
    ("wrap", "text"),
    [
        (lambda: wrappers.NormalizeActions(Picture()), "needs continuous actions, not Discrete"),
        (lambda: wrappers.OneHotAction(Picture(BOX)), "needs discrete actions, not Box"),
        (lambda: steps(wrappers.OneHotAction(Picture()), [2]), r"shape \(3,\), got shape \(\)"),
        (lambda: wrappers.SelectAction(Picture(), "x"), "needs a Dict of actions, not Discrete"),
        (
            lambda: wrappers.SelectAction(Picture(spaces.Dict({"move": BOX})), "mover"),
            "no action 'mover'. Did you mean 'move'. Actions: move",
        ),
        (
            lambda: wrappers.SelectAction(Picture(TEXTS), "a"),
            "has no resting value for Text",
        ),
        (lambda: wrappers.ActionRepeat(Picture(), 0), "needs amount >= 1, got 0"),
        (lambda: wrappers.FrameStack(Picture(), amount=0), "needs amount >= 1, got 0"),
        (lambda: wrappers.ObsDict(Picture()), "names one observation; this has Dict"),
        (lambda: wrappers.RewardObs(Bare()), "RewardObs needs Dict observations"),
        (lambda: wrappers.RewardObs(Picture(), key="state"), "an observation 'state' already"),
        (lambda: wrappers.ResizeImage(Bare()), "ResizeImage needs Dict observations"),
        (lambda: wrappers.ResizeImage(Picture(), method="cubic"), "no filter 'cubic'"),
        (lambda: wrappers.ResizeImage(Picture(), size=0), "one positive number or"),
        (lambda: wrappers.GrayScale(Picture(), keys=("state",)), "found no image"),
        (lambda: wrappers.GrayScale(Picture(shape=(1, 8, 6))), "images of 3 channels"),
        (lambda: wrappers.RenderImage(Picture()), "render_mode='rgb_array', not None"),
        (
            lambda: wrappers.VideoRecorder(Bare(), "x"),
            "nothing to show: the environment's render_mode is None, and it has no observation 'im",
        ),
        (lambda: wrappers.VideoRecorder(Picture(), "x", every=0), "needs every >= 1, got 0"),
    ],
)  # fmt: skip
def test_refusals(wrap, text):
    with pytest.raises(EnvError, match=text):
        wrap()


def test_rendering_a_bare_observation_is_refused():
    bare = Bare()
    bare.render_mode = "rgb_array"
    with pytest.raises(EnvError, match="RenderImage needs Dict observations"):
        wrappers.RenderImage(bare)


def test_episodes_are_recorded_in_the_one_time_convention(tmp_path):
    from worldflux.episodes import Episodes

    env = wrappers.EpisodeRecorder(wrappers.Contract(Picture(end=3)), tmp_path)
    for seed, length in ((7, 3), (8, 2), (9, 0)):  # ends, is broken off, never begins
        env.reset(seed=seed)
        for action in range(length):
            env.step(action)
    env.close()
    whole, broken = episodes = Episodes(tmp_path)
    assert [episodes.about(i) for i in (0, 1)] == [
        {"seed": 7, "return": 6.0},
        {"seed": 8, "return": 3.0},
    ]
    assert whole["obs.state"].ravel().tolist() == [0, 1, 2, 3]
    assert whole["obs.image"].shape == (4, 3, 8, 6) and whole["obs.image"][2].max() == 2
    assert whole["action"].tolist() == [0, 1, 2, 0] and whole["reward"].tolist() == [0, 1, 2, 3]
    assert whole["is_first"].tolist() == [True, False, False, False]
    assert whole["is_last"].tolist() == whole["is_terminal"].tolist() == [False] * 3 + [True]
    assert broken["is_last"].tolist() == [False, False, True]
    assert not broken["is_terminal"].any() and broken["action"].tolist() == [0, 1, 0]


def test_videos_without_pyav_give_the_install_line(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        EnvError, match=r'Videos need PyAV. Install: pip install "worldflux-envs\[vi'
    ):
        wrappers.VideoWriter(tmp_path / "a.mp4", fps=5)
