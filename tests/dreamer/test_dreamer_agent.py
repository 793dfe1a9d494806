"""The agent and its world model as the loop and other users see them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.errors import ContractError
from worldflux.factory import create_agent, create_world_model
from worldflux.specs import TensorSpec
from worldflux.testing import check_family, random_batch, random_obs
from worldflux_dreamer.dreamerv3.agent import DreamerV3Agent
from worldflux_dreamer.dreamerv3.config import DreamerV3Config

TINY = DreamerV3Config(
    model={"deter": 32, "hidden": 16, "stoch": 6, "classes": 4, "units": 16, "depth": 2},
    agent={"imag_length": 5, "lr": 1e-3, "warmup": 0, "batch": 4, "length": 8},
)
IMAGE = {"image": TensorSpec((3, 64, 64), "uint8")}
VECTOR = {"state": TensorSpec((5,))}
MIXED = {
    **{"image": TensorSpec((3, 64, 64), "uint8"), "depth": TensorSpec((1, 64, 64), "uint8")},
    **{"state": TensorSpec((4, 2)), "height": TensorSpec(()), "goal": TensorSpec((), "int64", n=3)},
    **{"cards": TensorSpec((2,), "int64", n=(3, 5))},
}
DISCRETE = {"action": TensorSpec((), "int64", n=4)}
CHOICES = {"action": TensorSpec((2,), "int64", n=(3, 2))}
CONTINUOUS = {"action": TensorSpec((2,), low=-1.0, high=1.0)}
SCALAR = {"action": TensorSpec((), low=-1.0, high=1.0)}


@pytest.fixture(autouse=True)
def _own_rng():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(batch: Batch, horizon: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """Everything that an update of a tiny agent with choices draws."""
    source, rows = generator(seed), batch.batch_size * (batch.length - batch.context)
    lead = (batch.batch_size, batch.length - batch.context)
    return {
        "stoch": torch.rand(*lead, 6, generator=source),
        "imagined/stoch": torch.rand(horizon, rows, 6, generator=source),
        "imagined/action_noise": torch.rand(horizon + 1, rows, 1, generator=source),
    }


@pytest.mark.slow  # every family does in tests/contract; this one in sizes of its own
def test_the_family_conforms():
    small = {"model.deter": 32, "model.hidden": 16, "model.units": 16, "agent.imag_length": 3}
    ran = check_family("dreamerv3:size1m", learn=False, **small)
    assert {"check_slots_take_effect", "check_sequence_equals_steps", "check_update"} <= set(ran)


@pytest.mark.parametrize("action", [DISCRETE, CHOICES, CONTINUOUS, SCALAR])
@pytest.mark.parametrize("obs", [VECTOR, MIXED], ids=("vector", "mixed"))
def test_every_kind_of_space_acts_learns_and_decodes(obs, action):
    agent = DreamerV3Agent(TINY, obs, action)
    batch = random_batch(obs, action, 2, 6)
    result = agent.update(batch, "train", rand=Rand(generator()))
    assert {f"loss/{key}" for key in obs} <= set(result.metrics)
    assert result.replay_writes["stoch"].shape == (2, 6, 6)
    seen = random_obs(obs, (3,), Rand(generator()))
    first = torch.ones(3, dtype=torch.bool)
    payload, state = agent.act(seen, None, first, "train", rand=Rand(generator()))
    assert payload.tensor.shape == (3, *action["action"].shape)
    predictions = agent.world_model.decode(state).predictions
    for key, spec in obs.items():
        assert predictions[key].shape == (3, *spec.shape), key
    trajectory = agent.world_model.rollout(
        state, payload.tensor[None].expand(4, *payload.tensor.shape)
    )
    assert trajectory.rewards.shape == trajectory.continues.shape == (4, 3)


def test_repeated_updates_on_one_batch_lower_the_loss():
    agent = DreamerV3Agent(TINY.with_(**{"agent.lr": 3e-3}), VECTOR, DISCRETE)
    batch = random_batch(VECTOR, DISCRETE, 4, 8)
    metrics = [agent.update(batch, "train", rand=Rand(generator(0))).metrics for _ in range(30)]
    for name in ("state", "rew", "con"):
        assert float(metrics[-1][f"loss/{name}"]) < 0.7 * float(metrics[0][f"loss/{name}"]), name


def test_training_plan_comes_from_the_configuration():
    plan = DreamerV3Agent(TINY, VECTOR, DISCRETE).training_plan()
    (phase,) = plan.phases
    assert (phase.batch, phase.length, phase.context, phase.boundary) == (4, 8, 1, "cross")
    assert phase.updates_per_step == pytest.approx(32 / 32)


def test_evaluation_samples_like_the_published_agent_unless_told_otherwise():
    obs, first = random_obs(VECTOR, (512,), Rand(generator())), torch.ones(512, dtype=torch.bool)
    sampling = DreamerV3Agent(TINY, VECTOR, DISCRETE)
    taken = sampling.act(obs, None, first, "eval", rand=Rand(generator()))[0].tensor
    assert len(taken.unique()) == 4
    greedy = DreamerV3Agent(TINY.with_(**{"agent.eval_policy": "mode"}), VECTOR, DISCRETE)
    with torch.no_grad():
        greedy.policy.logits.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    taken = greedy.act(obs, None, first, "eval", rand=Rand(generator()))[0].tensor
    assert taken.unique().tolist() == [1]
    taken = greedy.act(obs, None, first, "train", rand=Rand(generator()))[0].tensor
    assert len(taken.unique()) == 4


def test_stored_latents_start_the_sequence_and_are_written_back():
    agent = DreamerV3Agent(TINY, VECTOR, DISCRETE)
    batch = random_batch(VECTOR, DISCRETE, 2, 7, boundary=False)
    batch.is_first[:] = False
    stored = {
        "deter": torch.randn(2, 1, 32),
        "stoch": torch.randint(0, 4, (2, 1, 6), dtype=torch.uint8),
    }
    batch = replace(batch, context=1, stored=stored)
    start = agent.world_model.restored({key: value[:, 0] for key, value in stored.items()})
    torch.testing.assert_close(start["stoch"].argmax(-1), stored["stoch"][:, 0].long())
    draws = noise(batch)
    posterior = agent.losses(batch, Rand(draws=draws)).posterior
    written = agent.update(batch, "train", rand=Rand(draws=draws)).replay_writes
    assert written["deter"].shape == (2, 6, 32)
    torch.testing.assert_close(written["deter"], posterior["deter"].detach())
    torch.testing.assert_close(written["stoch"].long(), posterior["stoch"].argmax(-1))
    assert {key: str(x.dtype) for key, x in written.items()} == {
        key: f"torch.{spec.dtype}" for key, spec in agent.replay_spec.items()
    }
    halves = [_written(agent, batch, draws, cut) for cut in (1, 4)]
    torch.testing.assert_close(halves[0][:, 3:], halves[1], rtol=1e-4, atol=1e-5)


def _written(agent, batch, draws, start: int) -> torch.Tensor:
    """Latents from step `start` on, with those before it as written by the first pass."""
    whole = agent.world_model.observe_sequence(batch, rand=Rand(draws=draws))
    if start == 1:
        return whole["deter"].detach()
    values = agent.replay_values(whole)
    later = batch.map(lambda x: x)
    before = {key: value[:, start - 2 : start - 1] for key, value in values.items()}
    later = replace(
        later.map(lambda x: x[:, start - 1 :] if x.shape[1] == 7 else x), stored=before, context=1
    )
    rand = Rand(draws={"stoch": draws["stoch"][:, start - 1 :]})
    return agent.world_model.observe_sequence(later, rand=rand)["deter"].detach()


def test_padding_does_not_count():
    agent = DreamerV3Agent(TINY, VECTOR, DISCRETE)
    batch = random_batch(VECTOR, DISCRETE, 2, 6, boundary=False)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[:, 4:] = False
    rand = Rand(draws={"stoch": torch.rand(2, 6, 6)})
    first = agent.world_model.loss(replace(batch, mask=mask), rand=rand).loss
    batch.reward[:, 4:] += 100
    torch.testing.assert_close(
        agent.world_model.loss(replace(batch, mask=mask), rand=rand).loss, first
    )
    assert not torch.allclose(agent.world_model.loss(batch, rand=rand).loss, first)


def test_imagination_may_start_from_the_last_steps_only():
    agent = DreamerV3Agent(TINY.with_(**{"agent.imag_last": 3}), VECTOR, DISCRETE)
    whole = DreamerV3Agent(TINY, VECTOR, DISCRETE)
    whole.load_state_dict(agent.state_dict())
    batch = random_batch(VECTOR, DISCRETE, 2, 6)
    draws = noise(batch)
    few = {
        key: x.unflatten(1, (2, 6))[:, :, 3:].flatten(1, 2)
        for key, x in draws.items()
        if "imagined/" in key
    }
    expected = whole.losses(batch, Rand(draws=draws))
    found = agent.losses(batch, Rand(draws={**draws, **few}))
    assert found.terms["policy"].shape == found.terms["value"].shape == (2, 3)
    torch.testing.assert_close(found.terms["value"], expected.terms["value"][:, 3:])
    assert found.terms["repval"].shape == (2, 2)
    torch.testing.assert_close(found.terms["dyn"], expected.terms["dyn"])


def test_half_precision_gives_nearly_the_same_losses():
    agent = DreamerV3Agent(TINY, IMAGE, CONTINUOUS)
    batch = random_batch(IMAGE, CONTINUOUS, 2, 6)
    rand = Rand(draws={"stoch": torch.randint(0, 4, (2, 6, 6))})
    full = agent.losses(batch, rand)
    with torch.autocast("cpu", torch.bfloat16):
        half = agent.losses(batch, rand)
    for name in ("dyn", "rep", "rew", "con", "image"):
        expected, found = full.terms[name].mean().item(), half.terms[name].mean().item()
        assert found == pytest.approx(expected, rel=2e-2, abs=2e-5), name


def test_updates_under_autocast_keep_float32_parameters():
    agent = DreamerV3Agent(TINY, IMAGE, CONTINUOUS)
    batch = random_batch(IMAGE, CONTINUOUS, 2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        metrics = agent.update(batch, "train", rand=Rand(generator())).metrics
    assert bool(torch.isfinite(metrics["loss"]))
    assert {p.dtype for p in agent.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in agent.parameters() if p.grad is not None} == {torch.float32}


def test_ids_and_settings_reach_the_agent():
    agent = create_agent(
        "dreamerv3:size1m", obs_spec=VECTOR, action_spec=DISCRETE, **{"agent.lr": 1e-2}
    )
    assert agent.optimizers["laprop"].param_groups[0]["lr"] == 1e-2
    model = create_world_model("dreamerv3:size1m", obs_shape=(3, 64, 64), action_dim=6)
    state = model.encode(torch.rand(2, 3, 64, 64))
    assert model.decode(model.transition(state, torch.rand(2, 6))).predictions["image"].shape == (
        *(2, 3, 64, 64),
    )


def test_image_sizes_that_do_not_fit_are_refused():
    for shape in ((3, 60, 64), (3, 32, 32), (3, 512, 512)):
        with pytest.raises(ContractError, match="does not fit 4 halvings"):
            DreamerV3Agent(TINY, {"image": TensorSpec(shape, "uint8")}, DISCRETE)
    sizes = {"a": TensorSpec((3, 64, 64), "uint8"), "b": TensorSpec((3, 96, 96), "uint8")}
    with pytest.raises(ContractError, match="Images of one observation must have one size"):
        DreamerV3Agent(TINY, sizes, DISCRETE)


def test_one_action_space_only():
    two = {"move": TensorSpec((), "int64", n=3), "look": TensorSpec((2,))}
    with pytest.raises(ContractError, match="takes one action space, got 2: move, look"):
        DreamerV3Agent(TINY, VECTOR, two)


def test_incomplete_batches_are_refused():
    agent = DreamerV3Agent(TINY, VECTOR, DISCRETE)
    batch = random_batch(VECTOR, DISCRETE, 2, 6)
    with pytest.raises(ContractError, match="batch.obs lacks 'state'. It has: nothing"):
        agent.world_model.loss(replace(batch, obs={}))


def test_context_without_stored_latents_is_observed():
    agent = DreamerV3Agent(TINY, VECTOR, DISCRETE)
    batch = replace(random_batch(VECTOR, DISCRETE, 2, 6, boundary=False), context=2)
    draws = noise(batch)
    forced = Rand(draws={**draws, "context/stoch": torch.rand(2, 2, 6)})
    seen = agent.losses(batch, forced).posterior
    assert seen["deter"].shape == (2, 4, 32)
    batch.obs["state"][:, 0] += 5
    other = agent.losses(batch, forced).posterior
    assert not torch.allclose(seen["deter"], other["deter"])


def test_states_hold_the_logits_of_what_they_were_drawn_from():
    model = DreamerV3Agent(TINY, VECTOR, DISCRETE).world_model
    obs, action = {"state": torch.randn(3, 5)}, torch.zeros(3, dtype=torch.int64)
    start = model.encode(obs)
    predicted, updated = model.transition(start, action), model.update(start, action, obs)
    assert "posterior_logits" in start and "prior_logits" in predicted
    assert updated["posterior_logits"].shape == updated["prior_logits"].shape == (3, 6, 4)
    torch.testing.assert_close(updated["prior_logits"], predicted["prior_logits"])
    sharp = updated["posterior_logits"] - updated["prior_logits"]
    assert sharp.abs().max() > 1e-3  # the posterior has seen the observation
    again = model.observe(start, action, obs, torch.zeros(3, dtype=torch.bool), deterministic=True)
    best = again["posterior_logits"].argmax(-1)
    assert torch.equal(again["stoch"].argmax(-1), best)


@pytest.mark.slow
def test_the_loss_compiles_as_one_graph():
    agent = DreamerV3Agent(TINY.with_(**{"agent.imag_length": 2}), VECTOR, DISCRETE)
    batch = random_batch(VECTOR, DISCRETE, 2, 2)  # the compiler unrolls every step
    rand = Rand(draws=noise(batch, horizon=2))
    expected = agent.losses(batch, rand)
    state = {name: value.clone() for name, value in agent.return_norm.state_dict().items()}
    compiled = torch.compile(lambda: agent.losses(batch, rand).total, fullgraph=True)
    agent.return_norm.load_state_dict({name: torch.zeros(()) for name in state})
    total = compiled()
    torch.testing.assert_close(total, expected.total, rtol=1e-4, atol=1e-5)
    total.backward()
    assert all(p.grad is not None for p in agent.parameters() if p.requires_grad)
