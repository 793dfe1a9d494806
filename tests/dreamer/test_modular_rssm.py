"""The modular RSSM: every combination, its transformer dynamics, parts of a user."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import ConfigError, ContractError, StateError
from worldflux.factory import create_agent, create_world_model
from worldflux.hub import load_into
from worldflux.specs import TensorSpec
from worldflux.testing import check_family
from worldflux.testing.batches import random_batch
from worldflux_dreamer.latent_rssm.config import SizesConfig
from worldflux_dreamer.latent_rssm.cores import LatentCore, Memory
from worldflux_dreamer.latent_rssm.layers import dense
from worldflux_dreamer.latent_rssm.rssm import RSSM
from worldflux_dreamer.modular.dynamics import TransformerDynamics

IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
VECTOR, CONTINUOUS = {"state": TensorSpec((5,))}, {"action": TensorSpec((2,), low=-1.0, high=1.0)}
TINY: dict[str, Any] = {
    "deter": 16, "hidden": 12, "stoch": 4, "units": 16, "depth": 4, "embed": 16, "vit_units": 16,
    "memory": 3, "vector_layers": 1,
}  # fmt: skip


def model(obs: dict[str, TensorSpec] = VECTOR, **options: Any) -> WorldModel:
    options = {**TINY, **options}
    return create_world_model("rssm:small", obs_spec=obs, action_spec=CONTINUOUS, **options)


def batch(obs: dict[str, TensorSpec] = VECTOR, length: int = 6) -> Batch:
    return random_batch(obs, CONTINUOUS, batch=2, length=length)


DYNAMICS = ("gru", "lstm", "norm_gru", "block_gru", "transformer")
PARTS = list(itertools.product(("conv", "mlp", "vit"), ("conv", "mlp"), DYNAMICS))


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_conformance(dynamics: str) -> None:
    ran = check_family("modular-rssm:small", learn=False, dynamics=dynamics, **TINY)
    assert "check_sequence_equals_steps" in ran


@pytest.mark.parametrize(("encoder", "decoder", "dynamics"), PARTS)
def test_every_combination_trains_and_rolls_out(encoder: str, decoder: str, dynamics: str) -> None:
    made = model(IMAGE, encoder=encoder, decoder=decoder, dynamics=dynamics)
    data = batch(IMAGE, length=3)
    shades = torch.tensor([10, 200, 90], dtype=torch.uint8)
    data.obs["image"] = shades[:, None, None, None].expand(2, 3, 3, 64, 64).contiguous()
    optimizer = torch.optim.Adam(made.parameters(), lr=2e-4)
    found = []
    for _ in range(6):
        output = made.loss(data, rand=Rand.seeded(0))
        optimizer.zero_grad()
        output.loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None for p in made.parameters())
        optimizer.step()
        found.append(output.components["image"].item())
    assert found[-1] < found[0]
    start = made.encode({"image": data.obs["image"][:, 0]}, deterministic=True)
    dream = made.rollout(start, torch.zeros(5, 2, 2), deterministic=True, decode=True)
    assert dream.observations is not None
    assert dream.observations["image"].shape == (6, 2, 3, 64, 64)
    assert dream.rewards is not None
    assert torch.isfinite(dream.rewards).all()


@pytest.mark.parametrize(
    ("preset", "options", "count"),
    [
        ("base", {}, 5_301_676),
        ("base", {"dynamics": "lstm"}, 5_382_076),
        ("base", {"dynamics": "transformer", "encoder": "vit"}, 10_364_228),
        ("small", {}, 346_932),
    ],
)
def test_parameter_counts(preset: str, options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        made = create_agent(f"rssm:{preset}", obs_spec=IMAGE, action_dim=6, **options)
    assert made.parameter_count() == count


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
@pytest.mark.parametrize("dynamics", ["gru", "transformer"])
def test_both_kinds_of_latent(latent: str, dynamics: str) -> None:
    made = model(latent=latent, dynamics=dynamics)
    assert torch.isfinite(made.loss(batch(), rand=Rand.seeded(0)).loss)


# Attention over time

CACHES = ("cache.keys", "cache.values", "cache.filled")


def transformer(**options: Any) -> TransformerDynamics:
    found = model(dynamics="transformer", **options).dynamics_model
    assert isinstance(found, TransformerDynamics)
    with torch.no_grad():
        for block in found.transformer.attention:
            block.distance.normal_()  # type: ignore[union-attr,operator]
    return found


def run(module: TransformerDynamics, action: Tensor, first: Tensor | None = None) -> State:
    rows, steps = action.shape[:2]
    if first is None:
        first = torch.zeros(rows, steps, dtype=torch.bool)
    rand = Rand(draws={"stoch": torch.zeros(rows, steps, 4)})
    start = module.initial(rows, action.device)
    return module.observe_sequence(start, action, embeds(rows, steps), first, rand=rand)


def embeds(rows: int, steps: int) -> State:
    found = torch.arange(steps * 16.0).sin().reshape(1, steps, 16)
    return State({"embed": found.expand(rows, -1, -1)})


def test_attention_is_causal() -> None:
    """What happens at step 4 changes nothing before it, and changes what follows."""
    module, action = transformer(memory=8), torch.randn(1, 7, 2)
    other = action.clone()
    other[:, 4] += 1
    left, right = run(module, action)["deter"], run(module, other)["deter"]
    assert torch.equal(left[:, :4], right[:, :4])
    assert bool((left[:, 4:] != right[:, 4:]).any(-1).all())


def test_attention_reaches_back_as_far_as_its_memory() -> None:
    """One layer sees M steps back and no further; two layers see twice as far."""
    for layers in (1, 2):
        module, action = transformer(memory=2, layers=layers), torch.randn(1, 9, 2)
        other = action.clone()
        other[:, 1] += 1
        changed = (run(module, action)["deter"] != run(module, other)["deter"]).any(-1)[0]
        reach = 2 * layers
        assert changed.tolist() == [1 <= t <= 1 + reach for t in range(9)]


def test_attention_stays_within_the_episode_and_the_row() -> None:
    module, action = transformer(memory=8), torch.randn(2, 6, 2)
    first = torch.zeros(2, 6, dtype=torch.bool)
    first[0, 3] = True
    other = action.clone()
    other[0, :3] += 1
    left, right = run(module, action, first)["deter"], run(module, other, first)["deter"]
    assert torch.equal(left[0, 3:], right[0, 3:])
    assert torch.equal(left[1], right[1])


def test_the_order_of_past_steps_matters() -> None:
    module, action = transformer(memory=8), torch.randn(1, 5, 2)
    swapped = action[:, [1, 0, 2, 3, 4]]
    assert not torch.allclose(
        run(module, action)["deter"][:, 4], run(module, swapped)["deter"][:, 4]
    )


def test_stepping_with_the_cache_equals_the_whole_sequence_at_once() -> None:
    """Without a posterior: imagined steps from the cache are those of one attention over all."""
    module = transformer(memory=4)
    action = torch.randn(2, 9, 2)
    whole = run(module, action)
    state = run(module, action[:, :5]).at(-1)
    going_on = torch.zeros(2, dtype=torch.bool)
    for t in range(5, 9):
        seen = embeds(2, 9).at(t)
        rand = Rand(draws={"stoch": torch.zeros(2, 4)})
        state = module.observe(state, action[:, t], seen, going_on, rand=rand)
        for key, value in state.without_caches().tensors.items():
            torch.testing.assert_close(value, whole[key][:, t])
    for key in CACHES:
        torch.testing.assert_close(state[key], whole[key])


def test_the_cache_is_masked_where_nothing_was() -> None:
    module = transformer(memory=4)
    for steps, filled in ((1, [0, 0, 0, 1]), (3, [0, 1, 1, 1]), (6, [1, 1, 1, 1])):
        found = run(module, torch.randn(1, steps, 2))
        assert found["cache.filled"].tolist() == [filled]
        empty = torch.tensor(filled) == 0
        assert not found["cache.keys"][0, empty].any()


def test_the_cache_of_another_episode_is_empty() -> None:
    first = torch.zeros(1, 6, dtype=torch.bool)
    first[0, 4] = True
    found = run(transformer(memory=4), torch.randn(1, 6, 2), first)
    assert found["cache.filled"].tolist() == [[0, 0, 1, 1]]


def test_two_steps_from_one_state_leave_it_as_it_was() -> None:
    """A cache that were written in place would show the second step what the first one did."""
    made = transformer()
    state = run(made, torch.randn(2, 4, 2)).at(-1)
    before = state.map(torch.clone)
    one, other = torch.randn(2, 2), torch.randn(2, 2)
    first = made.transition(state, one, deterministic=True)
    second = made.transition(state, other, deterministic=True)
    again = made.transition(state, one, deterministic=True)
    for key, value in first.tensors.items():
        assert torch.equal(value, again[key])
    assert not torch.equal(first["deter"], second["deter"])
    assert not torch.equal(first["cache.keys"], second["cache.keys"])
    assert all(torch.equal(value, state[key]) for key, value in before.tensors.items())


def test_a_sequence_keeps_the_last_cache_alone() -> None:
    found = run(transformer(memory=4), torch.randn(2, 6, 2))
    assert found["deter"].shape[:2] == (2, 6)
    assert found["cache.keys"].shape[:2] == found["cache.filled"].shape == (2, 4)
    with pytest.raises(StateError, match="without a cache cannot go on.*It has: deter, stoch"):
        transformer(memory=4).transition(found.at(2), torch.zeros(2, 2))


# Parts of a user


class LeakyCore(LatentCore):
    """A user's core: an exponential average of its input."""

    def __init__(self, config: SizesConfig, stoch: int, action: int) -> None:
        super().__init__()
        self.deter = config.deter
        self.from_action, self.from_stoch = dense(action, config.deter), dense(stoch, config.deter)

    def action_input(self, action: Tensor) -> Tensor:
        return self.from_action(action)  # type: ignore[no-any-return]

    def forward(self, memory: Memory, stoch: Tensor, action: Tensor) -> Memory:
        return {"deter": torch.lerp(memory["deter"], self.from_stoch(stoch) + action, 0.2)}


class LeakyDynamics(RSSM):
    """The user's dynamics, as a slot wants it: made from the model."""

    def __init__(self, model: WorldModel) -> None:
        sizes: SizesConfig = model.sizes  # type: ignore[assignment]
        super().__init__(sizes, LeakyCore, model.action_size, model.embed_size)  # type: ignore[arg-type]


def test_a_users_core_takes_the_place_of_ours() -> None:
    made = model(slots={"dynamics_model": LeakyDynamics})
    made.loss(batch(), rand=Rand.seeded(0)).loss.backward()  # type: ignore[no-untyped-call]
    core = made.dynamics_model.core  # type: ignore[union-attr]
    assert isinstance(core, LeakyCore)
    assert core.from_action.weight.grad is not None
    state = made.transition(made.initial(2), torch.zeros(2, 2))
    assert state["deter"].shape == (2, 16)


def test_a_users_core_is_trained_planned_in_and_saved(tmp_path: Path) -> None:
    def make() -> Any:
        slots = {"dynamics_model": LeakyDynamics}
        return create_agent(
            "rssm:small", obs_spec=VECTOR, action_spec=CONTINUOUS, slots=slots, **TINY
        )

    agent = make()
    phase = agent.training_plan().phases[0].name
    metrics = agent.update(batch(), phase, rand=Rand.seeded(0)).metrics
    assert torch.isfinite(metrics["loss"])
    obs, first = {"state": torch.zeros(2, 5)}, torch.ones(2, dtype=torch.bool)
    action, _ = agent.act(obs, None, first, "eval", rand=Rand.seeded(0))
    assert action.tensor.shape == (2, 2)
    twin = make()
    load_into(twin, agent.save_pretrained(tmp_path / "agent"))
    for left, right in zip(agent.parameters(), twin.parameters(), strict=True):
        assert torch.equal(left, right)


def test_dynamics_that_share_nothing_with_ours_work_too() -> None:
    class Drift(nn.Module):
        recurrent = True

        def __init__(self) -> None:
            super().__init__()
            self.speed, self.out = dense(2, 16), dense(16, 8)
            self.seen = dense(16, 8)

        def initial(self, batch_size: int, device: Any) -> State:
            return State(
                {"deter": torch.zeros(batch_size, 16), "stoch": torch.zeros(batch_size, 4)}
            )

        def prior(self, state: State) -> dict[str, Tensor]:
            mean, raw = self.out(state["deter"]).chunk(2, -1)
            return {"mean": mean, "std": raw.exp()}

        def transition(self, state: State, action: Tensor, **options: Any) -> State:
            deter = torch.tanh(state["deter"] + self.speed(action))
            stats = self.prior(State({"deter": deter}))
            return State({"deter": deter, "stoch": stats["mean"], **stats})

        def observe(self, state: State, action: Tensor, features: State, first: Tensor,
                    **options: Any) -> State:  # fmt: skip
            deter = torch.tanh(state["deter"] * ~first[:, None] + self.speed(action))
            mean, raw = self.seen(features["embed"]).chunk(2, -1)
            return State({"deter": deter, "stoch": mean, "mean": mean, "std": raw.exp()})

        def observe_sequence(self, state: State, action: Tensor, features: State, first: Tensor,
                             **options: Any) -> State:  # fmt: skip
            states = []
            for t in range(first.shape[1]):
                seen = State({"embed": features["embed"][:, t]})
                state = self.observe(state, action[:, t], seen, first[:, t])
                states.append(state.tensors)
            return State({k: torch.stack([s[k] for s in states], 1) for k in states[0]})

    made = model(slots={"dynamics_model": Drift()})
    made.loss(batch()).loss.backward()  # type: ignore[no-untyped-call]
    assert made.dynamics_model.out.weight.grad is not None  # type: ignore[union-attr]
    assert len(made.rollout(made.initial(2), torch.zeros(3, 2, 2))) == 3


# Refusals


def test_heads_must_divide() -> None:
    with pytest.raises(ConfigError, match="deter=18 is not a multiple of heads=4"):
        model(deter=18)


def test_images_must_have_whole_patches() -> None:
    odd = {"image": TensorSpec((3, 60, 64), "uint8", low=0, high=255)}
    with pytest.raises(ContractError, match="no whole number of patches of 8 pixels"):
        model(odd, encoder="vit", decoder="mlp")


def test_a_misspelt_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="encoder"):
        model(encoder="cnn")
