"""The pieces planners are made of, against slow and obvious references; and the configs."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from worldflux.errors import ConfigError, ContractError, UnknownIdError
from worldflux.planning import ActionSpace, create_planner
from worldflux.planning.action_space import gumbel
from worldflux.planning.config import CEMConfig, ICEMConfig, MPPIConfig, PlannerConfig
from worldflux.planning.elites import best, moments, shift
from worldflux.planning.mppi import sampled_index
from worldflux.planning.noise import colored
from worldflux.specs import TensorSpec


def test_best_takes_the_highest_scores_of_each_row():
    candidates, scores = torch.randn(4, 9, 3, 2), torch.randn(4, 9)
    elites, values, index = best(candidates, scores, 4)
    for b in range(4):
        order = sorted(range(9), key=lambda n, b=b: -float(scores[b, n]))[:4]
        assert index[b].tolist() == order
        assert torch.equal(elites[b], candidates[b, order])
        assert torch.equal(values[b], scores[b, order])


def test_moments_are_the_weighted_mean_and_deviation():
    elites, weights = torch.randn(2, 5, 3, 2), torch.rand(2, 5)
    weights = weights / weights.sum(1, keepdim=True)
    mean, std = moments(elites, weights)
    for b, h, a in itertools.product(range(2), range(3), range(2)):
        values, share = elites[b, :, h, a].double(), weights[b].double()
        expected = float((share * values).sum())
        spread = float((share * (values - expected) ** 2).sum()) ** 0.5
        assert mean[b, h, a] == pytest.approx(expected, abs=1e-6)
        assert std[b, h, a] == pytest.approx(spread, abs=1e-6)


def test_shift_moves_a_plan_on():
    plan = torch.arange(4.0).reshape(1, 4, 1)
    assert shift(plan, torch.tensor(9.0), 1).flatten().tolist() == [1, 2, 3, 9]
    assert shift(plan, plan[:, -1:], 2).flatten().tolist() == [2, 3, 3, 3]
    assert shift(plan, torch.tensor(9.0), 4).flatten().tolist() == [9, 9, 9, 9]


def test_an_elite_is_drawn_as_often_as_its_weight_says():
    weights = torch.tensor([0.6, 0.3, 0.1, 0.0])
    index = sampled_index(weights.expand(20000, 4), torch.empty(20000, 4).exponential_())
    share = torch.bincount(index.flatten(), minlength=4) / 20000
    torch.testing.assert_close(share, weights, atol=0.015, rtol=0)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("horizon", [1, 7, 32])
def test_colored_noise_has_unit_variance_and_its_power_spectrum(beta, horizon):
    noise = colored(torch.randn(20000, horizon, 2), beta)
    assert noise.shape == (20000, horizon, 2)
    torch.testing.assert_close(noise.var(0), torch.ones(horizon, 2), atol=0.06, rtol=0)
    if horizon == 32:
        power = np.abs(np.fft.rfft(noise[..., 0].numpy(), axis=1))[:, 1:-1] ** 2
        frequency = np.fft.rfftfreq(horizon)[1:-1]
        slope = np.polyfit(np.log(frequency), np.log(power.mean(0)), 1)[0]
        assert slope == pytest.approx(-beta, abs=0.05)


def test_gumbel_is_monotone_and_has_the_gumbel_distribution():
    noise = torch.linspace(-8, 8, 1001)
    values = gumbel(noise)
    assert torch.isfinite(values).all() and (values.diff() > 0).all()
    cdf = torch.exp(-torch.exp(-values.double()))
    torch.testing.assert_close(cdf, torch.special.ndtr(noise.double()), atol=1e-6, rtol=1e-4)


def test_discrete_samples_follow_the_probabilities_of_each_part():
    space = ActionSpace(TensorSpec((2,), "int64", n=(3, 2)))
    assert space.size == 5
    mean = torch.tensor([0.5, 0.2, 0.3, 0.9, 0.1])
    sample = space.sample(mean, torch.zeros(5), torch.randn(20000, 5), None)
    assert (sample.sum(-1) == 2).all()
    torch.testing.assert_close(sample.mean(0), mean, atol=0.015, rtol=0)
    indices = space.to_env(sample)
    assert indices.shape == (20000, 2) and indices.dtype == torch.int64
    assert (indices.amax(0) == torch.tensor([2, 1])).all()


def test_uniform_samples_fill_the_bounds():
    space = ActionSpace({"action": TensorSpec((2,), low=(-3.0, 0.0), high=(1.0, 0.5))})
    real = space.to_env(space.uniform(torch.randn(20000, 2), None))
    torch.testing.assert_close(real.mean(0), torch.tensor([-1.0, 0.25]), atol=0.03, rtol=0)
    torch.testing.assert_close(
        real.quantile(0.25, 0), torch.tensor([-2.0, 0.125]), atol=0.04, rtol=0
    )
    torch.testing.assert_close(space.to_model(space.from_model(real)), real)


def test_actions_of_any_shape_keep_it():
    space = ActionSpace(TensorSpec((2, 3)))
    assert space.size == 6 and space.to_env(torch.zeros(4, 5, 6)).shape == (4, 5, 2, 3)
    scalar = ActionSpace(TensorSpec(()))
    assert scalar.size == 1 and scalar.to_env(torch.zeros(4, 1)).shape == (4,)


def test_refitting_keeps_a_distribution_from_collapsing():
    box, choice = ActionSpace(TensorSpec((2,))), ActionSpace(TensorSpec((), "int64", n=2))
    _, std = box.refitted(torch.zeros(2), torch.tensor([0.0, 9.0]), 0.1, 2.0, 0.5)
    assert std.tolist() == pytest.approx([0.1, 2.0])
    mean, _ = choice.refitted(torch.tensor([1.0, 0.0]), torch.zeros(2), 0.1, 2.0, 0.5)
    assert mean.tolist() == [0.75, 0.25]


def test_icem_shrinks_its_population_and_keeps_its_best(integrator):
    model = integrator()
    fields = {"candidates": 100, "elites": 10, "iterations": 6, "horizon": 6}
    planner = create_planner("icem", model.action_spec, fields)
    assert planner.sizes == [100, 80, 64, 51, 40, 32] and planner.kept == 3
    state = model.encode({"state": torch.randn(5, 2)})
    first = planner(model, state)
    trace: list = []
    planner(model, state, previous=first.extras["wf.planner.memory"], trace=trace)
    assert [step["actions"].shape[1] for step in trace] == [103, 83, 67, 54, 43, 35]
    tops = torch.stack([step["value"].max(1).values for step in trace])
    assert (tops.diff(dim=0) >= 0).all(), "a kept elite was lost"
    # the last iteration's first sample is the mean itself
    torch.testing.assert_close(trace[-1]["actions"][:, 0], trace[-2]["mean"].clamp(-1, 1))


def test_icem_reuses_shifted_elites_of_warm_rows_only(integrator):
    model = integrator()
    planner = create_planner("icem", model.action_spec, {"horizon": 4, "iterations": 1})
    state = model.encode({"state": torch.randn(2, 2)})
    memory = planner(model, state).extras["wf.planner.memory"]
    memory.tensors["warm"] = torch.tensor([True, False])
    trace: list = []
    planner(model, state, previous=memory, trace=trace)
    torch.testing.assert_close(
        trace[0]["actions"][:, -planner.kept :, :-1], memory["elites"][:, :, 1:]
    )
    cold = trace[0]["value"][1, -planner.kept :]
    assert (cold < -1e30).all() and (trace[0]["value"][0] > -1e30).all()


def test_cem_can_start_from_its_mean(integrator):
    model = integrator()
    fields = {"horizon": 4, "include_mean": True, "candidates": 8, "elites": 2, "iterations": 2}
    planner = create_planner("cem", model.action_spec, {**fields, "momentum": 0.25})
    trace: list = []
    planner(model, model.encode({"state": torch.randn(2, 2)}), trace=trace)
    torch.testing.assert_close(trace[1]["actions"][:, 0], trace[0]["mean"].clamp(-1, 1))
    elites = trace[0]["actions"].gather(
        1, trace[0]["elite_idx"][..., None, None].expand(-1, -1, 4, 1)
    )
    torch.testing.assert_close(trace[0]["mean"], 0.75 * elites.mean(1))
    torch.testing.assert_close(trace[0]["std"], 0.75 * elites.std(1, correction=0) + 0.25)


def test_spaces_a_planner_cannot_search():
    two = {"move": TensorSpec((2,)), "fire": TensorSpec((), "int64", n=2)}
    with pytest.raises(ContractError, match="A planner takes one action space, got 2: move, fire"):
        ActionSpace(two)
    with pytest.raises(ContractError, match="A planner needs an action space"):
        ActionSpace({})
    with pytest.raises(ContractError, match=r"finite action bounds with low <= high, got low=-1.0"):
        ActionSpace(TensorSpec((1,), low=-1.0, high=float("inf")))


def test_create_planner_names_what_is_wrong():
    spec = TensorSpec((1,))
    with pytest.raises(UnknownIdError, match=r"No planner 'cme'. Did you mean 'cem'"):
        create_planner("cme", spec)
    with pytest.raises(ConfigError, match="'cem' takes a CEMConfig, got a MPPIConfig"):
        create_planner("cem", spec, MPPIConfig())
    with pytest.raises(ConfigError, match=r"no key 'horizn'. Did you mean 'horizon'"):
        create_planner("cem", spec, {"horizn": 3})
    assert create_planner("mppi", spec, MPPIConfig(horizon=7)).config.horizon == 7
    assert create_planner("icem", spec).config == ICEMConfig()


def test_gradient_planner_refuses_discrete_actions_unless_relaxed():
    spec = TensorSpec((), "int64", n=4)
    with pytest.raises(ConfigError, match=r"discrete \(n=4\). Set relaxed=True"):
        create_planner("gradient", spec)
    create_planner("gradient", spec, {"relaxed": True})


@pytest.mark.parametrize(
    ("config", "fields", "text"),
    [
        (PlannerConfig, {"horizon": 2, "execute": 3}, "execute=3 exceeds horizon=2"),
        (CEMConfig, {"candidates": 5, "elites": 6}, "elites=6 exceeds candidates=5"),
        (MPPIConfig, {"candidates": 70, "proposals": 70}, "proposals=70 leaves none of 70"),
        (MPPIConfig, {"min_std": 3.0}, "min_std=3.0 exceeds max_std=2.0"),
        (ICEMConfig, {"candidates": 15}, "candidates=15 is less than twice elites=10"),
    ],
)
def test_configs_refuse_what_cannot_be(config, fields, text):
    with pytest.raises(ConfigError, match=text):
        config(**fields)


def test_configs_import_no_torch():
    code = "import sys, worldflux.planning.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_planning_names_are_found_lazily():
    import worldflux.planning as planning

    for name in planning.__all__:
        assert getattr(planning, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'CME'"):
        _ = planning.CME
