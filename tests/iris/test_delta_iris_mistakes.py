"""Published sizes of Delta-IRIS, and what is easily got wrong in it, each as a property."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.errors import CapabilityError, ConfigError, ContractError, StorageError
from worldflux.specs import TensorSpec
from worldflux.testing.inputs import randomise
from worldflux.testing.phases import as_sampled
from worldflux.training import LeastSampled
from worldflux_iris.delta_iris import behavior
from worldflux_iris.delta_iris.agent import DeltaIRISAgent
from worldflux_iris.delta_iris.config import PRESETS, TINY
from worldflux_iris.delta_iris.reference import place

IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", 0, 255)}
SMALL = {"image": TensorSpec((3, 16, 16), "uint8", 0, 255)}
Sequences = Callable[..., Batch]
COUNTS = {
    ("crafter", 17): (5_409_611, 11_948_457, 3_745_216),
    ("atari", 4): (4_065_715, 3_577_257, 3_608_245),
    ("atari", 18): (4_126_643, 3_580_841, 3_615_427),
}


def choices(count: int) -> dict[str, TensorSpec]:
    return {"action": TensorSpec((), "int64", n=count)}


@pytest.fixture
def agent() -> DeltaIRISAgent:
    """One whose random weights tell inputs apart."""
    nets = {f"model.{name}.patch": 2 for name in ("encoder", "decoder", "frame", "context")}
    sizes = {"model.dim": 64, "model.vocab": 16, "agent.burn_in": 3, "agent.horizon": 4}
    found = DeltaIRISAgent(TINY.with_(**nets, **sizes), SMALL, choices(4))
    randomise(found)
    return found


def count(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(("preset", "actions"), COUNTS)
def test_the_published_sizes(preset: str, actions: int) -> None:
    with torch.device("meta"):
        found = DeltaIRISAgent(PRESETS[preset], IMAGE, choices(actions))
    dynamics = found.world_model.dynamics_model
    tokenizer, rest = dynamics.tokenizer, dynamics.predictors()
    assert (count(tokenizer), count(*rest), count(found.actor)) == COUNTS[preset, actions]
    assert found.parameter_count() == sum(COUNTS[preset, actions])
    assert tokenizer.quantizer.codebook.numel() == 65_536


def test_episodes_that_were_drawn_less_are_preferred(agent: DeltaIRISAgent) -> None:
    assert all(p.weights == LeastSampled(1.0) for p in agent.training_plan().phases)


def test_other_spaces_and_impossible_sizes_are_refused() -> None:
    odd = {"image": TensorSpec((3, 20, 20), "uint8", 0, 255)}
    with pytest.raises(CapabilityError, match="multiple of 16"):
        DeltaIRISAgent(TINY, odd, choices(3))
    with pytest.raises(CapabilityError, match="needs one discrete action, got None"):
        DeltaIRISAgent(TINY, SMALL, {})
    with pytest.raises(ConfigError, match="tokens=3 is no square"):
        TINY.with_(**{"model.tokens": 3})
    with pytest.raises(ConfigError, match="maps of the same size"):
        TINY.with_(**{"model.frame.patch": 2})
    with pytest.raises(ConfigError, match="2 multipliers, but 1 of down"):
        TINY.with_(**{"model.frame.down": (True,)})
    with pytest.raises(StorageError, match="no parameter of Delta-IRIS"):
        place("rssm.gru.weight")


def test_longer_sequences_than_the_window_are_refused(
    agent: DeltaIRISAgent, sequences: Sequences
) -> None:
    with pytest.raises(ContractError, match=r"at most model.max_blocks \+ 1 = 11 steps.*got 12"):
        agent.world_model.loss(sequences(length=12), "world_model")


def test_patches_come_back(agent: DeltaIRISAgent) -> None:
    """A token is a patch of the map: row, column, channel."""
    tokenizer = agent.world_model.dynamics_model.tokenizer
    maps = torch.arange(2 * 16 * 16.0).view(2, 16, 4, 4)
    latents = tokenizer.latents(maps)
    assert torch.equal(tokenizer.maps(latents), maps)
    assert torch.equal(latents[0, 1, :16], maps[0, :, 0, 2])  # the first row's second patch
    assert torch.equal(latents[0, 0, 16:32], maps[0, :, 0, 1])  # its second column


def test_the_tokens_are_of_the_change_not_of_the_frame(agent: DeltaIRISAgent) -> None:
    tokenizer = agent.world_model.dynamics_model.tokenizer
    frames, action = torch.rand(3, 8, 3, 16, 16), torch.eye(4)[torch.arange(8) % 4]
    plain = tokenizer.encode(frames[0], action, frames[1])
    assert not torch.equal(plain, tokenizer.encode(frames[2], action, frames[1]))
    assert not torch.equal(plain, tokenizer.encode(frames[0], action.roll(1, 0), frames[1]))
    tokens = torch.randint(16, (8, 4))
    shown = tokenizer.shown(frames[0], action, tokens)
    assert not torch.equal(shown, tokenizer.shown(frames[2], action, tokens))


def test_the_codebook_moves_in_the_tokenizers_phase_alone(
    agent: DeltaIRISAgent, sequences: Sequences
) -> None:
    quantizer = agent.world_model.dynamics_model.tokenizer.quantizer
    assert not [name for name, _ in agent.named_parameters() if "codebook" in name]
    before = quantizer.codebook.clone()
    agent.world_model.loss(sequences())
    agent.update(sequences(), "world_model", rand=Rand.seeded(0))
    assert torch.equal(before, quantizer.codebook)
    agent.update(sequences(), "tokenizer", rand=Rand.seeded(0))
    assert not torch.equal(before, quantizer.codebook) and int(quantizer.moves) == 1


def test_frames_are_rounded_before_they_are_seen_again(agent: DeltaIRISAgent) -> None:
    tokenizer = agent.world_model.dynamics_model.tokenizer
    frame, action = torch.rand(2, 3, 16, 16), torch.eye(4)[:2]
    tokens = torch.randint(16, (2, 4))
    decoded = tokenizer.decode(frame, action, tokenizer.words(tokens)).clamp(0, 1) * 255
    shown = tokenizer.shown(frame, action, tokens)
    assert shown.dtype == torch.uint8
    assert float((shown.float() - decoded).abs().max()) <= 0.5 + 1e-4
    assert not torch.equal(shown, decoded.to(torch.uint8))  # truncated, as IRIS's are


@torch.no_grad()
def test_a_dream_goes_on_from_what_was_seen_and_forgets_it_when_the_window_is_full(
    agent: DeltaIRISAgent, sequences: Sequences
) -> None:
    model, batch = agent.world_model.eval(), sequences()
    states = model.observe_sequence(batch)
    start, action = states.at(-1), torch.tensor([0, 1, 2])
    block = model.dynamics_model.tokens + 2
    assert start["cache.length"].tolist() == [5 * block - 1] * 3  # all but frame and last token
    alone = model.encode({"image": batch.obs["image"][:, -1]})
    one, two = (model.transition(s, action, deterministic=True) for s in (start, alone))
    assert not torch.allclose(one["reward_logits"], two["reward_logits"])
    while int(start["cache.length"][0]) < agent.config.model.max_blocks * block - block:
        start = model.transition(start, action, deterministic=True)
    after = model.transition(start, action, deterministic=True)
    assert after["cache.length"].tolist() == [block - 1] * 3
    other = model.encode({"image": start["frame"]})
    torch.testing.assert_close(
        after["reward_logits"], model.transition(other, action, deterministic=True)["reward_logits"]
    )


@torch.no_grad()
def test_rows_that_begin_and_rows_that_go_on_may_stand_side_by_side(
    agent: DeltaIRISAgent, sequences: Sequences
) -> None:
    model, batch = agent.world_model.eval(), sequences()
    going_on = model.observe_sequence(batch).at(-1)
    fresh = model.encode({"image": batch.obs["image"][:, -1]})
    one, action = torch.tensor([True, False, False]), torch.tensor([0, 1, 2])
    mixed = model.transition(fresh.where(one, going_on), action, deterministic=True)
    expected = [model.transition(s, action, deterministic=True) for s in (fresh, going_on)]
    for key in ("reward_logits", "end_logits", "frame", "tokens"):
        torch.testing.assert_close(mixed[key], expected[0].where(one, expected[1])[key])


def test_the_target_judges_and_moves_towards_the_weights_before_the_step(
    agent: DeltaIRISAgent, sequences: Sequences
) -> None:
    phase = agent.training_plan().phase("actor_critic")
    batch = as_sampled(agent, phase, sequences(length=phase.total))
    loss = behavior.loss(agent, batch, Rand.seeded(0))[1]["return"]
    actor = {k: v.clone() for k, v in agent.actor.named_parameters()}
    target = {k: v.clone() for k, v in agent.target.named_parameters()}
    agent.update(batch, "actor_critic", rand=Rand.seeded(0))
    for name, value in agent.target.named_parameters():
        torch.testing.assert_close(value, 0.995 * target[name] + 0.005 * actor[name])
    for parameter in agent.target.parameters():
        parameter.data.mul_(2)
    assert float(behavior.loss(agent, batch, Rand.seeded(0))[1]["return"]) != float(loss)


def test_steps_after_a_dreams_end_teach_nothing(
    agent: DeltaIRISAgent, sequences: Sequences
) -> None:
    phase = agent.training_plan().phase("actor_critic")
    batch = as_sampled(agent, phase, sequences(length=phase.total))
    draws = {"imagined/end": torch.ones(4, 3)}

    def losses(reward: float) -> Any:
        given = {**draws, "imagined/reward": torch.tensor([[1.0] * 3, *[[reward] * 3] * 3])}
        return behavior.loss(agent, batch, replace(Rand.seeded(0), draws=given))[0]

    assert torch.equal(losses(0.0), losses(2.0))


def test_the_memory_begins_anew_where_an_episode_does(
    agent: DeltaIRISAgent, sequences: Sequences
) -> None:
    phase = agent.training_plan().phase("actor_critic")
    batch = as_sampled(agent, phase, sequences(length=phase.total))
    other = sequences(length=phase.total, seed=1)
    other.obs["image"][:, 1:] = batch.obs["image"][:, 1:]
    changed = replace(batch, obs=other.obs)
    one, two = (behavior.started(agent, b, Rand())[1].own[0] for b in (batch, changed))
    assert not torch.equal(one, two)
    batch.is_first[:, 1] = True  # what lies before it is another episode, or padding
    one, two = (behavior.started(agent, b, Rand())[1].own[0] for b in (batch, changed))
    assert torch.equal(one, two)
