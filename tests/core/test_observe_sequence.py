"""States of whole sequences: actions shifted, context skipped or observed; rollouts."""

import pytest
import torch
from torch import nn

from worldflux.core.interfaces import ActionConditioner, DynamicsModel, ObservationEncoder
from worldflux.core.model import WorldModel
from worldflux.core.rand import Rand, normal
from worldflux.core.state import State
from worldflux.specs import TensorSpec
from worldflux.testing.batches import random_batch
from worldflux.testing.dummies import TinyConfig, TinyModel

OBS = {"state": TensorSpec((5,))}
ACTION = {"action": TensorSpec((2,))}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TinyModel(TinyConfig(), OBS, ACTION)


def stepwise(model, batch, rand, begin=0, state=None):
    """`observe` step by step, with the action before each observation; States (B, T', ...)."""
    state = model.initial(batch.batch_size) if state is None else state
    states = []
    for t in range(begin, batch.length):
        before = batch.action[:, t - 1] if t else torch.zeros_like(batch.action[:, 0])
        obs = {key: value[:, t] for key, value in batch.obs.items()}
        state = model.observe(
            state, before, obs, batch.is_first[:, t], rand=rand.at(t - begin, dim=1)
        )
        states.append(state)
    return State.stack(states)


def same(left, right):
    assert left.tensors.keys() == right.tensors.keys()
    for key, value in left.tensors.items():
        torch.testing.assert_close(value, right[key], msg=key)


def test_it_equals_observing_step_by_step(model):
    batch = random_batch(OBS, ACTION, 3, 6)
    rand = Rand(draws={"stoch": torch.randn(3, 6, 16)})
    same(model.observe_sequence(batch, rand=rand), stepwise(model, batch, rand))


def test_a_start_replaces_the_initial_state(model):
    batch = random_batch(OBS, ACTION, 3, 4, boundary=False)
    batch.is_first[:] = False
    rand = Rand(draws={"stoch": torch.randn(3, 4, 16)})
    start = State({key: torch.randn(3, 16) for key in ("deter", "stoch", "mean")})
    found = model.observe_sequence(batch, start, rand=rand)
    same(found, stepwise(model, batch, rand, state=start))
    assert not torch.equal(found["deter"], model.observe_sequence(batch, rand=rand)["deter"])


def test_context_is_observed_without_gradient_and_left_out(model):
    batch = random_batch(OBS, ACTION, 3, 6, boundary=False)
    batch.context = 2
    draws = torch.randn(3, 6, 16)
    forced = Rand(draws={"context/stoch": draws[:, :2], "stoch": draws[:, 2:]})
    found = model.observe_sequence(batch, rand=forced)
    expected = stepwise(model, batch, Rand(draws={"stoch": draws}))
    same(found, expected.map(lambda x: x[:, 2:]))
    batch.obs["state"].requires_grad_()
    model.observe_sequence(batch)["deter"].sum().backward()
    reached = batch.obs["state"].grad.abs().sum((0, 2))
    assert (reached[:2] == 0).all() and (reached[2:-1] > 0).all()


def test_a_context_that_is_as_long_as_one_step_passes_on_its_action(model):
    """The first step after the context is preceded by the context's last action."""
    batch = random_batch(OBS, ACTION, 2, 3, boundary=False)
    batch.context = 1
    rand = Rand(draws={"context/stoch": torch.zeros(2, 1, 16), "stoch": torch.zeros(2, 2, 16)})
    first = model.observe_sequence(batch, rand=rand)
    batch.action[:, 0] += 1
    assert not torch.equal(
        first["deter"][:, 0], model.observe_sequence(batch, rand=rand)["deter"][:, 0]
    )


class Restores(TinyModel):
    """Replay keeps all it needs, under "all"."""

    def restored(self, stored):
        deter, stoch, mean = stored["all"].unbind(1)
        return State({"deter": deter, "stoch": stoch, "mean": mean})


def test_stored_latents_stand_for_the_context(model):
    twin = Restores(TinyConfig(), OBS, ACTION)
    twin.load_state_dict(model.state_dict())
    batch = random_batch(OBS, ACTION, 3, 6, boundary=False)
    batch.context = 2
    rand = Rand(draws={"stoch": torch.randn(3, 6, 16)})
    states = stepwise(model, batch, rand)
    kept = [states[key].detach() for key in ("deter", "stoch", "mean")]
    batch.stored = {"all": torch.stack(kept, 2)[:, :2]}
    batch.obs["state"][:, :2] = float("nan")  # never looked at
    after = Rand(draws={"stoch": rand.draws["stoch"][:, 2:]})
    found = twin.observe_sequence(batch, rand=after)
    same(found, states.map(lambda x: x[:, 2:]))
    assert model.observe_sequence(batch)["deter"].isnan().any()  # it cannot restore: it looks


class Flat(ObservationEncoder):
    """A latent per frame; says how many rows it saw at once."""

    def forward(self, obs):
        self.rows = len(obs["state"])
        return State({"z": obs["state"] * 2})


class Frames(WorldModel):
    def __init__(self):
        super().__init__(obs_spec=OBS, action_spec=ACTION)
        self.observation_encoder = Flat()

    def loss(self, batch, part=None, *, rand=None):
        raise NotImplementedError


def test_a_model_without_history_encodes_all_steps_at_once():
    model, batch = Frames(), random_batch(OBS, ACTION, 3, 6)
    batch.context = 2
    found = model.observe_sequence(batch)
    assert model.observation_encoder.rows == 12
    assert torch.equal(found["z"], batch.obs["state"][:, 2:] * 2)


def test_without_context_cuts_every_column_and_forgets_what_was_stored():
    batch = random_batch(OBS, ACTION, 3, 6)
    assert batch.without_context() is batch
    batch.context, batch.stored = 2, {"deter": torch.zeros(3, 2, 4)}
    batch.mask = torch.ones(3, 6, dtype=torch.bool)
    batch.index = torch.arange(18).reshape(3, 6)
    bare = batch.without_context()
    bare.validate()
    assert bare.length == 4 and bare.context == 0 and bare.stored == {}
    assert torch.equal(bare.obs["state"], batch.obs["state"][:, 2:])
    assert torch.equal(bare.index, batch.index[:, 2:]) and bare.mask.shape == (3, 4)


# Rollouts


class Counting(DynamicsModel):
    """Adds the action, and keeps a cache that counts the steps."""

    def transition(self, state, action, *, deterministic=False, rand=None):
        noise = rand.draw("eps", tuple(action.shape), normal) if rand else 0
        return State({"z": state["z"] + action + noise, "cache.n": state["cache.n"] + 1})


class Same(ActionConditioner):
    def forward(self, action, conditions=None):
        return action


def counting():
    model = Frames()
    model.dynamics_model, model.action_conditioner = Counting(), Same()
    return model, State({"z": torch.zeros(2, 2), "cache.n": torch.zeros(2, 3)})


def test_a_policys_own_tensors_go_on_in_the_rollout():
    model, start = counting()
    cell, seen = nn.LSTMCell(2, 4), []

    def policy(state, t):
        hidden = (state["lstm.h"], state["lstm.c"]) if "lstm.h" in state else None
        seen.append(None if hidden is None else hidden[0])
        h, c = cell(state["z"], hidden)
        return h[:, :2], state.with_({"lstm.h": h, "lstm.c": c})

    path = model.rollout(start, policy, horizon=3)
    hidden = None
    for t in range(3):
        hidden = cell(path.states[t]["z"], hidden)
        torch.testing.assert_close(path.states[t]["lstm.h"], hidden[0])
        torch.testing.assert_close(path.actions[t], hidden[0][:, :2])
    assert seen[0] is None and torch.equal(seen[2], path.states[1]["lstm.h"])
    assert torch.equal(path.states[3]["lstm.h"], path.states[2]["lstm.h"])
    # A start that holds the policy's tensors already is no different.
    again = model.rollout(path.states[3].with_({"cache.n": torch.zeros(2, 3)}), policy, horizon=2)
    assert torch.equal(seen[3], path.states[3]["lstm.h"])
    assert torch.equal(seen[4], again.states[0]["lstm.h"])


def test_what_the_policy_left_alone_is_the_models_to_keep_or_drop():
    model, start = counting()
    path = model.rollout(
        start.with_({"embed": torch.ones(2, 1)}), lambda s, t: (s["z"] + 1, s), horizon=2
    )
    assert "embed" in path.states[0] and "embed" not in path.states[1]


def test_a_rollout_keeps_the_last_caches_only():
    model, start = counting()
    path = model.rollout(start, torch.ones(3, 2, 2))
    assert ["cache.n" in state for state in path.states] == [False, False, False, True]
    assert (path.states[3]["cache.n"] == 3).all() and "cache.n" in start
    assert (path.states[3]["z"] == 3).all()


def test_steps_of_a_rollout_take_their_own_noise():
    model, start = counting()
    noise = torch.arange(12.0).reshape(3, 2, 2)
    path = model.rollout(start, torch.zeros(3, 2, 2), rand=Rand(draws={"eps": noise}))
    assert torch.equal(path.states[3]["z"], noise.sum(0))


class Smoothing(ObservationEncoder):
    """Features are a running mean of the episode's observations: it sees history."""

    sees_history = True

    def forward(self, obs):
        return State({"embed": obs["state"], "mean": obs["state"]})

    def sequence(self, state, obs, is_first):
        mean, found = state["mean"], []
        for t in range(is_first.shape[1]):
            new = obs["state"][:, t]
            mean = torch.where(is_first[:, t, None], new, 0.5 * mean + 0.5 * new)
            found.append(mean)
        found = torch.stack(found, 1)
        return State({"embed": found, "mean": found})


class Keeping(DynamicsModel):
    """The State is what the encoder says, and remembers it."""

    recurrent = True

    def initial(self, batch_size, device):
        return State({"mean": torch.zeros(batch_size, 5, device=device)})

    def observe(self, state, action, features, is_first, *, deterministic=False, rand=None):
        return State({"mean": features["embed"]})

    def transition(self, state, action, *, deterministic=False, rand=None):
        return state


class Historic(WorldModel):
    """What an encoder that sees history needs, and no more."""

    def __init__(self):
        super().__init__(None, OBS, ACTION)
        self.fill("observation_encoder", Smoothing)
        self.fill("dynamics_model", Keeping)

    def loss(self, batch, part=None, *, rand=None):
        raise NotImplementedError


def test_an_encoder_that_sees_history_is_given_it():
    historic, batch = Historic(), random_batch(OBS, ACTION, 3, 6)
    found = historic.observe_sequence(batch, rand=Rand())
    same(found, stepwise(historic, batch, Rand()))
    x = batch.obs["state"]
    first = historic.encode({"state": x[:, 0]})
    torch.testing.assert_close(first["mean"], x[:, 0])
    torch.testing.assert_close(found["mean"][1, 1], (x[1, 0] + x[1, 1]) / 2)
    torch.testing.assert_close(found["mean"][0, 3], x[0, 3])  # an episode begins there


def test_an_encoder_without_history_has_no_sequence(model):
    with pytest.raises(NotImplementedError, match="TinyEncoder sees no history"):
        model.observation_encoder.sequence(model.initial(1), {}, torch.ones(1, 1))
