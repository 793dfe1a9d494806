"""What IRIS and Delta-IRIS learn of catch from 2,000 random episodes, part by part, and must not.

Frames say little by their error, as most pixels never change: ball and paddle are read from them
by the nearest of the 225 states. The tokenizer and transformer of a seed are trained once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from worldflux import create_agent
from worldflux.columns import ACTION, FLAGS, REWARD
from worldflux.core.agent import Agent
from worldflux.core.batch import Batch
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.rand import Rand
from worldflux.core.source import Source
from worldflux.specs import TensorSpec
from worldflux_envs.wf.catch import COLUMNS, ROWS, Catch

pytestmark = pytest.mark.slow
SIDE = 32
OBS = {"image": TensorSpec((3, SIDE, SIDE), "uint8", 0, 255)}
CHOICES = {"action": TensorSpec((), "int64", n=3)}
GAME = Catch()
FAMILIES = ("iris:tiny", "delta-iris:tiny")


class Learnt(NamedTuple):
    """What a learner knows after tokenizer and transformer were trained."""

    agent: Agent
    source: Source
    held_out: Source
    psnr: float
    tokens: float


def episodes(count: int, seed: int) -> list[dict[str, Any]]:
    """Random episodes of catch, as a run would record them."""
    own = torch.Generator().manual_seed(seed)
    state = GAME.reset(torch.rand(count, GAME.chances, generator=own))
    frames, rewards, taken = [GAME.picture(state, SIDE)], [torch.zeros(count)], []
    for _ in range(ROWS - 1):
        action = torch.randint(3, (count,), generator=own)
        state, reward, _ = GAME.step(state, action)
        frames.append(GAME.picture(state, SIDE))
        rewards.append(reward)
        taken.append(action)
    taken.append(torch.zeros(count, dtype=torch.int64))
    step = torch.arange(ROWS)
    flags = (step == 0, step == ROWS - 1, step == ROWS - 1)
    image, action, reward = (torch.stack(x, 1).numpy() for x in (frames, taken, rewards))
    return [
        {"obs.image": image[i], ACTION: action[i], REWARD: reward[i].astype("float32")}
        | dict(zip(FLAGS, (flag.numpy() for flag in flags), strict=True))
        for i in range(count)
    ]


def trained(agent: Agent, source: Source, phase: str, updates: int, seed: int) -> Agent:
    """The agent after so many updates of a phase, as a run would do them."""
    plan = agent.training_plan().phase(phase)
    agent.begin(phase, source, Rand.seeded(seed))
    rand = Rand.seeded(seed + 1)
    for update in range(updates):
        agent.update(source.read(source.choose(plan, update)), phase, rand=rand)
    return agent


def accuracy(agent: Agent, source: Source, phase: str, metric: str, batches: int = 5) -> float:
    """Mean of a metric of the model's loss over batches that nobody trained on."""
    plan, found = agent.training_plan().phase(phase), []
    agent.eval()
    with torch.no_grad():
        for update in range(batches):
            batch = source.read(source.choose(plan, update))
            found.append(float(agent.world_model.loss(batch, phase).metrics[metric]))
    agent.train()
    return sum(found) / len(found)


@torch.no_grad()
def played(agent: Agent, count: int = 200, seed: int = 1) -> float:
    """Mean return of the final policy in `count` episodes of catch."""
    agent.eval()
    rand = Rand.seeded(seed)
    state = GAME.reset(torch.rand(count, GAME.chances, generator=rand.generator))
    memory, first, total = None, torch.ones(count, dtype=torch.bool), torch.zeros(count)
    for _ in range(ROWS - 1):
        obs = {"image": GAME.picture(state, SIDE)}
        action, memory = agent.act(obs, memory, first, "eval", rand=rand)
        state, reward, _ = GAME.step(state, action.primary())
        total, first = total + reward, torch.zeros_like(first)
    agent.train()
    return float(total.mean())


def every_state() -> Tensor:
    """Frames (225 or so, 3, SIDE, SIDE) of all states of catch."""
    ball, row, paddle = torch.meshgrid(
        torch.arange(COLUMNS), torch.arange(ROWS), torch.arange(COLUMNS), indexing="ij"
    )
    state = {"ball": ball.flatten(), "row": row.flatten(), "paddle": paddle.flatten()}
    return GAME.picture(state, SIDE)


def places(frames: Tensor) -> Tensor:
    """Which of all states (N,) frames (N, C, Y, X) in [0, 1] are nearest to."""
    known = every_state().flatten(1).float() / 255
    return torch.cdist(frames.flatten(1), known).argmin(1)


def pairs(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """First frame, action and next frame (B', ...) of the sequences of a Batch that have two."""
    held = batch.mask[:, 1] if batch.mask is not None else torch.ones(batch.batch_size).bool()
    frames = batch.obs["image"][held]
    return frames[:, 0], batch.require("action")[held, 0], frames[:, 1]


@torch.no_grad()
def come_true(agent: Agent, source: Source, still: bool = False, restored: bool = False) -> float:
    """Share of next frames, imagined from one frame and an action, that show the real state.

    With `still` the action is always to stay; `restored` takes Delta-IRIS's tokens from the real
    next frame, which tells what its tokenizer is good for.
    """
    plan = agent.training_plan().phase("world_model")
    batch, model = source.read(source.choose(plan, 0)), agent.world_model.eval()
    before, action, after = pairs(batch)
    taken = torch.ones_like(action) if still else action
    if restored:
        tokenizer, hot = model.dynamics_model.tokenizer, model.condition(taken)
        first, second = before.float() / 255, after.float() / 255
        shown = tokenizer.shown(first, hot, tokenizer.tokens(first, hot, second)).float() / 255
    else:
        state = model.transition(model.encode({"image": before}), taken, deterministic=True)
        shown = model.decode(state, keys=("image",)).predictions["image"]
    model.train()
    return float((places(shown) == places(after.float() / 255)).float().mean())


@torch.no_grad()
def readable(agent: Agent) -> float:
    """Share of all states whose reconstruction is nearest to their own frame."""
    frames = every_state()
    shown = places(agent.world_model.reconstructed(frames))
    return float((shown == torch.arange(len(frames))).float().mean())


@cache
def learnt(model_id: str, seed: int) -> Learnt:
    """The family after its tokenizer and transformer learned catch."""
    torch.manual_seed(seed)
    agent = create_agent(model_id, obs_spec=OBS, action_spec=CHOICES)
    source = EpisodeSource(episodes(2000, seed), agent.columns, seed=seed)
    held_out = EpisodeSource(episodes(200, seed + 100), agent.columns, seed=seed)
    c = agent.config.agent
    trained(agent, source, "tokenizer", c.tokenizer_updates, seed)
    psnr = accuracy(agent, held_out, "tokenizer", "psnr")
    trained(agent, source, "world_model", c.model_updates, seed)
    found = accuracy(agent, held_out, "world_model", "tokens_accuracy")
    return Learnt(agent, source, held_out, psnr, found)


@torch.no_grad()
def foreseen(agent: Agent, source: Source) -> float:
    """Share of tokens of the next frame that a single step from a frame foresees."""
    plan = agent.training_plan().phase("world_model")
    batch, model = source.read(source.choose(plan, 0)), agent.world_model.eval()
    before, action, after = pairs(batch)
    state = model.encode({"image": before})
    found = model.transition(state, action, deterministic=True)["tokens"]
    model.train()
    return float((found == model.encode({"image": after})["tokens"]).float().mean())


class Peeking(torch.nn.Module):
    """A transformer whose tokens see the ones after them in training: the mistake to be found."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, x: Tensor, cache: Any = None, mask: Any = None) -> Tensor:
        if cache is not None:
            return self.inner(x, cache)
        return self.inner(x, mask=torch.ones(x.shape[1], x.shape[1], dtype=torch.bool))


def with_transformer(seed: int, spoil: Callable[[Agent], None]) -> tuple[Agent, Source]:
    """The tokenizer of `learnt`, and a transformer trained anew after `spoil(agent)`."""
    known = learnt("iris:tiny", seed)
    torch.manual_seed(seed)
    agent = create_agent("iris:tiny", obs_spec=OBS, action_spec=CHOICES)
    for name in ("observation_encoder", "decoder_module"):
        getattr(agent.world_model, name).load_state_dict(
            getattr(known.agent.world_model, name).state_dict()
        )
    spoil(agent)
    trained(agent, known.source, "world_model", agent.config.agent.model_updates, seed)
    return agent, EpisodeSource(episodes(200, seed + 100), agent.columns, seed=seed)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_tokenizer_shows_every_state_of_catch(seed: int) -> None:
    """At least 30 dB; the mean picture alone has 24.8, so ball and paddle are read as well."""
    found = learnt("iris:tiny", seed)
    assert found.psnr >= 30, found.psnr
    assert readable(found.agent) >= 0.95, readable(found.agent)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tokens_of_changes_show_what_changed(seed: int) -> None:
    found = learnt("delta-iris:tiny", seed)
    assert found.psnr >= 30, found.psnr
    assert come_true(found.agent, found.held_out, restored=True) >= 0.95


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("model_id", FAMILIES)
def test_the_transformer_foresees_the_next_token(model_id: str, seed: int) -> None:
    found = learnt(model_id, seed)
    assert found.tokens >= 0.95, found.tokens
    known, blind = (come_true(found.agent, found.held_out, still) for still in (False, True))
    assert known >= 0.85 and blind < 0.7, (known, blind)  # two of three actions move the paddle


def test_without_actions_the_next_frame_cannot_be_foreseen() -> None:
    def blind(agent: Agent) -> None:
        table = agent.world_model.slot("action_conditioner").table.weight
        table.requires_grad_(False).zero_()

    agent, source = with_transformer(0, blind)
    found = accuracy(agent, source, "world_model", "tokens_accuracy")
    assert found < min(0.95, learnt("iris:tiny", 0).tokens - 0.03), found


def test_a_transformer_that_peeks_foresees_nothing_when_it_dreams() -> None:
    def peek(agent: Agent) -> None:
        dynamics = agent.world_model.dynamics_model
        dynamics.transformer = Peeking(dynamics.transformer)

    agent, source = with_transformer(0, peek)
    known = learnt("iris:tiny", 0)
    assert foreseen(agent, source) < foreseen(known.agent, source) - 0.2


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("model_id", FAMILIES)
def test_a_policy_that_never_played_catches(model_id: str, seed: int) -> None:
    """Random play returns -0.55, a policy that always goes one way -0.6."""
    found = learnt(model_id, seed)
    updates = found.agent.config.agent.actor_updates
    trained(found.agent, found.source, "actor_critic", updates, seed)
    assert played(found.agent) >= 0.6, played(found.agent)
