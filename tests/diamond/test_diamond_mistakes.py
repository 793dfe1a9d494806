"""Mistakes that are easily made with DIAMOND, each with a test that it would fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldflux import create_agent, create_world_model
from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import CapabilityError, ConfigError, StorageError
from worldflux.nn.diffusion import edm
from worldflux.specs import TensorSpec
from worldflux.testing.batches import random_steps
from worldflux.testing.inputs import randomise
from worldflux.testing.phases import as_sampled
from worldflux_diamond.diamond import dreams
from worldflux_diamond.diamond.agent import DiamondAgent
from worldflux_diamond.diamond.blocks import AdaGroupNorm
from worldflux_diamond.diamond.config import PRESETS
from worldflux_diamond.diamond.denoiser import Denoiser
from worldflux_diamond.diamond.reference import load_weights, our_name, read_checkpoint
from worldflux_diamond.diamond.windows import ages, all_windows, episode_windows

OBS = {"image": TensorSpec((3, 8, 8), "uint8", low=0, high=255)}
ACTION = {"action": TensorSpec((), "int64", n=3)}
SMALL: dict[str, Any] = {
    "model.denoiser.channels": (8, 16),
    "model.denoiser.depths": (1, 1),
    "model.denoiser.attention": (False, False),
    "model.denoiser.cond": 16,
    "model.denoiser.history": 4,
    "model.reward_end.channels": (8, 16),
    "model.reward_end.depths": (1, 1),
    "model.reward_end.attention": (False, False),
    "model.reward_end.lstm": 12,
    "agent.lstm": 12,
    "agent.horizon": 4,
    "agent.dream_length": 3,
    "agent.actor_critic.batch": 3,
}


def make(**overrides: Any) -> DiamondAgent:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        agent = create_agent(
            "diamond:tiny", obs_spec=OBS, action_spec=ACTION, **{**SMALL, **overrides}
        )
    assert isinstance(agent, DiamondAgent)
    randomise(agent)
    return agent


@pytest.fixture(scope="module")
def agent() -> DiamondAgent:
    return make()


def histories(agent: DiamondAgent, rows: int, seed: int = 0) -> Batch:
    """What the phase of the policy would sample."""
    phase = agent.training_plan().phase("actor_critic")
    batch = random_steps(agent.columns, rows, phase.total, boundary=False, seed=seed)
    return as_sampled(agent, phase, batch)


@pytest.mark.parametrize(
    ("preset", "counts"),
    [
        ("diamond", (4_405_955, 5_900_864, 3_229_637)),
        ("small", (1_107_299, 1_519_392, 809_445)),
        ("medium", (4_405_955, 5_900_864, 3_229_637)),
        ("large", (23_286_659, 23_251_584, 12_902_277)),
    ],
)
def test_parameter_counts(preset: str, counts: tuple[int, ...]) -> None:
    image = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
    with torch.device("meta"):
        made = DiamondAgent(PRESETS[preset], image, {"action": TensorSpec((), "int64", n=4)})
    dynamics = made.world_model.dynamics_model
    parts = (dynamics.denoiser, dynamics.reward_end, made.actor)
    assert tuple(sum(p.numel() for p in part.parameters()) for part in parts) == counts


def test_sampling_starts_from_noise_of_deviation_one(agent: DiamondAgent) -> None:
    """Scaled by the largest level, as elsewhere, the first step would see what it never learnt."""
    model = agent.world_model
    state = model.encode({"image": torch.zeros(2000, 3, 8, 8, dtype=torch.uint8)})
    noise = model.dynamics_model.noise(state, rand=Rand.seeded(0))
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    denoiser = model.dynamics_model.denoiser
    few = state.rows(slice(2))
    path = denoiser.sample(noise[:2], few["frames"], few["actions"])
    assert torch.equal(path[0], noise[:2])
    assert not model.dynamics_model.noise(few, deterministic=True).any()


def test_offset_noise_is_in_the_conditioners(agent: DiamondAgent) -> None:
    denoiser = agent.world_model.dynamics_model.denoiser
    sigma = torch.tensor([5.0, 0.1])
    by = denoiser.conditioners(sigma)
    assert by.c_in.tolist() == pytest.approx([0.19865, 1.69031], rel=1e-4)
    assert by.c_skip.tolist() == pytest.approx([0.009866, 0.71429], rel=1e-4)
    forgotten = edm.conditioners(sigma, 0.5)
    assert (forgotten.c_skip - by.c_skip).abs().max() > 0.2  # what leaving it out does at 0.1


class Echo(nn.Module):
    """A network that notes what it is given and says what it is told."""

    def __init__(self, answer: Callable[[Tensor], Tensor] = torch.zeros_like) -> None:
        super().__init__()
        self.answer, self.frames = answer, []

    def forward(self, noisy: Tensor, c_noise: Tensor, frames: Tensor, actions: Tensor) -> Tensor:
        self.frames.append(frames)
        return self.answer(noisy)


def test_what_is_fed_back_has_eight_bits(agent: DiamondAgent) -> None:
    config, echo = agent.config.model.denoiser, Echo()
    denoiser, frames = Denoiser(config, echo), torch.rand(2, 6, 3, 8, 8) * 2 - 1
    none = torch.zeros(2, 6, dtype=torch.bool)
    denoiser.loss(frames, torch.zeros(2, 6, 3), none, 4, rand=Rand.seeded(0))
    first, second = (seen * config.sigma_data for seen in echo.frames)
    torch.testing.assert_close(first, frames[:, :4])
    torch.testing.assert_close(second[:, :3], frames[:, 1:4])
    fed = (second[:, 3] + 1) / 2 * 255
    torch.testing.assert_close(fed, fed.round(), atol=1e-3, rtol=0)
    assert (second[:, 3] - frames[:, 4]).abs().max() > 0.1  # its own, not the true one


def test_the_target_is_the_next_frame(agent: DiamondAgent) -> None:
    """A network that answers what EDM asks of it has no loss, and gives the next frame back.

    Neither the frame after the next nor a velocity would do.
    """
    config = agent.config.model.denoiser
    clean = edm.quantised(torch.rand(2, 3, 8, 8) * 1.8 - 0.9) + 1 / 255
    forced = Rand.seeded(0)
    echo = Echo()
    denoiser = Denoiser(config, echo)
    noisy, sigma = denoiser.noisy(clean, Rand.seeded(0))
    echo.answer = lambda x: edm.network_target(clean, noisy, denoiser.conditioners(sigma))
    past = torch.zeros(2, 4, 3, 8, 8)
    error, made = denoiser.loss_step(clean, past, torch.zeros(2, 4, 3), forced)
    assert error.max() < 1e-8
    torch.testing.assert_close(made, clean - 1 / 255, atol=1e-5, rtol=0)


def test_adaptive_norms_have_no_scale_of_their_own(agent: DiamondAgent) -> None:
    norms = [m for m in agent.modules() if isinstance(m, AdaGroupNorm)]
    assert norms and all({n for n, _ in m.named_parameters()} == {"linear.weight", "linear.bias"}
                         for m in norms)  # fmt: skip


def test_three_euler_steps_down_the_levels(agent: DiamondAgent) -> None:
    """As published; many steps of DDPM drift away. The order of the levels is falling."""
    denoiser = make(**{"model.denoiser.steps": 3}).world_model.dynamics_model.denoiser
    assert PRESETS["diamond"].model.denoiser.steps == 3
    assert denoiser.sigmas == pytest.approx((5.0, 0.28308, 0.002, 0.0), rel=1e-4)
    assert denoiser.config.order == 1 and denoiser.churn.gamma(1.0, 3) == 0


def test_what_lies_before_an_episode_is_zero(agent: DiamondAgent) -> None:
    first = torch.tensor([[False, False, True, False, False]])
    x = torch.arange(1.0, 6.0).reshape(1, 5, 1)
    assert ages(first)[0].tolist()[2:] == [1, 2, 3] and ages(first)[0, 0] > 4
    assert episode_windows(x, first, 4, 3)[0, :, 0].tolist() == [0, 3, 4]
    assert episode_windows(x, first, 2, 3)[0, :, 0].tolist() == [0, 0, 0]
    windows = all_windows(torch.full((1, 2, 1), -1.0), x, ages(first, torch.tensor([2.0])))
    assert windows[0, :, :, 0].tolist() == [[-1, 1], [1, 2], [0, 3], [3, 4], [4, 5]]
    state = agent.world_model.encode({"image": torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)})
    assert not state["frames"][:, :3].any() and (state["frames"][:, 3] == 1).all()
    assert state["seen"].item() == 1 and state["end_logits"].argmax() == 0


def test_the_memory_of_rewards_begins_anew_with_every_batch(agent: DiamondAgent) -> None:
    batch = histories(agent, 3)
    first, second = (agent.world_model.observe_sequence(batch) for _ in range(2))
    assert torch.equal(first["reward.h"], second["reward.h"])
    agent.update(histories(make(), 6), "actor_critic", rand=Rand.seeded(0))
    third = agent.world_model.observe_sequence(batch)
    assert torch.equal(first["reward.h"], third["reward.h"])


def test_the_reward_belongs_to_the_action_before_the_frame(agent: DiamondAgent) -> None:
    """The pair (frame, next frame) and the action between them; the next action changes nothing."""
    model = agent.world_model
    batch = random_steps(agent.columns, 2, 6, boundary=False, seed=1)
    seen = model.observe_sequence(batch)["reward_logits"]
    other = random_steps(agent.columns, 2, 6, boundary=False, seed=1)
    assert other.action is not None
    other.action[:, 3] = (other.action[:, 3] + 1) % 3
    changed = model.observe_sequence(other)["reward_logits"]
    torch.testing.assert_close(changed[:, :4], seen[:, :4])
    assert not torch.allclose(changed[:, 4], seen[:, 4])


def test_dreams_live_on_and_begin_anew_in_order(agent: DiamondAgent) -> None:
    """Cut off after three steps, in an update of four: each dream takes one history more."""
    made = make()
    pool = dreams.starts(made.world_model, made.actor, histories(made, 6), Rand())
    running, used = pool.rows(slice(3)), torch.tensor(3)
    # Nothing ends by itself: the choice of going on wins.
    on = 1e4 * torch.tensor([1.0, 0.0]).expand(4, 3, 2)
    rand = Rand(torch.Generator().manual_seed(0), draws={"end": on})
    steps, after = dreams.dream(
        made.world_model, made.actor, running, pool, used, horizon=4, length=3, rand=rand
    )
    assert steps.cut[:, 2].all() and not steps.cut[:, [0, 1, 3]].any() and steps.live.all()
    torch.testing.assert_close(steps.frame[:, 3], pool["frames"][3:, -1])
    assert after["actor.age"].tolist() == [1, 1, 1]
    # Without histories left, the row is masked until the next update brings some.
    none = State({key: x[:3] for key, x in pool.tensors.items()})
    steps, after = dreams.dream(
        made.world_model, made.actor, running, none, used, horizon=4, length=3, rand=rand
    )
    assert not steps.live[:, 3].any() and (after["actor.over"] == 1).all()
    fresh, used = dreams.restarted(after, pool, torch.tensor(0), after["actor.over"] > 0)
    assert used == 3 and torch.equal(fresh["frames"], pool["frames"][:3])


def test_updates_carry_dreams(agent: DiamondAgent) -> None:
    made = make()
    for seed in range(2):
        found = made.update(histories(made, 6, seed), "actor_critic", rand=Rand.seeded(seed))
        assert made.carry is not None and made.carry.batch_size == 3
        assert not any(x.requires_grad for x in made.carry.tensors.values())
    assert {"loss/policy", "loss/value", "dreams/masked", "entropy_bits"} <= found.metrics.keys()


def test_the_plan_is_the_published_one() -> None:
    plan = DiamondAgent(PRESETS["diamond"], OBS_64, ACTION).training_plan()
    found = {p.name: (p.batch, p.total, p.updates, p.updates_per_step) for p in plan.phases}
    assert found == {
        "denoiser": (32, 6, 10_000, 4), "reward_end": (32, 19, 10_000, 4),
        "actor_critic": (64, 4, 5_000, 4),
    }  # fmt: skip
    assert {p.start for p in plan.phases} == {5000} and plan.collect_until == 100_000
    assert {p.weights for p in plan.phases} == {(0.1, 0.1, 0.1, 0.7)}
    assert [p.pad for p in plan.phases] == ["before", "both", "before"]


OBS_64 = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}


def test_what_decays(agent: DiamondAgent) -> None:
    """What multiplies; no bias, norm or embedding."""
    decayed, kept = agent.optimizers["denoiser"].param_groups
    assert decayed["weight_decay"] == 1e-2 and kept["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    embedding = agent.world_model.dynamics_model.denoiser.network.action.weight
    assert any(p is embedding for p in kept["params"])
    assert all(g["weight_decay"] == 0 for g in agent.optimizers["actor_critic"].param_groups)


def test_acting_needs_the_policy_alone_and_every_frame(agent: DiamondAgent) -> None:
    assert agent.remembers and all(name.startswith("actor.") for name in agent.acting_weights())
    obs, first = {"image": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, torch.tensor([True])
    greedy = make(**{"agent.greedy": True})
    chosen = {int(greedy.act(obs, None, first, "eval")[0].tensor) for _ in range(10)}
    assert len(chosen) == 1


def test_what_is_refused() -> None:
    vector = {"state": TensorSpec((5,))}
    with pytest.raises(CapabilityError, match="takes one image .* got 'state' \\(5,\\) float32"):
        create_world_model("diamond:tiny", obs_spec=vector, action_spec=ACTION)
    moving = {"action": TensorSpec((2,), low=-1.0, high=1.0)}
    with pytest.raises(CapabilityError, match="chooses one of several actions"):
        create_world_model("diamond:tiny", obs_spec=OBS, action_spec=moving)
    with pytest.raises(ConfigError, match="need one entry for each level"):
        PRESETS["tiny"].with_(**{"model.denoiser.depths": (1, 1)})
    with pytest.raises(ConfigError, match="cond=62 is no multiple of 4"):
        PRESETS["tiny"].with_(**{"model.denoiser.cond": 62})
    with pytest.raises(ConfigError, match="channels=.* and down=.* need one entry"):
        PRESETS["tiny"].with_(**{"agent.down": (True,)})


def test_the_published_file(agent: DiamondAgent, tmp_path: Any) -> None:
    with pytest.raises(StorageError, match="'tokenizer.x' is no parameter of DIAMOND"):
        our_name("tokenizer.x")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(StorageError, match="holds a list, expected named weights"):
        read_checkpoint(tmp_path / "list.pt")
    with pytest.raises(StorageError, match="do not fit this agent, .* the agent .* the config"):
        load_weights(agent, {"actor_critic.lstm.weight_ih": torch.zeros(2, 2)})
    (tmp_path / "noise.pt").write_bytes(b"nothing")
    with pytest.raises(StorageError, match="no readable DIAMOND checkpoint"):
        read_checkpoint(tmp_path / "noise.pt")
