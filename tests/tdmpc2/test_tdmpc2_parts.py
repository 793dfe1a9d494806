"""The parts of TD-MPC2 against slow, obvious versions, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from worldflux.core.rand import Rand
from worldflux.errors import CapabilityError, ConfigError, ContractError
from worldflux.nn.symlog import symexp
from worldflux.specs import Capability, ModelSpec, TensorSpec
from worldflux.testing import check_family, check_world_model
from worldflux_tdmpc2 import activations, distribution, draws, images
from worldflux_tdmpc2.config import PRESETS, ModelConfig, Task, TDMPC2Config
from worldflux_tdmpc2.networks import QEnsemble
from worldflux_tdmpc2.plugin import worldflux_models
from worldflux_tdmpc2.world_model import TDMPC2WorldModel

VECTOR = {"state": TensorSpec((5,))}
IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", 0, 255)}
ACTION = {"action": TensorSpec((2,), low=-1.0, high=1.0)}
SMALL: dict[str, Any] = {
    "model.latent_dim": 32,
    "model.enc_dim": 12,
    "model.mlp_dim": 12,
    "agent.planner": {"candidates": 12, "elites": 4, "proposals": 3, "iterations": 2},
}


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_mish_and_its_gradient_are_torchs(scale: float) -> None:
    x = torch.randn(64, 33) * scale
    left, right = (x.clone().requires_grad_() for _ in range(2))
    ours, theirs = activations.mish(left), F.mish(right)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(activations.mish(x), theirs.detach(), rtol=1e-5, atol=1e-6)
    weight = torch.randn_like(x)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(left.grad, right.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_group_softmax_and_its_gradient_are_torchs(scale: float) -> None:
    x = torch.randn(7, 3, 32) * scale
    left, right = (x.clone().requires_grad_() for _ in range(2))
    ours = activations.group_softmax(left, 8)
    theirs = right.unflatten(-1, (-1, 8)).softmax(-1).flatten(-2)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(activations.group_softmax(x, 8), theirs.detach())
    torch.testing.assert_close(ours.unflatten(-1, (4, 8)).sum(-1), torch.ones(7, 3, 4))
    weight = torch.randn_like(x)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(left.grad, right.grad)


def test_bins_are_linear_in_symlog_space() -> None:
    config = ModelConfig()
    bins = torch.linspace(config.vmin, config.vmax, config.bins)
    for value in (-3000.0, -1.5, 0.0, 0.07, 12.0, 1e6):
        place = math.copysign(math.log1p(abs(value)), value)
        place = (min(max(place, -10.0), 10.0) + 10.0) / 0.2
        expected = torch.zeros(101)
        low = min(int(place), 99)
        expected[low], expected[low + 1] = 1 - (place - low), place - low
        found = distribution.two_hot(torch.tensor(value), bins)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        if abs(value) < 2e4:
            back = distribution.expected(torch.log(found + 1e-12), bins)
            assert float(back) == pytest.approx(value, rel=1e-3, abs=1e-3)
    assert abs(float(distribution.expected(torch.zeros(101), bins))) < 1e-6


def test_expected_values_stay_float32_under_autocast() -> None:
    """A product of probabilities and bins in bfloat16 would be off by several units near 300."""
    bins, values = torch.linspace(-10, 10, 101), torch.linspace(290.0, 310.0, 41)
    logits = torch.log(distribution.two_hot(values, bins) + 1e-12)
    with torch.autocast("cpu", torch.bfloat16):
        found = distribution.expected(logits, bins)
        coarse = symexp(logits.softmax(-1) @ bins)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, values, rtol=1e-4, atol=0)
    assert float(((coarse - values) / values).abs().max()) > 1e-2


def test_every_member_of_the_ensemble_is_a_network_of_its_own() -> None:
    q = QEnsemble(3, inputs=6, hidden=8, bins=5)
    for parameter in q.parameters():
        torch.nn.init.normal_(parameter)
    x, together = torch.randn(4, 2, 6), None
    together = q(x)
    for i in range(3):
        y = x
        for layer in q.layers:
            y = F.linear(y, layer.weight[i], layer.bias[i])
            if layer.ln is not None:
                y = F.mish(F.layer_norm(y, (8,), layer.ln.weight[i], layer.ln.bias[i]))
        torch.testing.assert_close(together[i], y, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(q(x, torch.tensor([2, 0])), together[[2, 0]])


@pytest.mark.parametrize("heads", [None, [3, 1]])
@pytest.mark.parametrize("frozen", [False, True])
def test_stacked_members_and_single_ones_agree(heads: Any, frozen: bool) -> None:
    q = QEnsemble(4, inputs=6, hidden=8, bins=5)
    for parameter in q.parameters():
        torch.nn.init.normal_(parameter)
    chosen = None if heads is None else torch.tensor(heads)
    keep = (torch.rand(4 if heads is None else 2, 7, 8) > 0.3) / 0.7
    found = []
    for compute in (q.stacked, q.one_by_one):
        x = torch.linspace(-1, 1, 42).reshape(7, 6).requires_grad_()
        q.zero_grad()
        y = compute(x, chosen, frozen, keep)
        y.square().sum().backward()
        found.append([y, x.grad, *(p.grad for p in q.parameters())])
    assert all((p is None) == frozen for p in found[0][2:])
    for left, right in zip(*found, strict=True):
        if left is not None:
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def test_shift_moves_images_and_repeats_their_border() -> None:
    image = torch.arange(2 * 64 * 64).reshape(1, 2, 64, 64)
    assert torch.equal(images.shifted(image, torch.tensor([[3, 3]])), image)
    moved = images.shifted(image, torch.tensor([[5, 0]]))  # 2 to the right, 3 up
    assert torch.equal(moved[..., 3:, :-2], image[..., :-3, 2:])
    assert torch.equal(moved[..., 0, :], moved[..., 3, :])
    assert torch.equal(moved[..., -1], moved[..., -3])


@pytest.mark.parametrize("rate", [0.01, 0.5, 0.9])
def test_dropout_masks_drop_at_their_rate_and_keep_the_mean(rate: float) -> None:
    shape, sampler = (3, 777, 101), draws.keep_mask(rate)
    mask = Rand.seeded(0).draw("keep", shape, sampler)
    assert mask.shape == (3, 777, 101)
    assert float((mask == 0).float().mean()) == pytest.approx(rate, abs=0.003)
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.02)
    assert len(mask.unique()) == 2
    columns = (mask == 0).float().mean((0, 1))  # no element of a random word is special
    assert float((columns - rate).abs().max()) < 0.06
    again, other = (Rand.seeded(seed).draw("keep", shape, sampler) for seed in (0, 1))
    assert torch.equal(mask, again) and not torch.equal(mask, other)


@pytest.mark.parametrize("members", [2, 5])
def test_every_pair_of_heads_is_as_likely(members: int) -> None:
    pairs = Rand.seeded(0).draw("heads", (20_000, 2), draws.heads(members)).sort(-1).values
    assert (pairs[:, 0] < pairs[:, 1]).all()
    _, counts = pairs.unique(dim=0, return_counts=True)
    expected = 2 / (members * (members - 1))
    assert len(counts) == round(1 / expected)
    assert float((counts / 20_000 - expected).abs().max()) < 0.02


def test_images_are_shifted_at_random_unless_deterministic() -> None:
    config = TDMPC2Config().with_(**SMALL)
    model = TDMPC2WorldModel(config, IMAGE, ACTION)
    obs = {"image": torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)}
    plain = model.encode(obs, deterministic=True)["latent"]
    still = model.encode(obs, rand=Rand(draws={"shift": torch.full((2, 2), 3)}))["latent"]
    torch.testing.assert_close(plain, still)
    forced = Rand(draws={"shift": torch.tensor([[3, 3], [0, 5]])})
    moved = model.encode(obs, rand=forced)["latent"]
    torch.testing.assert_close(moved[0], plain[0])
    assert not torch.allclose(moved[1], plain[1])
    floating = {"image": obs["image"].float() / 255}
    torch.testing.assert_close(model.encode(floating, deterministic=True)["latent"], plain)


def test_the_first_state_of_an_episode_has_no_reward() -> None:
    model = TDMPC2WorldModel(TDMPC2Config().with_(**SMALL), VECTOR, ACTION)
    torch.nn.init.normal_(model.decoder_module.reward[-1].weight)
    state = model.encode({"state": torch.randn(3, 5)})
    assert model.decode(state).predictions["reward"].abs().sum() == 0
    after = model.transition(state, torch.rand(3, 2))
    assert (model.decode(after).predictions["reward"] != 0).all()


@pytest.mark.slow  # every family does in tests/contract; this one in sizes of its own
def test_family_conforms() -> None:
    spaces = (("vector", VECTOR, ACTION), ("image", IMAGE, ACTION))
    assert "check_slots_take_effect" in check_family(
        "tdmpc2:1m", spaces=spaces, learn=False, **SMALL
    )


def test_episodic_and_multi_task_models_conform() -> None:
    tasks = (Task(name="a", action_dim=1), Task(name="b", action_dim=2))
    obs = {**VECTOR, "task": TensorSpec((), "int64", n=2)}
    config = TDMPC2Config().with_(**SMALL, **{"model.tasks": tasks, "model.episodic": True})
    ran = check_world_model(lambda: TDMPC2WorldModel(config, obs, ACTION))
    assert "check_loss_trains_everything" in ran
    model = TDMPC2WorldModel(config, obs, ACTION)
    assert model.supports(Capability.CONTINUE_PRED)


def test_plugin_declares_the_presets_of_the_paper() -> None:
    (spec,) = worldflux_models()
    assert isinstance(spec, ModelSpec)
    assert list(spec.presets) == ["1m", "5m", "19m", "48m", "317m"] == list(PRESETS)
    assert spec.default_preset == "5m"
    assert spec.capabilities == TDMPC2WorldModel.capabilities


@pytest.mark.parametrize(
    ("length", "expected"), [(500, 0.99), (100, 0.95), (10, 0.95), (1000, 0.995), (4, 0.95)]
)
def test_discount_grows_with_the_episode(length: int, expected: float) -> None:
    assert ModelConfig().discount(length) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"model.latent_dim": 510}, "latent_dim=510 is not a multiple of simnorm_dim=8"),
        ({"model.vmin": 11.0}, "vmin must be below vmax, and log_std_min below log_std_max"),
        ({"model.num_q": 1}, "num_q"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(overrides: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        TDMPC2Config().with_(**overrides)


@pytest.mark.parametrize(
    ("obs", "action", "overrides", "text"),
    [
        ({**VECTOR, **IMAGE}, ACTION, {}, "one image or any number of vectors, got: state, image"),
        ({}, ACTION, {}, "one image or any number of vectors, got: nothing"),
        (
            {"image": TensorSpec((3, 84, 84), "uint8")},
            ACTION,
            {},
            r"takes 64x64 pixels, 'image' has shape \(3, 84, 84\). Resize",
        ),
        (IMAGE, ACTION, {"model.latent_dim": 24}, "latent_dim=24 is not a multiple of 16"),
        (VECTOR, {**ACTION, "gripper": TensorSpec((1,))}, {}, "got 2: action, gripper"),
        (
            VECTOR,
            ACTION,
            {"model.tasks": (Task(name="a", action_dim=2),)},
            "1 tasks needs an observation 'task' with n=1, got None",
        ),
        (
            {**VECTOR, "task": TensorSpec((), "int64", n=1)},
            ACTION,
            {"model.tasks": (Task(name="dog", action_dim=38),)},
            "Task 'dog' has action_dim=38, but the action space 'action' has 2 dimensions",
        ),
    ],
)
def test_spaces_that_do_not_fit_are_refused(
    obs: Any, action: Any, overrides: Any, text: str
) -> None:
    with pytest.raises(ContractError, match=text):
        TDMPC2WorldModel(TDMPC2Config().with_(**overrides), obs, action)


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(CapabilityError, match="continuous actions; 'action' has 4 choices"):
        TDMPC2WorldModel(TDMPC2Config(), VECTOR, {"action": TensorSpec((), "int64", n=4)})
