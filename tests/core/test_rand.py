"""Random tensors by name: from a generator, forced, drawn beforehand, cut into parts."""

import pytest
import torch

from worldflux.core.rand import Rand, bernoulli, exponential, gumbel, normal, randint, uniform
from worldflux.errors import ContractError


def test_the_same_seed_draws_the_same_and_none_is_the_global_generator():
    first = Rand.seeded(3).draw("eps", (4, 2), normal)
    assert torch.equal(first, Rand.seeded(3).draw("eps", (4, 2), normal))
    torch.manual_seed(5)
    expected = torch.randn(4, 2)
    torch.manual_seed(5)
    assert torch.equal(Rand().draw("eps", (4, 2), normal), expected)


def test_a_forced_tensor_replaces_the_draw_under_its_full_name_and_step():
    forced = torch.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    rand = Rand(draws={"imagined/stoch": forced}).under("imagined/")
    assert torch.equal(rand.at(1).draw("stoch", (3, 4), uniform), forced[1])
    assert torch.equal(rand.at(2, dim=1).draw("stoch", (2, 4), uniform), forced[:, 2])
    assert torch.equal(rand.at(1).at(0).draw("stoch", (4,), uniform), forced[1, 0])
    assert rand.given("action") is None
    assert rand.draw("other", (3,), uniform).shape == (3,)


def test_a_forced_tensor_of_another_shape_is_refused_by_name():
    rand = Rand(draws={"model/eps": torch.zeros(3, 2)}).under("model/")
    with pytest.raises(ContractError, match=r"'model/eps' has shape \(3, 2\), expected \(2, 2\)"):
        rand.draw("eps", (2, 2), normal)


def test_a_forced_tensor_that_nothing_asked_for_is_named():
    rand = Rand(draws={"stochs": torch.zeros(2)})
    rand.draw("stoch", (2,), normal)
    with pytest.raises(ContractError, match="'stochs'"):
        rand.check_used()
    rand.draw("stochs", (2,), normal)
    rand.check_used()


@pytest.mark.parametrize(
    ("sampler", "mean", "low", "high"),
    [
        (normal, 0.0, -10, 10),
        (uniform, 0.5, 0, 1),
        (exponential, 1.0, 0, 20),
        (gumbel, 0.5772, -5, 20),
        (bernoulli(0.25), 0.25, 0, 1),
        (randint(5), 2.0, 0, 4),
    ],
)
def test_samplers_draw_from_what_they_are_named_after(sampler, mean, low, high):
    found = Rand.seeded(0).draw("x", (200_000,), sampler).double()
    assert float(found.mean()) == pytest.approx(mean, abs=0.02)
    assert float(found.min()) >= low and float(found.max()) <= high


def _noisy(x, *, rand):
    first = rand.draw("eps", tuple(x.shape), normal)
    steps = [rand.under("step/").at(t).draw("eps", (len(x),), uniform) for t in range(3)]
    return x + first, torch.stack(steps)


def test_what_is_drawn_beforehand_equals_what_eager_code_draws():
    x = torch.ones(4, 2)
    eager = _noisy(x, rand=Rand.seeded(1))
    beforehand = Rand.seeded(1).drawn(_noisy, x)
    for _ in range(2):  # the tensors are held: a second run sees the same ones
        for found, expected in zip(_noisy(x, rand=beforehand), eager, strict=True):
            assert torch.equal(found, expected)
    again = beforehand.redrawn()
    assert not torch.equal(_noisy(x, rand=again)[0], eager[0])


def test_drawing_beforehand_keeps_forced_tensors_and_runs_through_modules():
    layer, forced = torch.nn.Linear(2, 3), torch.full((4, 3), 7.0)

    def function(x, *, rand):
        seen = layer(x)
        return seen + rand.draw("eps", tuple(seen.shape), normal) + rand.draw("u", (4, 3), uniform)

    found = Rand(draws={"eps": forced}).drawn(function, torch.ones(4, 2))
    assert torch.equal(found.draw("eps", (4, 3), normal), forced)
    assert torch.equal(found.draw("u", (4, 3), uniform), found.draw("u", (4, 3), uniform))


def test_one_name_asked_for_twice_cannot_be_drawn_beforehand():
    def twice(*, rand):
        return rand.draw("eps", (2,), normal) + rand.draw("eps", (2,), normal)

    with pytest.raises(ContractError, match="asked for twice"):
        Rand().drawn(twice)


def test_parts_of_a_batch_see_the_numbers_of_the_whole_batch():
    whole = Rand.seeded(2)
    rows, shared = whole.draw("eps", (6, 2), normal), whole.draw("mask", (3,), uniform, shared=True)
    after = whole.draw("next", (2,), normal)
    cut = Rand.seeded(2)
    found = [
        (part.draw("eps", (2, 2), normal), part.draw("mask", (3,), uniform, shared=True))
        for part in cut.parts(3)
    ]
    assert torch.equal(torch.cat([eps for eps, _ in found]), rows)
    assert all(torch.equal(mask, shared) for _, mask in found)
    assert torch.equal(cut.draw("next", (2,), normal), after)


def test_forced_tensors_are_cut_with_the_batch():
    forced = torch.arange(6.0)
    parts = Rand(draws={"eps": forced}).parts(2)
    assert torch.equal(torch.cat([p.draw("eps", (3,), normal) for p in parts]), forced)


def test_shared_numbers_are_equal_on_ranks_and_others_are_not():
    ranks = [
        Rand(torch.Generator().manual_seed(rank), shared_generator=torch.Generator().manual_seed(9))
        for rank in range(2)
    ]
    eps = [rand.draw("eps", (2,), normal) for rand in ranks]
    directions = [rand.draw("directions", (4,), normal, shared=True) for rand in ranks]
    assert not torch.equal(*eps) and torch.equal(*directions)


def _one_step(x, *, rand):
    return x + rand.draw("eps", tuple(x.shape), normal)


def test_what_a_step_asks_for_can_be_forced_elsewhere():
    asked = Rand.seeded(1).under("model/").asked(_one_step, torch.zeros(3, 2))
    assert set(asked) == {"model/eps"} and asked["model/eps"].shape == (3, 2)
    forced = Rand(draws=asked).under("model/")
    assert torch.equal(_one_step(torch.zeros(3, 2), rand=forced), asked["model/eps"])
    with pytest.raises(ContractError, match="several"):
        Rand().asked(_noisy, torch.zeros(3, 2))
