"""Agents are evaluated in the form their backend declares for it."""

import pytest

from worldflux.factory import get_env_spec
from worldflux_train.assembly import evaluation_options, make_envs, make_evaluation_envs
from worldflux_train.config import resolve
from worldflux_train.recording import _drawing_env


def config(env_id, **options):
    return resolve("dreamerv3:size1m", env_id, config={"env": options})


def test_what_a_run_says_itself_stands_above_its_backends_evaluation():
    assert evaluation_options(config("gym/CartPole-v1", action_repeat=2)) == {"action_repeat": 2}
    assert get_env_spec("atari").evaluation == {"evaluation": True}
    asked = evaluation_options(config("atari/Pong", evaluation=False))
    assert asked == {"evaluation": False}


def test_a_lost_life_ends_training_episodes_but_not_evaluated_ones():
    pytest.importorskip("ale_py", reason="the extra atari is not installed")
    lives = config("atari/Breakout", life_loss=True, sticky=0.0, mode="native")
    ended = []
    for make in (make_envs, make_evaluation_envs):
        envs = make(lives, 1)
        envs.reset(seed=0)
        left = None
        for _ in range(120):
            _, _, terminated, _, infos = envs.step([1])
            if terminated.any():
                left = int(infos["lives"][0])
                break
        ended.append(left)
        envs.close()
    assert ended[0] == 4 and ended[1] in (None, 0)


def test_a_run_may_say_how_its_environments_are_vectorised():
    chosen = config("wf/catch", mode="sync", obs="state")
    envs = make_envs(chosen, 2)
    envs.close()
    assert type(envs).__name__ == "SyncVec"
    alone = _drawing_env(chosen)
    assert alone.reset(seed=0)[0].keys() == {"state"}
