"""Fast forms against slow and obvious ones; pieces that other tests only use."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from worldflux.core.rand import Rand
from worldflux.nn.init import trunc_normal_in_
from worldflux.nn.norms import rms_norm, rms_norm_silu
from worldflux.nn.slow import ema_update, slow_copy
from worldflux.nn.symlog import symexp, symlog
from worldflux.nn.two_hot import (
    symexp_bins,
    two_hot,
    two_hot_cross_entropy,
    two_hot_loss,
    two_hot_mean,
)
from worldflux_dreamer import categorical, shared_losses
from worldflux_dreamer.dreamerv3 import optim
from worldflux_dreamer.dreamerv3.images import PooledConv, UpConv
from worldflux_dreamer.dreamerv3.optim import LaProp
from worldflux_dreamer.dreamerv3.policy import BoundedNormal, Categoricals
from worldflux_dreamer.layers import BlockLinear, Linear
from worldflux_dreamer.unroll import Rows, Steps


@pytest.fixture(autouse=True)
def _own_rng():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_symlog_and_symexp_are_inverse():
    x = torch.tensor([-100.0, -1.0, 0.0, 1e-3, 20.0])
    torch.testing.assert_close(symexp(symlog(x)), x)


def test_two_hot_holds_outside_of_the_bins_and_at_them():
    bins = symexp_bins(5, 2.0)
    weights = two_hot(torch.tensor([-1e9, 1e9, float(bins[1])]), bins)
    assert weights.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]]
    even = symexp_bins(6, 2.0)
    assert float(two_hot_mean(torch.zeros(6), even)) == 0
    logs = torch.randn(4, 5).log_softmax(-1)
    target = torch.randn(4)
    whole = -(two_hot(target, bins) * logs).sum(-1)
    torch.testing.assert_close(two_hot_cross_entropy(logs, target, bins), whole)


@pytest.mark.parametrize("grouped", [False, True])
def test_fused_norm_equals_the_plain_one(grouped):
    x = torch.randn(3, 5, 8, dtype=torch.float64).float().requires_grad_()
    scale = torch.randn((3, 1, 8) if grouped else (8,)).requires_grad_()
    weights = torch.randn(3, 5, 8)
    fast, slow = rms_norm_silu(x, scale, 1e-4), F.silu(rms_norm(x, scale, 1e-4))
    torch.testing.assert_close(fast, slow)
    quick = torch.autograd.grad((fast * weights).sum(), (x, scale))
    plain = torch.autograd.grad((slow * weights).sum(), (x, scale))
    torch.testing.assert_close(quick, plain, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(rms_norm_silu(x, scale, 1e-4), slow)


def test_one_weight_gradient_for_all_steps_equals_the_sum_over_steps():
    layers = [Linear(6, 6), BlockLinear(6, 6, 2), Rows(torch.randn(6, 6, requires_grad=True))]

    def loop(apply) -> list[torch.Tensor]:
        x = torch.linspace(-1, 1, 18).view(3, 6)
        for _ in range(4):
            x = torch.tanh(apply(layers[0], x))
            x = apply(layers[1], x.unflatten(-1, (2, 3)).transpose(0, 1)).transpose(0, 1).flatten(1)
            x = apply(layers[2], x)
        x.square().sum().backward()
        weights = [w for layer in layers for w in (layer.kernel, layer.bias) if w is not None]
        grads = [w.grad.clone() for w in weights]
        for weight in weights:
            weight.grad = None
        return grads

    def plain(layer, x):
        y = x @ layer.kernel
        bias = layer.bias
        return y if bias is None else y + (bias.view(2, 1, 3) if y.ndim == 3 else bias)

    for quick, slow in zip(loop(Steps()), loop(plain), strict=True):
        torch.testing.assert_close(quick, slow)


def test_doubling_convolution_equals_doubling_then_convolving():
    for side in (3, 5, 7):
        conv = UpConv(4, 3, side)
        torch.nn.init.normal_(conv.bias)
        x = torch.randn(2, 6, 5, 4)
        doubled = x.permute(0, 3, 1, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        slow = F.conv2d(doubled, conv.weight, conv.bias, padding=side // 2).permute(0, 2, 3, 1)
        torch.testing.assert_close(conv(x), slow, rtol=1e-4, atol=1e-5)


def test_pooled_convolution_in_parts_equals_the_whole(monkeypatch):
    conv, x = PooledConv(3, 4, 5), torch.randn(5, 8, 8, 3)
    whole = conv(x)
    monkeypatch.setattr("worldflux_dreamer.dreamerv3.images.CHUNK_BYTES", 2 * 4 * 8 * 8 * 4)
    torch.testing.assert_close(conv(x), whole)
    assert whole.shape == (5, 4, 4, 4)


def test_optimiser_in_parts_equals_the_whole(monkeypatch):
    monkeypatch.setattr(optim, "PART", 7)

    def run(step) -> list[torch.Tensor]:
        monkeypatch.setattr(optim, "_step_in_parts", step)
        torch.manual_seed(1)
        params = [torch.nn.Parameter(torch.randn(5, 4)), torch.nn.Parameter(torch.randn(3))]
        optimizer = LaProp(params, lr=0.1, warmup=2)
        for _ in range(4):
            for param in params:
                param.grad = torch.randn_like(param)
            optimizer.step()
        return [param.detach() for param in params]

    torch.testing.assert_close(run(optim._step_in_parts), run(optim._step_foreach))


def test_laprop_normalises_before_momentum():
    param = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = LaProp([param], lr=1.0, warmup=0, agc=0.0)
    square = momentum = 0.0
    for step, gradient in enumerate((1.0, -3.0, 0.5), 1):
        param.grad = torch.tensor([gradient])
        optimizer.step()
        square = 0.999 * square + 0.001 * gradient**2
        momentum = 0.9 * momentum + 0.1 * gradient / math.sqrt(square / (1 - 0.999**step))
        expected = -momentum / (1 - 0.9**step)
        assert float(optimizer.last_update(param)) == pytest.approx(expected, rel=1e-5)


def test_warmup_starts_at_zero():
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = LaProp([param], lr=0.1, warmup=4, agc=0.0)
    moved = []
    for _ in range(6):
        param.grad = torch.ones(3)
        optimizer.step()
        moved.append(-float(optimizer.last_update(param)[0]))
    assert moved == pytest.approx([0, 0.025, 0.05, 0.075, 0.1, 0.1], rel=1e-4)


def test_lambda_return_equals_the_recursion():
    shape = (4, 7)
    last, terminal = torch.rand(shape) < 0.2, torch.rand(shape) < 0.1
    reward, boot = torch.randn(shape), torch.randn(shape)
    found = shared_losses.lambda_return(last, terminal, reward, boot, 0.9, 0.8)
    for row in range(4):
        following = float(boot[row, -1])
        for t in reversed(range(6)):
            live = 0.9 * (1 - float(terminal[row, t + 1]))
            lam = 0.8 * (1 - float(last[row, t + 1]))
            value = (1 - lam) * float(boot[row, t + 1]) + lam * following
            following = float(reward[row, t + 1]) + live * value
            assert float(found[row, t]) == pytest.approx(following, abs=1e-5)


@pytest.mark.parametrize("classes", [4, 20])
def test_samples_follow_their_probabilities(classes):
    probs = categorical.softmax(torch.randn(classes) * 2)
    torch.testing.assert_close(probs.sum(), torch.tensor(1.0))
    noise = torch.rand(200_000)
    index = categorical.sample_index(probs.expand(len(noise), -1), noise)
    counts = torch.bincount(index, minlength=classes) / len(noise)
    torch.testing.assert_close(counts, probs, atol=0.005, rtol=0)
    edges = categorical.sample_index(probs.expand(2, -1), torch.tensor([0.0, 1.0]))
    assert edges.tolist() == [0, classes - 1]


def test_few_classes_take_the_same_softmax():
    logits = torch.randn(5, 4, requires_grad=True)
    weights = torch.randn(5, 4)
    (quick,) = torch.autograd.grad((categorical.softmax(logits) * weights).sum(), logits)
    (plain,) = torch.autograd.grad((torch.softmax(logits, -1) * weights).sum(), logits)
    torch.testing.assert_close(quick, plain)


def test_several_choices_are_independent():
    parts = (torch.randn(6, 3).log_softmax(-1), torch.randn(6, 2).log_softmax(-1))
    dist = Categoricals(parts, single=False)
    action = dist.sample(Rand(draws={"action_noise": torch.rand(6, 2)}))
    assert action.shape == (6, 2)
    picked = [part.gather(-1, action[:, i : i + 1])[:, 0] for i, part in enumerate(parts)]
    torch.testing.assert_close(dist.log_prob(action), picked[0] + picked[1])
    hot = torch.cat([F.one_hot(action[:, 0], 3), F.one_hot(action[:, 1], 2)], -1).float()
    torch.testing.assert_close(dist.log_prob(hot), dist.log_prob(action))
    assert dist.mode().shape == (6, 2)


def test_continuous_actions_are_not_squashed():
    dist = BoundedNormal(torch.zeros(2, 3), torch.full((2, 3), 0.5), (3,))
    far = Rand(draws={"action_noise": torch.full((2, 3), 4.0)})
    assert dist.sample(far).tolist() == [[2.0] * 3] * 2
    normal = torch.distributions.Normal(dist.mean, dist.std)
    event = torch.randn(2, 3)
    torch.testing.assert_close(dist.log_prob(event), normal.log_prob(event).sum(-1))
    torch.testing.assert_close(dist.entropy(), normal.entropy().sum(-1))


def test_slow_copies_are_frozen_and_follow():
    source = Linear(3, 2)
    slow = slow_copy(source)
    assert not any(p.requires_grad for p in slow.parameters())
    with torch.no_grad():
        source.kernel.add_(1.0)
    before = slow.kernel.clone()
    ema_update(slow, source, 0.25)
    torch.testing.assert_close(slow.kernel, before + 0.25)


def test_zero_scale_initialises_to_zero():
    assert float(trunc_normal_in_(torch.randn(4, 4), 4, 0.0).abs().max()) == 0


def test_two_targets_in_one_pass_equal_two_cross_entropies():
    bins, logits = symexp_bins(11, 3.0), torch.randn(4, 5, 11, requires_grad=True)
    targets, weights = torch.randn(4, 5, 2) * 8, torch.randn(4, 5)
    logs = torch.log_softmax(logits, -1)
    first, second = (two_hot_cross_entropy(logs, targets[..., i], bins) for i in range(2))
    plain = first + 0.5 * second
    fused = two_hot_loss(logits, targets, (1.0, 0.5), bins)
    torch.testing.assert_close(fused, plain)
    (slow,) = torch.autograd.grad((plain * weights).sum(), logits)
    (quick,) = torch.autograd.grad((fused * weights).sum(), logits)
    torch.testing.assert_close(quick, slow)
