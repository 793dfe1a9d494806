"""What holds for every planner: rows apart, bounds kept, randomness owned, memory carried."""

from __future__ import annotations

import pytest
import torch

from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand, normal
from worldflux.core.state import State
from worldflux.planning import create_planner

SMALL = {
    "random_shooting": {"candidates": 32, "horizon": 5},
    "cem": {"candidates": 32, "elites": 6, "iterations": 2, "horizon": 5},
    "icem": {"candidates": 32, "elites": 6, "iterations": 2, "horizon": 5, "keep": 0.5},
    "mppi": {"candidates": 32, "elites": 6, "iterations": 2, "horizon": 5},
    "gradient": {"candidates": 4, "iterations": 5, "horizon": 5, "relaxed": True},
}
PLANNERS = pytest.mark.parametrize("name", SMALL)


def setup(name, model, **changes):
    """A small planner, and a State of three rows."""
    planner = create_planner(name, model.action_spec, {**SMALL[name], **changes})
    obs = torch.tensor([0, 3, 12]) if planner.space.discrete else torch.randn(3, 2)
    return planner, model.encode({"state": obs})


@pytest.fixture(params=["continuous", "discrete"])
def model(request, integrator, shortest_path):
    return integrator(size=2) if request.param == "continuous" else shortest_path()


def assert_rows_apart(planner, model, state, draws):
    """Row 1 gets another state, memory and noise: rows 0 and 2 keep their plan to the bit."""
    memory = planner(model, state).extras["wf.planner.memory"]
    rand = Rand(draws=draws)
    plan = planner(model, state, previous=memory, rand=rand, explore=True)
    if planner.config.exploration is not None:
        rand.check_used()
    changed = state.rows(torch.tensor([0, 0, 2]))
    mixed = memory.where(torch.tensor([True, False, True]), planner.initial_memory(3))
    for name, value in draws.items():
        axis = value.shape[:2].index(3)
        value.select(axis, 1).copy_(value.select(axis, 1).flip(0))
        draws[name] = value
    again = planner(model, changed, previous=mixed, rand=rand, explore=True)
    assert torch.equal(plan.tensor[:, [0, 2]], again.tensor[:, [0, 2]])
    return plan, again


@PLANNERS
def test_an_environments_plan_does_not_depend_on_another_environment(name, model, draws_of):
    planner, state = setup(name, model, exploration=0.1)
    draws = draws_of(planner, 3, explore=True)
    plan, again = assert_rows_apart(planner, model, state, draws)
    assert not torch.equal(plan.tensor[:, 1], again.tensor[:, 1])


@PLANNERS
def test_the_row_check_notices_a_model_that_mixes_rows(name, integrator, draws_of):
    class Mixing(integrator):
        def plan_step(self, state, action, *rest, **named):
            return super().plan_step(state, action + state["x"].mean(), *rest, **named)

    model = Mixing()
    planner, state = setup(name, model)
    with pytest.raises(AssertionError):
        assert_rows_apart(planner, model, state, draws_of(planner, 3))


@PLANNERS
def test_one_row_alone_gets_the_same_plan(name, model, draws_of):
    planner, state = setup(name, model)
    draws = draws_of(planner, 3)
    plan = planner(model, state, rand=Rand(draws=draws))
    one = {key: value.narrow(value.shape[:2].index(3), 2, 1) for key, value in draws.items()}
    alone = planner(model, state.rows(slice(2, None)), rand=Rand(draws=one))
    torch.testing.assert_close(alone.tensor[:, 0], plan.tensor[:, 2])


@PLANNERS
def test_same_draws_same_plan_same_seed_same_plan_other_seed_other_plan(name, integrator, draws_of):
    model = integrator()
    planner, state = setup(name, model, exploration=0.1)
    before = torch.random.get_rng_state()

    def planned(rand):
        return planner(model, state, explore=True, rand=rand).tensor

    forced = Rand(draws=draws_of(planner, 3, explore=True))
    assert torch.equal(planned(forced), planned(forced))
    forced.check_used()
    assert torch.equal(planned(Rand.seeded(3)), planned(Rand.seeded(3)))
    assert not torch.equal(planned(Rand.seeded(3)), planned(Rand.seeded(4)))
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator was used"


@PLANNERS
def test_plans_stay_within_asymmetric_bounds_even_when_exploring(name, integrator):
    low, high = (-3.0, 0.5), (-1.0, 0.75)
    model = integrator(low=low, high=high, size=2)
    noisy = {"init_std": 5.0, "max_std": 9.0} if name in ("cem", "icem", "mppi") else {}
    planner, state = setup(name, model, exploration=3.0, **noisy)
    plan = planner(model, state, explore=True)
    assert plan.kind == "continuous" and plan.tensor.shape == (5, 3, 2)
    assert (plan.tensor >= torch.tensor(low)).all() and (plan.tensor <= torch.tensor(high)).all()
    again = planner(model, state, previous=plan.extras["wf.planner.memory"], explore=True)
    assert (again.tensor >= torch.tensor(low)).all() and (again.tensor <= torch.tensor(high)).all()


@PLANNERS
def test_payload_says_its_horizon_and_is_valid(name, model):
    planner, state = setup(name, model)
    plan = planner(model, state)
    plan.validate(api_version="v3")
    assert plan.extras["wf.planner.horizon"] == 5 == len(plan.tensor)
    assert plan.extras["wf.planner.score"].shape == (3,)
    plan.extras["wf.planner.memory"].validate()


@PLANNERS
def test_a_reported_score_is_that_of_a_plan_the_model_confirms(name, integrator):
    model = integrator()
    planner, state = setup(name, model, **({"select": "best"} if name == "cem" else {}))
    plan = planner(model, state)
    confirmed = model.exact_return(state["x"], plan.tensor)
    score = plan.extras["wf.planner.score"]
    if name == "mppi":  # an elite drawn by weight: at most the best one's
        assert (confirmed <= score + 1e-5).all()
    else:
        torch.testing.assert_close(confirmed, score)


@PLANNERS
def test_initial_memory_is_a_cold_start(name, model, draws_of):
    planner, state = setup(name, model)
    rand = Rand(draws=draws_of(planner, 3))
    cold = planner(model, state, rand=rand)
    again = planner(model, state, rand=rand, previous=planner.initial_memory(3))
    assert torch.equal(cold.tensor, again.tensor)


@PLANNERS
def test_warm_start_helps_the_next_plan(name, integrator, draws_of):
    model = integrator()
    tight = {"gradient": {"iterations": 2, "candidates": 1}, "random_shooting": {"candidates": 8}}
    planner, _ = setup(name, model, **tight.get(name, {"iterations": 1, "init_std": 0.1}))
    state = model.encode({"state": torch.randn(64, 2)})
    rand = Rand(draws=draws_of(planner, 64))
    memory, cold = None, planner(model, state, rand=rand).extras["wf.planner.score"]
    for _ in range(6):
        plan = planner(model, state, previous=memory)
        stay = plan.extras["wf.planner.memory"]  # undo the shift: the state has not moved on
        memory = State(
            {
                key: torch.cat([value[..., :1, :], value[..., :-1, :]], -2)
                if value.ndim > 1
                else value
                for key, value in stay.tensors.items()
            }
        )
    warm = planner(model, state, previous=memory, rand=rand).extras["wf.planner.score"]
    assert (warm - cold).mean() > 0.05, (warm - cold).mean()


@pytest.mark.parametrize("execute", [1, 3])
def test_warm_start_is_shifted_by_what_was_executed(execute, integrator):
    model = integrator()
    planner, _ = setup("cem", model, execute=execute)
    mean = torch.arange(10.0).reshape(2, 5, 1)
    shifted = planner.shifted(mean)
    assert torch.equal(shifted[:, : 5 - execute], mean[:, execute:])
    assert (shifted[:, 5 - execute :] == 0).all()


@PLANNERS
def test_masked_choices_and_dimensions_are_never_used(name, model):
    planner, state = setup(name, model, exploration=1.0)
    mask = torch.ones(3, planner.space.size)
    mask[1, -1] = mask[2, 0] = 0
    conditions = ConditionPayload(extras={"wf.action.mask": mask})
    for _ in range(5):
        plan = planner(model, state, conditions=conditions, explore=True).tensor
        if planner.space.discrete:
            assert (plan[:, 1] != planner.space.size - 1).all() and (plan[:, 2] != 0).all()
        else:
            assert (plan[:, 1, -1] == 0).all() and (plan[:, 2, 0] == 0).all()
            assert (plan[0, 0] != 0).all()


@PLANNERS
def test_exploration_changes_the_first_action_only(name, integrator, draws_of):
    model = integrator()
    planner, state = setup(name, model, exploration=0.3)
    draws = draws_of(planner, 3, explore=True)
    rand = Rand(draws=draws)
    calm, bold = (planner(model, state, rand=rand, explore=on).tensor for on in (False, True))
    assert torch.equal(calm[1:], bold[1:])
    expected = (calm[0] + 0.3 * draws["explore"]).clamp(-1, 1)
    torch.testing.assert_close(bold[0], expected)


def test_mppi_explores_with_its_plans_own_spread_unless_told_otherwise(integrator, draws_of):
    model = integrator()
    planner, state = setup("mppi", model)
    draws, trace = draws_of(planner, 3, explore=True), []
    rand = Rand(draws=draws)
    calm = planner(model, state, rand=rand, trace=trace).tensor
    bold = planner(model, state, rand=rand, explore=True).tensor
    expected = calm[0] + trace[-1]["std"][:, 0] * draws["explore"]
    torch.testing.assert_close(bold[0], expected.clamp(-1, 1))
    other, _ = setup("cem", model)
    rand = Rand(draws=draws_of(other, 3))
    calm, bold = (other(model, state, rand=rand, explore=on).tensor for on in (False, True))
    assert torch.equal(calm, bold)


def test_discrete_exploration_is_uniform_with_the_given_probability(shortest_path, draws_of):
    model = shortest_path()
    planner, _ = setup("random_shooting", model, exploration=0.5, candidates=4)
    state = model.encode({"state": torch.full((4000,), 14)})
    rand = Rand(draws=draws_of(planner, 4000, explore=True))
    calm, bold = (planner(model, state, rand=rand, explore=on).tensor for on in (False, True))
    changed = (calm[0] != bold[0]).float().mean()
    assert abs(changed - 0.5 * 4 / 5) < 0.03, changed


@PLANNERS
def test_plans_ignore_candidates_the_model_scores_with_nan(name, integrator):
    class Fragile(integrator):
        def plan_step(self, state, action, *rest, **named):
            found = super().plan_step(state, action, *rest, **named)
            bad = (action.abs() > 0.5).any(1)
            return State({**found.tensors, "effort": found["effort"].masked_fill(bad, torch.nan)})

    model = Fragile()
    planner, state = setup(name, model, **({"select": "best"} if name == "cem" else {}))
    plan = planner(model, state).tensor
    assert torch.isfinite(plan).all()
    if name in ("cem", "icem"):
        planner, state = (
            setup(name, model, select="best", candidates=2000)
            if name == "cem"
            else (setup(name, model, candidates=2000))
        )
        assert (planner(model, state).tensor.abs() <= 0.5).all()


@PLANNERS
def test_proposals_are_candidates(name, integrator):
    class Guided(integrator):
        def propose(self, state, n, horizon, conditions=None, *, rand=None):
            offset = rand.given("offset")
            answer = torch.full((state.batch_size, n, horizon, 1), 0.625)
            return answer if offset is None else answer + offset

        def score(self, state, actions, conditions=None, *, rand=None):
            return -(actions - 0.625).abs().sum((2, 3)) * 1e6

    model = Guided()
    best = {"cem": {"select": "best"}, "mppi": {"temperature": 1e3}}.get(name, {})
    planner, state = setup(name, model, proposals=2, **best)
    plan = planner(model, state)
    assert (plan.tensor == 0.625).all()
    off = planner(model, state, rand=Rand(draws={"propose/offset": torch.tensor(0.17)}))
    assert not (off.tensor == 0.625).all()


def test_score_gets_its_draws_of_each_iteration(integrator):
    class Noisy(integrator):
        seen: list

        def score(self, state, actions, conditions=None, *, rand=None):
            self.seen.append(rand.draw("eps", (3,), normal))
            return actions.sum((2, 3))

    model = Noisy()
    model.seen = []
    planner, state = setup("mppi", model)
    forced = torch.arange(6.0).reshape(2, 3)
    rand = Rand(draws={"score/eps": forced})
    planner(model, state, rand=rand)
    assert torch.equal(torch.stack(model.seen), forced)
    rand.check_used()


@pytest.mark.parametrize("name", ["random_shooting", "cem", "icem", "mppi"])
def test_a_plan_is_one_graph_of_tensors(name, integrator, draws_of):
    """No host synchronisation, no Python branching on values: one graph under torch.compile."""
    model = integrator()
    planner, state = setup(name, model)

    def plan(x, effort, *, rand):
        return planner(model, State({"x": x, "effort": effort}), rand=rand).tensor

    compiled = torch.compile(plan, backend="eager", fullgraph=True)
    args = (state["x"], state["effort"])
    rand = Rand.seeded(0).drawn(plan, *args)
    found = compiled(*args, rand=rand)
    torch.testing.assert_close(found, plan(*args, rand=Rand.seeded(0)))
    assert not torch.equal(compiled(*args, rand=rand.redrawn()), found)
    forced = Rand(draws=draws_of(planner, 3))
    torch.testing.assert_close(compiled(*args, rand=forced), plan(*args, rand=forced))
