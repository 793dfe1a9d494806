"""World models as environments: exact for a known model, single like batched, start states."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from worldflux.core.state import State
from worldflux.errors import CapabilityError, EnvError
from worldflux.specs import Capability, TensorSpec
from worldflux.testing import check_env
from worldflux.testing.dummies import TinyConfig, TinyModel
from worldflux_envs.backends import wm
from worldflux_envs.boundary.faults import EnvFault
from worldflux_envs.dream import WorldModelEnv, WorldModelVectorEnv

OBS = {"state": TensorSpec((5,)), "image": TensorSpec((3, 8, 8), "uint8")}
DISCRETE = {"action": TensorSpec((), "int64", n=3)}
CONTINUOUS = {"action": TensorSpec((2,))}


class Counter(TinyModel):
    """Knows its world exactly: the state counts up by the action; ends above 3."""

    def initial(self, batch_size, device=None):
        return State({"count": torch.zeros(batch_size, 1)})

    def encode(self, obs, deterministic=False, *, rand=None):
        return State({"count": obs["state"][:, :1].clone()})

    def transition(self, state, action, *args, **options):
        return State({"count": state["count"] + action.reshape(-1, 1).float()})

    def decode(self, state, conditions=None, *, keys=None):
        count = state["count"]
        from worldflux.core.output import ModelOutput

        everything = {
            "state": count.expand(-1, 5),
            "image": torch.zeros(len(count), 3, 8, 8),
            "reward": count[:, 0] * 2,
            "continue": (count[:, 0] <= 3).float(),
        }
        return ModelOutput({k: v for k, v in everything.items() if keys is None or k in keys})


def model(cls=TinyModel, action=DISCRETE):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cls(TinyConfig(), OBS, action)


@pytest.mark.parametrize(
    "action", [DISCRETE, CONTINUOUS, {"action": TensorSpec((2,), "int64", n=(2, 3))}]
)
def test_the_environment_contract_holds(action):
    found = check_env(lambda: WorldModelEnv(model(action=action), horizon=20))
    assert "check_gymnasium" in found


def test_rewards_terminations_and_limits_are_the_models():
    env = WorldModelEnv(
        model(Counter), horizon=6, starts={k: torch.zeros(1, *s.shape) for k, s in OBS.items()}
    )
    env.reset(seed=0)
    steps = [env.step(a)[1:4] for a in (1, 0, 2, 1)]
    assert steps == [
        (2.0, False, False),
        (2.0, False, False),
        (6.0, False, False),
        (8.0, True, False),
    ]
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(6)][-1] == (False, True)


def test_batched_dreams_end_and_begin_row_by_row():
    starts = {k: torch.zeros(1, *s.shape) for k, s in OBS.items()}
    env = WorldModelVectorEnv(model(Counter), 3, horizon=10, starts=starts)
    env.reset(seed=0)
    env.step(np.array([1, 2, 0]))
    obs, reward, terminated, _, infos = env.step(np.array([1, 2, 0]))
    assert terminated.tolist() == [False, True, False] and reward.tolist() == [4, 8, 0]
    assert obs["state"][:, 0].tolist() == [2, 4, 0]
    obs, reward, terminated, _, infos = env.step(np.array([1, 2, 1]))
    assert infos["is_first"].tolist() == [False, True, False]
    assert obs["state"][:, 0].tolist() == [3, 0, 1] and reward.tolist() == [6, 0, 2]
    assert not terminated.any()


class Filmed(Counter):
    """A video: two latent actions of its own, no action space of the data, no reward."""

    capabilities = frozenset({Capability.OBS_DECODE, Capability.LATENT_ACTIONS})

    def __init__(self, config, obs_spec, action_spec):
        super().__init__(config, obs_spec, action_spec)
        self.action_spec = {}
        self.action = TensorSpec((), "int64", n=2, labels=("stand", "walk"))

    def decode(self, state, conditions=None, *, keys=None):
        found = super().decode(state, conditions, keys=keys)
        found.predictions = {k: v for k, v in found.predictions.items() if k in OBS}
        return found


def test_a_model_of_video_is_played_with_its_own_actions_and_without_reward():
    env = WorldModelEnv(
        model(Filmed), horizon=3, starts={k: torch.zeros(1, *s.shape) for k, s in OBS.items()}
    )
    assert env.action_space.n == 2 and env.action_space.labels == ("stand", "walk")
    env.reset(seed=0)
    obs, reward, terminated, truncated, _ = env.step(1)
    assert obs["state"][0] == 1 and reward == 0.0 and not terminated and not truncated
    assert [env.step(0)[3] for _ in range(2)] == [False, True]
    assert WorldModelEnv(model(Filmed)).dreams.begin(0)["state"][:, 0] == 0  # imagined starts


class Lost(Counter):
    """Imagines what is not a number once it counts to 2."""

    lost = "reward"

    def decode(self, state, conditions=None, *, keys=None):
        output = super().decode(state, conditions, keys=keys)
        if self.lost in output.predictions:
            output.predictions[self.lost] = output.predictions[self.lost].clone()
            output.predictions[self.lost][state["count"][:, 0] == 2] = torch.nan
        return output


@pytest.mark.parametrize(("key", "name"), [("reward", "reward"), ("state", r"observation 'state'")])
def test_a_dream_that_is_not_finite_stops(key, name):
    zeros = {k: torch.zeros(1, *s.shape) for k, s in OBS.items()}
    env = WorldModelVectorEnv(model(Lost), 3, starts=zeros)
    env.dreams.model.lost = key
    env.reset(seed=0)
    env.step(np.array([1, 0, 0]))
    with pytest.raises(EnvFault, match=rf"^Dream 1 of Lost, step 2: {name}(\[0\])? is nan, expect"):
        env.step(np.array([0, 2, 0]))


def test_an_action_that_is_not_finite_is_not_dreamt():
    env = WorldModelVectorEnv(model(action=CONTINUOUS), 2)
    env.reset(seed=0)
    with pytest.raises(EnvError, match=r"^Dream 1 .*, step 0: the action\[1\] is nan.* agent gave"):
        env.step(np.array([[0.0, 0.0], [0.0, np.nan]], np.float32))


def test_the_same_seed_dreams_the_same():
    env = WorldModelVectorEnv(model(), 2)
    runs = []
    for seed in (1, 1, 2):
        env.reset(seed=seed)
        runs.append(np.stack([env.step(np.array([0, 1]))[0]["state"] for _ in range(5)]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_uncertainty_is_the_spread_of_sampled_rewards():
    sure = WorldModelEnv(
        model(Counter), starts={k: torch.zeros(1, *s.shape) for k, s in OBS.items()}
    )
    sure.reset(seed=0)
    assert sure.step(1)[4]["uncertainty"] == 0.0
    unsure = WorldModelEnv(model(), samples=8)
    unsure.reset(seed=0)
    assert unsure.step(1)[4]["uncertainty"] > 0


def test_dreams_start_from_real_observations():
    states = torch.arange(3.0)[:, None].expand(3, 5)
    starts = {"state": states, "image": torch.zeros(3, 3, 8, 8, dtype=torch.uint8)}
    env = WorldModelVectorEnv(model(Counter), 64, starts=starts)
    obs, _ = env.reset(seed=0)
    assert set(obs["state"][:, 0].tolist()) == {0.0, 1.0, 2.0}


def test_dreams_start_from_an_environment():
    small = TinyModel(TinyConfig(), {"state": TensorSpec((3,))}, DISCRETE)
    env = WorldModelEnv(small, starts="wf/catch")
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)


def test_dreams_start_from_an_environment_with_options():
    small = TinyModel(TinyConfig(), {"image": TensorSpec((3, 16, 16), "uint8")}, DISCRETE)
    starts = {"id": "wf/catch", "obs": "pixels", "size": 16}
    found = WorldModelEnv(small, starts=starts).dreams.starts.observations
    assert found["image"].shape[1:] == (3, 16, 16) and found["image"].float().std() > 0
    with pytest.raises(EnvError, match="start observations lack 'image'"):
        WorldModelEnv(small, starts={"id": "wf/catch"})


def test_dreams_start_from_recorded_episodes(tmp_path):
    from worldflux.columns import step_columns
    from worldflux.episodes import EpisodeWriter

    specs = {"state": TensorSpec((5,))}
    writer = EpisodeWriter(tmp_path / "episodes", step_columns(specs, DISCRETE))
    for value in (1.0, 2.0):
        writer.write({
            "obs.state": np.full((2, 5), value, np.float32), "action": np.array([1, 0]),
            "reward": np.array([0, 1], np.float32), "is_first": np.array([True, False]),
            "is_last": np.array([False, True]), "is_terminal": np.array([False, True]),
        })  # fmt: skip
    found = TinyModel(TinyConfig(), specs, DISCRETE)
    env = WorldModelEnv(found, starts=tmp_path / "episodes")
    assert sorted(env.dreams.starts.observations["state"][:, 0].tolist()) == [1.0, 2.0]


def test_a_saved_model_is_an_environment(tmp_path, monkeypatch):
    import worldflux

    pytest.importorskip("worldflux_ring", reason="needs the example plugin")
    ring = worldflux.create_world_model("ring:small", obs_shape=(3,), action_dim=1)
    ring.save_pretrained(tmp_path / "ring")
    starts = {"state": torch.zeros(4, 3)}
    env = worldflux.make_env(f"wm/{tmp_path / 'ring'}", starts=starts, horizon=3)
    env.reset(seed=0)
    assert [env.step(np.zeros(1, np.float32))[3] for _ in range(3)] == [False, False, True]
    vec = worldflux.make_vec_env(f"wm/{tmp_path / 'ring'}", 5, starts=starts, seed=1)
    assert vec.reset()[0]["state"].shape == (5, 3)


class Blind(TinyModel):
    capabilities = frozenset({Capability.REWARD_PRED})


class Feedforward(TinyModel):
    recurrent = False


def test_a_list_of_seeds_is_one_seed_for_all_dreams():
    dreams = WorldModelVectorEnv(model(), 2)
    first, again, other = (dreams.reset(seed=seeds)[0] for seeds in ([1, 2], [1, 2], [1, 3]))
    for key, value in first.items():
        assert np.array_equal(value, again[key])
    assert any(not np.array_equal(value, other[key]) for key, value in first.items())


def test_what_cannot_be_dreamt_is_refused(tmp_path):
    with pytest.raises(CapabilityError, match="Blind predicts no observations"):
        WorldModelEnv(model(Blind))
    with pytest.raises(EnvError, match="Feedforward cannot imagine a first state"):
        WorldModelEnv(model(Feedforward))
    with pytest.raises(EnvError, match="horizon must be at least 1, got 0"):
        WorldModelEnv(model(), horizon=0)
    with pytest.raises(EnvError, match="horizon must be at least 1, got 0"):
        WorldModelVectorEnv(model(), 2, horizon=0)
    with pytest.raises(EnvError, match="samples must be at least 1"):
        WorldModelEnv(model(), samples=0)
    with pytest.raises(EnvError, match="lack 'image', which the model sees; they have: state"):
        WorldModelEnv(model(), starts={"state": torch.zeros(1, 5)})
    with pytest.raises(EnvError, match="neither a folder of episodes nor an environment id"):
        WorldModelEnv(model(), starts="nowhere")
    with pytest.raises(EnvError, match="wm takes no option 'horizn'. Did you mean 'horizon'"):
        wm._checked({"horizn": 1})
    with pytest.raises(EnvError, match="one batch: mode='sync' is not auto or native"):
        wm.make_vec("somewhere", 2, mode="sync")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("{}")
    with pytest.raises(EnvError, match="the run has no intact checkpoint yet"):
        wm.load(str(tmp_path / "run"))


def test_images_are_rendered():
    env = WorldModelEnv(model(), render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (8, 8, 3)
    plain = WorldModelEnv(TinyModel(TinyConfig(), {"state": TensorSpec((5,))}, DISCRETE))
    plain.reset(seed=0)
    with pytest.raises(NotImplementedError, match="imagines no image to render"):
        plain.render()
