"""Diffusion against slow references: Bayes' rule by hand, sums over all levels, exact solutions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from worldflux.core.rand import Rand
from worldflux.errors import ContractError
from worldflux.nn.diffusion import betas, bounds, edm
from worldflux.nn.diffusion.ddpm import DDPM, Step
from worldflux.nn.diffusion.guidance import guided
from worldflux.nn.diffusion.spacing import kept_steps

SIGMAS = torch.tensor([0.002, 0.1, 0.7, 5.0, 20.0])


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_conditioners_keep_the_variances_of_input_and_target(offset: float) -> None:
    """The network's input, and what it should give, have variance one for data of deviation .5."""
    rand, data = torch.Generator().manual_seed(0), 0.5
    for sigma in SIGMAS:
        by = edm.conditioners(sigma[None], data, offset)
        clean = data * torch.randn(1, 200_000, generator=rand)
        noise = math.hypot(float(sigma), offset) * torch.randn(1, 200_000, generator=rand)
        target = edm.network_target(clean, clean + noise, by)
        assert ((by.c_in * (clean + noise)).var() - 1).abs() < 0.02
        assert (target.var() - 1).abs() < 0.02
        torch.testing.assert_close(
            edm.denoised(target, clean + noise, by), clean, atol=1e-4, rtol=0
        )
    published = edm.conditioners(torch.tensor([5.0, 0.1]), 0.5, 0.3)
    assert published.c_noise.tolist() == pytest.approx([0.40281, -0.28782], 1e-4)


def _exact(x: Tensor, sigma: Tensor) -> Tensor:
    """The denoiser of data that are normal with deviation 1/2."""
    return x * (0.25 / (0.25 + sigma.square()))[:, None]


def test_samplers_follow_the_exact_path() -> None:
    """For normal data the path is known: x stays as many deviations away as it began."""
    x, high = torch.linspace(-3, 3, 5)[:, None], 5.0
    wanted = x / math.sqrt(0.25 + high**2) * 0.5
    errors = {}
    for order, steps in ((1, 20), (1, 80), (2, 20)):
        path = edm.sample(_exact, x, edm.karras_sigmas(steps, 0.002, high), order=order)
        assert len(path) == steps + 1
        errors[order, steps] = float((path[-1] - wanted).abs().max())
    assert errors[1, 80] < errors[1, 20] / 2 and errors[2, 20] < errors[1, 80]


def test_noise_levels_run_backwards_lose_the_data() -> None:
    """All four points that the data are at are found; not if the order is turned round."""
    points = torch.tensor([-0.9, -0.3, 0.3, 0.9])
    x = 5 * torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    sigmas = edm.karras_sigmas(10, 0.002, 5.0)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        chances = (-((x - points) / sigma[:, None]).square() / 2).softmax(-1)
        return (chances * points).sum(-1, keepdim=True)

    def shares(path: list[Tensor]) -> Tensor:
        return ((path[-1] - points).abs() < 0.05).float().mean(0)

    assert shares(edm.sample(denoise, x, sigmas)).min() > 0.15
    backwards = (*sigmas[-2::-1], 0.0)
    assert shares(edm.sample(denoise, x, backwards)).min() < 0.02


def test_churn_puts_noise_back_and_keeps_the_distribution() -> None:
    x = 5.02 * torch.randn(5_000, 1, generator=torch.Generator().manual_seed(0))
    churn = edm.Churn(amount=20, low=0.05, high=4.0)
    sigmas = edm.karras_sigmas(200, 0.002, 5.0)
    first, second = (
        edm.sample(_exact, x, sigmas, order=2, churn=churn, rand=Rand.seeded(seed))[-1]
        for seed in (1, 2)
    )
    assert not torch.allclose(first, second)
    assert first.std().item() == pytest.approx(0.5, abs=0.04)
    assert churn.gamma(5.0, 40) == 0 and churn.gamma(1.0, 200) == 0.1
    assert churn.gamma(1.0, 1) == pytest.approx(math.sqrt(2) - 1)


def test_karras_levels() -> None:
    found = edm.karras_sigmas(3, 0.002, 5.0)
    assert found == pytest.approx((5.0, 0.28308, 0.0020, 0.0), rel=1e-4)
    assert edm.karras_sigmas(1, 0.002, 5.0) == (pytest.approx(5.0), 0.0)


def test_quantised_values_are_the_256_levels() -> None:
    levels = torch.arange(256) / 255 * 2 - 1
    x = torch.linspace(-1.2, 1.2, 4001, requires_grad=True)
    found = edm.quantised(x)
    assert not found.requires_grad and set(found.tolist()) <= set(levels.tolist())
    inside = x.detach().abs() <= 1
    below = x.detach()[inside] - found[inside]
    assert below.min() > -1e-6 and below.max() < 2 / 255 + 1e-6  # cut down, never rounded up
    torch.testing.assert_close(edm.quantised(found), found, atol=2 / 255 + 1e-6, rtol=0)


def _small(**options: str) -> DDPM:
    return DDPM(betas.betas("linear", 0.02, 0.4, 12), **options)


def test_the_posterior_is_bayes_rule() -> None:
    """q(x of t-1 | x of t, data): the product of two normals, worked out for every step."""
    process = _small()
    data, x = torch.tensor([[[[0.3]]]]), torch.tensor([[[[-0.7]]]])
    for t in range(1, process.steps):
        clean, beta = math.prod(1 - b for b in process.betas[:t]), process.betas[t]
        before, spread = math.sqrt(clean) * 0.3, 1 - clean  # x of t-1, given the data
        precision = 1 / spread + (1 - beta) / beta
        mean = (before / spread + math.sqrt(1 - beta) * -0.7 / beta) / precision
        found = process.posterior(data, x, torch.tensor([t]))
        assert found[0].item() == pytest.approx(mean, rel=1e-5)
        assert found[1].item() == pytest.approx(1 / precision, rel=1e-5)
        assert found[2].item() == pytest.approx(-math.log(precision), rel=1e-5)


def test_noise_one_step_at_a_time() -> None:
    """The noise of t steps at once has the moments of t single steps."""
    process, mean, variance = _small(), 0.8, 0.0
    for t, beta in enumerate(process.betas):
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        data = torch.full((1, 1, 1, 1), 0.8)
        moments = process.forward_moments(data, torch.tensor([t]))
        assert [x.item() for x in moments] == pytest.approx(
            [mean, variance, math.log(variance)], rel=1e-4, abs=1e-6
        )
        noise = torch.full_like(data, 0.5)
        noisy = process.noisy(data, torch.tensor([t]), noise)
        assert noisy.item() == pytest.approx(mean + math.sqrt(variance) * 0.5, rel=1e-5)
        back = process.noise_from_data(data, noisy, torch.tensor([t]))
        torch.testing.assert_close(back, noise, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("ddim", [False, True])
@pytest.mark.parametrize("spacing", ["250", "20"])
def test_samples_of_normal_data_are_normal(ddim: bool, spacing: str) -> None:
    """With the perfect network for normal data, samples have the data's deviation."""
    process = DDPM(betas.linear_betas(1000), spacing=spacing, variance="small")
    clean = np.cumprod(1 - betas.linear_betas(1000))

    def network(x: Tensor, t: Tensor) -> Tensor:
        share = float(clean[int(t[0])])
        return x * math.sqrt(1 - share) / (share * 0.25 + 1 - share)

    x = torch.randn(5_000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    path = process.sample(network, x, ddim=ddim, rand=Rand.seeded(1))
    assert len(path) == process.steps
    # Large steps lose some of the spread, and the smaller variance more than DDIM.
    lost = {"250": 0.03, "20": 0.13}[spacing]
    assert 0.5 - lost < path[-1].std().item() < 0.52


def test_ddim_goes_there_and_back() -> None:
    process = DDPM(betas.linear_betas(200), variance="small")
    x, t = torch.full((1, 1, 1, 1), 0.4), torch.tensor([100])
    zero = torch.zeros_like(x)
    step = Step(zero, zero, zero, torch.full_like(x, 0.2))
    there = process.ddim_back(step, x, t)
    back = process.ddim_step(step, there, t + 1, zero)
    torch.testing.assert_close(back, x, atol=1e-4, rtol=1e-4)


def test_which_steps_a_shorter_process_takes() -> None:
    assert kept_steps(11, "5") == [0, 2, 5, 8, 10]  # 2.5 and 7.5 go to the even one
    assert kept_steps(10, "ddim5") == [0, 2, 4, 6, 8]
    assert kept_steps(10, "2,3") == [0, 4, 5, 7, 9]
    assert kept_steps(3, "") == [0, 1, 2]
    whole = betas.linear_betas(100)
    kept = kept_steps(100, "7")
    shorter = np.cumprod(1 - betas.respaced(whole, kept))
    np.testing.assert_allclose(shorter, np.cumprod(1 - whole)[kept])
    with pytest.raises(ContractError, match="No whole distance takes 7 of 10 diffusion steps"):
        kept_steps(10, "ddim7")
    with pytest.raises(ContractError, match="takes 9 of 5 diffusion steps: ask for 1 to 5"):
        kept_steps(10, "9,1")
    with pytest.raises(ContractError, match="Did you mean 'linear'"):
        betas.betas("liner", 0.1, 0.2, 3)  # type: ignore[arg-type]


def test_kl_by_adding_up() -> None:
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    first = torch.distributions.Normal(torch.tensor(0.3).double(), math.exp(0.5 * -0.4))
    second = torch.distributions.Normal(torch.tensor(-0.5).double(), math.exp(0.5 * 0.7))
    ratio = first.log_prob(x) - second.log_prob(x)
    wanted = float((first.log_prob(x).exp() * ratio).sum() * (x[1] - x[0]))
    found = bounds.normal_kl(*map(torch.tensor, (0.3, -0.4, -0.5, 0.7)))
    assert found.item() == pytest.approx(wanted, rel=1e-4)


def test_likelihoods_of_all_levels_sum_to_one() -> None:
    levels = torch.arange(256).double() / 255 * 2 - 1
    for mean in (0.2, 0.98):
        chances = bounds.binned_log_likelihood(
            levels, torch.tensor(mean).double(), torch.tensor(math.log(0.05)).double()
        ).exp()
        assert chances.sum().item() == pytest.approx(1, abs=1e-3)
        assert abs(float((chances * levels).sum()) - mean) < 0.05


def test_the_bound_moves_the_variance_alone() -> None:
    process, shape = _small(), (3, 2, 4, 4)
    data, noise = torch.rand(shape) * 2 - 1, torch.randn(shape)
    t = torch.tensor([0, 3, 11])
    x = process.noisy(data, t, noise)
    output = torch.cat([noise + 0.1, torch.zeros(shape)], 1).requires_grad_()
    terms = bounds.losses(process, output, data, x, t, noise)
    assert terms["mse"].tolist() == pytest.approx([0.01] * 3, rel=1e-3)
    terms["bound"].sum().backward()
    assert output.grad is not None
    assert not output.grad[:, :2].any() and output.grad[:, 2:].any()


def test_a_perfect_network_leaves_the_prior_alone() -> None:
    """With the true noise and the true variance all divergences of the bound are zero."""
    process = _small(variance="small")
    data = torch.rand(2, 1, 4, 4) * 2 - 1
    noises = torch.randn(process.steps, *data.shape)
    answers = iter(noises)
    found = bounds.bound(process, lambda x, t: next(answers), data, noises, clip=False)
    assert found.terms.shape == (2, 12)
    assert found.terms[:, :-1].abs().max() < 1e-4 and (found.terms[:, -1] > 0).all()
    torch.testing.assert_close(found.total, found.prior + found.terms.sum(1))


def test_guidance() -> None:
    own, free = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(guided(own, free, 1.0, 3), own)
    away = guided(own, free, 3.0, 3)
    torch.testing.assert_close(away[:, :3], 3 * own[:, :3] - 2 * free[:, :3])
    assert torch.equal(away[:, 3:], own[:, 3:])
