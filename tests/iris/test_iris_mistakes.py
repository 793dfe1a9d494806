"""What is easily got wrong in IRIS, each as a property."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.testing.inputs import randomise
from worldflux.testing.phases import as_sampled
from worldflux_iris.iris import behavior, losses
from worldflux_iris.iris.agent import IRISAgent

Make = Callable[..., IRISAgent]
Sequences = Callable[..., Batch]
Starts = Callable[..., Batch]


@pytest.fixture
def agent(small: Make) -> IRISAgent:
    """One with 4 tokens a frame, whose random weights tell inputs apart."""
    found = small(**{"model.quantize_after": 0, "agent.burn_in": 3})
    randomise(found)
    return found


@pytest.fixture
def starts(sequences: Sequences) -> Starts:
    """What the actor's phase samples."""

    def make(agent: IRISAgent, seed: int = 0) -> Batch:
        phase = agent.training_plan().phase("actor_critic")
        return as_sampled(agent, phase, sequences(length=phase.total, seed=seed))

    return make


def test_the_codebook_learns_by_gradients_and_moves_by_nothing_else(
    agent: IRISAgent, sequences: Sequences
) -> None:
    """It is no moving average (as in Delta-IRIS)."""
    tokenizer = agent.world_model.observation_encoder
    assert "world_model.observation_encoder.quantizer.codebook" in dict(agent.named_parameters())
    before = tokenizer.quantizer.codebook.clone()
    tokenizer.train()
    tokenizer.quantized(sequences().obs["image"].flatten(0, 1))
    assert torch.equal(before, tokenizer.quantizer.codebook)
    agent.world_model.loss(sequences(), "tokenizer").loss.backward()
    assert bool((tokenizer.quantizer.codebook.grad.abs().sum(-1) > 0).any())


def test_the_actor_sees_what_a_dream_shows_never_the_frame_itself(
    agent: IRISAgent, starts: Starts
) -> None:
    """Two frames with the same tokens are the same to it, in dreams' starts and when it acts."""
    model, batch = agent.world_model, starts(agent)
    image = batch.obs["image"]
    other = image.clone()
    other[..., 0, 0] ^= 1  # too little for another word
    assert torch.equal(model.encode({"image": image[:, -1]})["tokens"],
                       model.encode({"image": other[:, -1]})["tokens"])  # fmt: skip
    changed = replace(batch, obs={"image": other})
    for one, two in zip(behavior.started(agent, batch)[1:], behavior.started(agent, changed)[1:],
                        strict=True):  # fmt: skip
        for left, right in zip(one, two, strict=True):
            assert torch.equal(left, right)
    first, rand = torch.ones(3, dtype=torch.bool), Rand.seeded
    acted = [agent.act({"image": x[:, -1]}, None, first, rand=rand(0))[1] for x in (image, other)]
    assert torch.equal(acted[0]["actor.h"], acted[1]["actor.h"])


def test_the_action_decides_the_next_frame_its_reward_and_end_not_its_own(agent: IRISAgent) -> None:
    """Logits of step t + 1 change with the action at t, those of t do not."""
    dynamics = agent.world_model.dynamics_model.eval()
    tokens = torch.randint(16, (2, 5, 4))
    action = torch.randn(2, 5, 16)
    changed = action.clone()
    changed[:, 2] = torch.randn(2, 16)
    first = torch.zeros(2, 5, dtype=torch.bool)
    with torch.no_grad():
        one, two = (dynamics.sequence(tokens, a, first) for a in (action, changed))
    ahead = [dynamics.ahead(out) for out in (one, two)]
    same = (ahead[0] == ahead[1]).all(-1).all(0)  # (T, N): the action's first
    assert same[:2].all() and same[2, 1:].all()
    assert not same[2, 0] and not same[3:].any()
    signs = [dynamics.sign(out[:, :, -1]) for out in (one, two)]
    assert torch.equal(signs[0][:, :2], signs[1][:, :2])
    assert not torch.equal(signs[0][:, 2], signs[1][:, 2])


def test_labels_are_the_next_token_and_what_follows_the_action(sequences: Sequences) -> None:
    batch = sequences(rows=1, length=4)
    batch.reward[:] = torch.tensor([[0.0, -2.0, 0.0, 3.0]])
    batch.is_terminal[:, 3] = batch.is_last[:, 3] = True
    tokens = torch.arange(6).view(1, 3, 2)
    found = losses.labels(batch, tokens, True)
    assert found.tokens.tolist() == [[1, 2, 3, 4, 5]]
    assert found.signs.tolist() == [[0, 1, 2]] and found.ends.tolist() == [[0, 0, 1]]
    logits = torch.arange(6).view(1, 3, 2, 1)  # by block: what the action says, then token 0
    assert losses.in_order(logits).flatten().tolist() == [1, 0, 3, 2, 5]


def test_the_frame_an_episode_ends_with_is_learnt_where_that_is_wanted(
    sequences: Sequences,
) -> None:
    batch, tokens = sequences(rows=1, length=4), torch.arange(6).view(1, 3, 2)
    batch.is_last[:, 2] = True
    batch.is_first[:, 3] = True
    assert losses.labels(batch, tokens, True).tokens.tolist() == [[1, 2, 3, 4, 5]]
    assert losses.labels(batch, tokens, False).tokens.tolist() == [[1, 2, 3, -100, -100]]


@torch.no_grad()
def test_a_full_window_begins_anew_with_its_frame_row_by_row(
    agent: IRISAgent, sequences: Sequences
) -> None:
    model = agent.world_model.eval()
    block = model.dynamics_model.tokens + 1
    window = agent.config.model.max_blocks * block
    state, action = model.encode({"image": sequences().obs["image"][:, 0]}), torch.tensor([0, 1, 2])
    for _ in range(agent.config.model.max_blocks - 1):
        state = model.transition(state, action, deterministic=True)
    assert state["cache.length"].tolist() == [window - 2] * 3  # the last token is not yet in
    begun = model.dynamics_model.observe(  # a State that has seen this frame alone
        model.initial(3), model.condition(action), state.only({"tokens"}),
        torch.ones(3, dtype=torch.bool),
    )  # fmt: skip
    going_on, anew = (model.transition(s, action, deterministic=True) for s in (state, begun))
    assert going_on["cache.length"].tolist() == [2 * block - 2] * 3
    torch.testing.assert_close(going_on["reward_logits"], anew["reward_logits"])
    one = torch.tensor([True, False, False])  # row 0 has room, the others have not
    mixed = model.transition(begun.where(one, state), action, deterministic=True)
    torch.testing.assert_close(mixed["end_logits"], anew["end_logits"])


def test_the_memory_is_burned_in_and_padding_leaves_it_alone(
    agent: IRISAgent, starts: Starts
) -> None:
    batch = starts(agent)
    memory = behavior.started(agent, batch)[1]
    other = starts(agent, seed=1).obs["image"]
    other[:, 1:] = batch.obs["image"][:, 1:]
    changed = behavior.started(agent, replace(batch, obs={"image": other}))[1]
    assert not torch.equal(memory[0], changed[0]), "an earlier frame makes no difference"
    assert batch.mask is not None
    batch.mask[:, 0] = False
    masked = [behavior.started(agent, replace(batch, obs={"image": x}))[1]
              for x in (batch.obs["image"], other)]  # fmt: skip
    assert torch.equal(masked[0][0], masked[1][0])


def test_a_dream_begins_from_its_last_frame_alone(agent: IRISAgent, starts: Starts) -> None:
    """So that the window is the dream's."""
    start = behavior.started(agent, starts(agent))[0]
    assert start["cache.length"].tolist() == [agent.world_model.dynamics_model.tokens - 1] * 3


def test_only_the_actor_learns_in_dreams(agent: IRISAgent, starts: Starts) -> None:
    model = {k: v.clone() for k, v in agent.world_model.state_dict().items()}
    agent.update(starts(agent), "actor_critic", rand=Rand.seeded(0))
    assert all(torch.equal(model[k], v) for k, v in agent.world_model.state_dict().items())
    assert all(p.grad is None for p in agent.world_model.parameters())


def test_steps_after_a_dreams_end_count_as_the_configuration_says(
    agent: IRISAgent, starts: Starts
) -> None:
    draws = {"imagined/end": torch.ones(2, 3)}

    def loss(masked: bool) -> Any:
        agent.config = agent.config.with_(**{"agent.mask_ended": masked})
        rand = replace(Rand.seeded(0), draws=draws)
        return behavior.loss(agent, starts(agent), rand)[1]["loss/policy"]

    assert not torch.allclose(loss(True), loss(False))


@torch.no_grad()
def test_dreams_are_the_same_with_caches_of_their_own(
    agent: IRISAgent, sequences: Sequences
) -> None:
    """The rollout that writes in place equals single transitions, and leaves its start alone."""
    model = agent.world_model.eval()
    start = model.encode({"image": sequences().obs["image"][:, 0]})
    kept, actions = start.clone(), torch.randint(4, (12, 3))
    path = model.rollout(start, actions, rand=Rand.seeded(1))
    assert all(torch.equal(kept[k], x) for k, x in start.tensors.items())
    state, rand = start, Rand.seeded(1)
    for t in range(12):
        state = model.transition(state, actions[t], rand=rand.at(t))
        assert torch.equal(state["tokens"], path.states[t + 1]["tokens"])
    with torch.enable_grad():
        other = model.rollout(start, actions, rand=Rand.seeded(1)).states[-1]
    torch.testing.assert_close(other["cache.keys"].detach(), state["cache.keys"])


def test_dropout_comes_from_rand_and_dreams_have_none(
    small: Make, sequences: Sequences, starts: Starts
) -> None:
    found = small(**{"model.dropout": 0.5, "model.quantize_after": 0})
    batch = sequences()
    losses = [float(found.world_model.loss(batch, "world_model", rand=Rand.seeded(s)).loss)
              for s in (0, 0, 1)]  # fmt: skip
    assert losses[0] == losses[1] != losses[2]
    before = torch.random.get_rng_state()
    found.update(batch, "world_model", rand=Rand.seeded(0))
    assert torch.equal(before, torch.random.get_rng_state())
    dreams = [found.update(starts(found), "actor_critic", rand=Rand.seeded(0)) for _ in range(1)]
    assert dreams and found.world_model.training
    found.eval()
    evaluated = float(found.world_model.loss(batch, "world_model", rand=Rand.seeded(0)).loss)
    assert evaluated == float(found.world_model.loss(batch, "world_model").loss)


def test_quantisation_begins_with_words_where_latents_are(
    small: Make, sequences: Sequences
) -> None:
    found = small(**{"model.quantize_after": 2, "model.revive_after": 3})
    tokenizer, batch = found.world_model.observation_encoder, sequences(rows=8)
    for step in range(1, 4):
        result = found.update(batch, "tokenizer", rand=Rand.seeded(step)).metrics
        assert bool(tokenizer.quantizing) == (step >= 2)
        assert (float(result["loss/commitment"]) > 0) == (step > 2)
    assert "revived" in result
    z = tokenizer.latents(batch.obs["image"].flatten(0, 1))
    assert float(tokenizer.quantizer(z).commitment_loss().mean()) < 0.5 * float(z.var())


def test_words_that_nobody_chooses_are_revived(small: Make, sequences: Sequences) -> None:
    found = small(**{"model.quantize_after": 0, "model.revive_after": 3})
    tokenizer, image = found.world_model.observation_encoder, sequences().obs["image"].flatten(0, 1)
    tokenizer.quantizer.replace(torch.full((16, 8), 100.0), torch.arange(16))
    tokenizer.quantizer.replace(torch.zeros(1, 8), torch.zeros(1).long())
    revived = [int(tokenizer.revive(image, Rand.seeded(i))) for i in range(4)]
    assert revived == [0, 0, 0, 15]
    assert float(tokenizer.quantizer.codebook.abs().max()) < 100


def test_whitened_pixels_come_back_and_count_what_moves(small: Make) -> None:
    found = small()
    pixels = found.world_model.observation_encoder.pixels
    images = torch.zeros(64, 3, 16, 16)
    images[::2, :, :8] = 1.0  # moves often
    images[0, :, 12, 12] = 1.0  # moves seldom
    pixels.fit(images)
    torch.testing.assert_close(pixels.back(pixels(images)), images)
    assert (
        float(pixels.scale[0, 15, 15])
        < float(pixels.scale[0, 12, 12])
        < float(pixels.scale[0, 0, 0])
    )


def test_decode_needs_tokens_alone(agent: IRISAgent) -> None:
    """The code-book is the encoder's: a decoder gets words through the State."""
    model = agent.world_model
    found = model.decode(State({"tokens": torch.randint(16, (2, 3, 4))}), keys=("obs",))
    assert found.predictions["obs"].shape == (2, 3, 3, 16, 16)
    assert found.state is not None and set(found.state.tensors) == {"tokens"}
