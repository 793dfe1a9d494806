"""Brax: one row and many are the same episodes; a small environment of ours compiles at once."""

import importlib.util
import json

import numpy as np
import pytest

from worldflux.errors import EnvError
from worldflux.testing import check_env
from worldflux_envs.backends import brax as room

if importlib.util.find_spec("brax") is None:  # importing it would import mujoco too early
    pytest.skip("the extra brax is not installed", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def slider():
    """A real `brax.envs.Env`: a point pushed along a line, over beyond 1; with a MuJoCo body."""
    rooms = room._rooms("state", None)
    import jax
    import jax.numpy as jnp
    import mujoco
    from brax.base import State as Body
    from brax.base import Transform
    from brax.envs.base import Env, State

    class Sys:
        mj_model = mujoco.MjModel.from_xml_string(
            "<mujoco><worldbody><light pos='0 0 3'/><camera name='top' pos='0 0 4'/><body>"
            "<joint type='slide' axis='1 0 0'/><geom size='.3' rgba='1 0 0 1'/></body>"
            "</worldbody></mujoco>"
        )

    class Slider(Env):
        observation_size, action_size, backend, sys = 2, 1, "none", Sys

        def reset(self, rng):
            q = jax.random.uniform(rng, (1,), minval=-0.5, maxval=0.5)
            return self._at(q, jnp.zeros(1), jnp.zeros(()))

        def step(self, state, action):
            qd = state.pipeline_state.qd + 0.1 * action
            return self._at(state.pipeline_state.q + qd, qd, action[0])

        def _at(self, q, qd, reward):
            zero = Transform.create(pos=jnp.zeros(3))
            body = Body(q=q, qd=qd, x=zero, xd=None, contact=None)
            over = (jnp.abs(q[0]) > 1).astype(jnp.float32)
            return State(body, jnp.concatenate([q, qd]), reward, over)

    assert isinstance(Slider(), rooms.envs.Env)
    return Slider()


def test_the_contract_holds_and_an_episode_resumes(slider):
    check_env(lambda: room.make(slider), steps=20)
    env, other = room.make(slider), room.make(slider)
    env.reset(seed=1)
    env.step([0.3])
    other.reset(seed=1)
    other.set_state(json.loads(json.dumps(env.get_state())))
    for _ in range(3):
        a, b = env.step([-0.2]), other.step([-0.2])
        assert np.array_equal(a[0]["state"], b[0]["state"]) and a[1:4] == b[1:4]
    assert not np.array_equal(env.reset(seed=1)[0]["state"], env.reset(seed=2)[0]["state"])


def test_native_and_sync_are_the_same_episodes_and_resume(slider):
    modes = ("sync", "native")
    vecs = [room.make_vec(slider, 3, mode=mode, max_episode_steps=9) for mode in modes]
    copy = room.make_vec(slider, 3, max_episode_steps=9)
    assert type(copy).__name__ == "BraxVec"
    firsts = [vec.reset(seed=5)[0]["state"] for vec in vecs]
    assert np.allclose(*firsts) and len(np.unique(firsts[0][:, 0])) == 3
    ends = np.zeros(2, int)
    rng = np.random.default_rng(0)
    for step in range(60):
        if step == 30:
            obs, is_first = copy.set_state(json.loads(json.dumps(vecs[0].get_state())))
            assert not is_first.any() and np.array_equal(obs["state"], vecs[0].buffers["state"])
            vecs.append(copy)
        actions = rng.uniform(0, 1, (3, 1)).astype(np.float32)
        found = [vec.step(actions) for vec in vecs]
        for other in found[1:]:
            assert np.allclose(found[0][0]["state"], other[0]["state"], atol=1e-5)
            for a, b in zip(found[0][1:4], other[1:4], strict=True):
                assert np.allclose(a, b)
            assert np.array_equal(found[0][4]["is_first"], other[4]["is_first"])
        ends += [found[0][2].sum(), found[0][3].sum()]
    assert ends[0] > 3


def test_the_time_limit_truncates_and_leaving_terminates(slider):
    env = room.make(slider, max_episode_steps=4, action_repeat=2)
    env.reset(seed=0)
    assert [env.step([0.0])[2:4] for _ in range(4)] == [(False, False)] * 3 + [(False, True)]
    env.reset(seed=0)
    assert [env.step([1.0])[2:4] for _ in range(2)] == [(False, False), (True, False)]


def test_one_row_does_not_touch_another(slider):
    vec = room.make_vec(slider, 2, mode="native")
    first, _ = vec.reset(seed=0)
    moved, *_ = vec.step(np.array([[1.0], [0.0]]))
    assert moved["state"][0, 0] > first["state"][0, 0]
    assert np.array_equal(moved["state"][1], first["state"][1])


def test_images_are_rendered_not_made_up(slider):
    vec = room.make_vec(slider, 2, obs="both", size=(24, 32), camera="top")
    obs, _ = vec.reset(seed=0)
    assert obs["image"].shape == (2, 3, 24, 32) and obs["image"].dtype == np.uint8
    # Where the red ball is follows its position.
    centres = [np.nonzero(image[0] > image[2].astype(int) + 40)[1].mean() for image in obs["image"]]
    assert np.sign(centres[1] - centres[0]) == np.sign(obs["state"][1, 0] - obs["state"][0, 0])
    single = room.make(slider, obs="pixels", size=(24, 32), camera="top", render_mode="rgb_array")
    image = single.reset(seed=0)[0]["image"]
    assert set(single.observation_space.spaces) == {"image"}
    assert np.array_equal(single.render().transpose(2, 0, 1), image)
    assert np.abs(image.astype(int) - obs["image"][0]).mean() < 2
    vec.close(), single.close()


def test_the_tasks_of_brax_are_listed():
    assert {"ant", "halfcheetah", "humanoid"} <= set(room.tasks()) and "fast" not in room.tasks()


@pytest.mark.parametrize(
    ("task", "options", "text"),
    [
        ("ants", {}, "Brax has no task 'ants'. Did you mean 'ant'"),
        ("ant", {"physics": "sprint"}, "'sprint' is not one of generalized, spring.*mean 'spring'"),
        ("ant", {"fisics": "spring"}, "brax takes no option 'fisics'"),
        ("ant", {"obs": "image"}, "obs='image' is not one of state, pixels, both"),
    ],
)
def test_what_cannot_be_made_says_why(task, options, text):
    with pytest.raises(EnvError, match=text):
        room.make(task, **options)


def test_what_has_no_body_cannot_be_drawn():
    env = room.make("fast", obs="pixels")
    with pytest.raises(EnvError, match="Fast has no bodies to draw: use obs='state'"):
        env.reset(seed=0)


@pytest.mark.slow
def test_a_pendulum_of_brax():
    vec = room.make_vec("inverted_pendulum", 4, physics="spring", obs="both", size=32)
    obs, _ = vec.reset(seed=0)
    assert obs["image"].std() > 5
    ended = [vec.step(np.ones((4, 1)))[2].any() for _ in range(40)]
    assert any(ended)
    env = room.make("inverted_pendulum", physics="spring")
    assert np.allclose(env.reset(seed=2)[0]["state"], obs["state"][2], atol=1e-5)
