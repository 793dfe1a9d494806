"""Every planner reaches the known optimum of a small problem; a broken one does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from worldflux.core.rand import Rand
from worldflux.planning import create_planner

HORIZON = 8
CONTINUOUS = {  # fields, tolerance: regret as a share of what doing nothing loses
    "random_shooting": ({"candidates": 4000}, 0.2),
    "cem": ({"candidates": 500, "elites": 50}, 0.005),
    "icem": ({"candidates": 200, "iterations": 10, "beta": 1.0}, 0.02),
    "mppi": ({"iterations": 10, "temperature": 5.0, "select": "mean", "init_std": 1.0}, 0.02),
    "gradient": ({"candidates": 2, "iterations": 100}, 0.001),
}
DISCRETE = {  # budgets with which 20 seeds of 20 found the optimum
    "random_shooting": {"candidates": 5000},
    "cem": {"candidates": 1000, "iterations": 6, "min_prob": 0.1, "select": "best"},
    "icem": {"candidates": 1000, "iterations": 8, "elites": 40, "min_prob": 0.2, "beta": 0.5},
    "mppi": {"candidates": 1000, "iterations": 8, "temperature": 5.0, "min_prob": 0.3},
    "gradient": {"candidates": 16, "iterations": 30, "relaxed": True, "init_std": 1.0},
}


class Backwards:
    """A model whose score has the wrong sign: whoever plans by it is a broken planner."""

    def __init__(self, model) -> None:
        self.model = model

    def score(self, state, actions, conditions=None, *, rand=None):
        from worldflux.planning import default_score

        return -default_score(self.model, state, actions, conditions, rand=rand)


def broken(planner):
    """The same planner, searching the worst plan."""
    honest = planner.optimize
    planner.optimize = lambda problem, memory: honest(
        replace(problem, model=Backwards(problem.model)), memory
    )
    return planner


def assert_regulates(planner, model, tolerance):
    x = torch.tensor([[0.4, 0.0], [-0.3, 0.2], [0.2, -0.3]])
    plan = planner(model, model.encode({"state": x}), rand=Rand.seeded(0))
    optimum = model.optimal_return(x, HORIZON)
    lost = optimum - model.exact_return(x, plan.tensor)
    idle = optimum - model.exact_return(x, torch.zeros(HORIZON, 3, 1))
    assert (lost >= -1e-5).all(), "nothing beats the Riccati optimum"
    assert (lost <= tolerance * idle).all(), (planner.name, (lost / idle).tolist())


def assert_arrives(planner, model):
    cells = torch.tensor([3, 15, 8, 10, 14, 12])
    plan = planner(model, model.encode({"state": cells}), rand=Rand.seeded(1))
    assert plan.tensor.dtype == torch.int64 and plan.tensor.shape == (HORIZON, len(cells))
    reached, optimum = model.exact_return(cells, plan.tensor), model.optimal_return(cells)
    assert torch.equal(reached, optimum), (planner.name, reached.tolist(), optimum.tolist())


@pytest.mark.parametrize("name", CONTINUOUS)
def test_double_integrator_is_regulated_to_the_riccati_optimum(name, integrator):
    fields, tolerance = CONTINUOUS[name]
    model = integrator()
    planner = create_planner(name, model.action_spec, {"horizon": HORIZON, **fields})
    assert_regulates(planner, model, tolerance)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_planner_that_searches_the_worst_does_not_regulate(name, integrator):
    fields, tolerance = CONTINUOUS[name]
    model = integrator()
    planner = broken(create_planner(name, model.action_spec, {"horizon": HORIZON, **fields}))
    with pytest.raises(AssertionError, match=name):
        assert_regulates(planner, model, tolerance)


@pytest.mark.parametrize("name", DISCRETE)
def test_shortest_path_is_found_exactly(name, shortest_path):
    model = shortest_path()
    planner = create_planner(name, model.action_spec, {"horizon": HORIZON, **DISCRETE[name]})
    assert_arrives(planner, model)


@pytest.mark.parametrize("name", DISCRETE)
def test_a_planner_that_searches_the_worst_does_not_arrive(name, shortest_path):
    model = shortest_path()
    planner = broken(
        create_planner(name, model.action_spec, {"horizon": HORIZON, **DISCRETE[name]})
    )
    with pytest.raises(AssertionError, match=name):
        assert_arrives(planner, model)


def test_optimum_of_the_double_integrator_agrees_with_least_squares(integrator):
    """The Riccati oracle itself, against the quadratic program solved directly."""
    model, x = integrator(), torch.tensor([[0.4, -0.1]], dtype=torch.float64)

    def loss(plan):
        return -model.exact_return(x, plan.reshape(HORIZON, 1, 1)).sum()

    zero = torch.zeros(HORIZON, dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(loss, zero)
    hessian = torch.autograd.functional.hessian(loss, zero)
    best = torch.linalg.solve(hessian, -gradient)
    assert best.abs().max() < 1, "the optimum must lie inside the bounds"
    torch.testing.assert_close(-loss(best).float(), model.optimal_return(x, HORIZON)[0])


@pytest.mark.parametrize("name", ["random_shooting", "cem", "icem", "mppi", "gradient"])
def test_receding_horizon_control_with_warm_start_reaches_rest(name, integrator):
    model = integrator()
    small = {"random_shooting": {"candidates": 300}, "gradient": {"iterations": 10}}
    fields = small.get(name, {"candidates": 64, "elites": 8, "iterations": 3})
    planner = create_planner(name, model.action_spec, {"horizon": HORIZON, **fields})
    rand, memory = Rand.seeded(0), None
    state = model.encode({"state": torch.tensor([[1.5, 0.0], [-2.0, 0.5]])})
    for _ in range(25):
        plan = planner(model, state, previous=memory, rand=rand)
        memory = plan.extras["wf.planner.memory"]
        state = model.transition(state, plan.tensor[0], deterministic=True)
    assert state["x"].abs().max() < 0.3, state["x"]
