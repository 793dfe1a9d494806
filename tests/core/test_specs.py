"""Specs and training plans: data that refuses nonsense."""

from __future__ import annotations

import json

import pytest

from worldflux.config import Config
from worldflux.errors import ContractError
from worldflux.specs import ModelSpec, TensorSpec
from worldflux.training import LeastSampled, Phase, TrainingPlan


@pytest.mark.parametrize(
    ("spec", "size", "discrete", "image"),
    [
        (TensorSpec((6,)), 6, False, False),
        (TensorSpec((), "int64", n=5), 5, True, False),
        (TensorSpec((2,), "int64", n=(3, 4)), 7, True, False),
        (TensorSpec((3, 64, 64), "uint8"), 12288, False, True),
        (TensorSpec(()), 1, False, False),
    ],
)
def test_size_is_what_a_model_sees(spec, size, discrete, image):
    assert (spec.size, spec.discrete, spec.image) == (size, discrete, image)


def test_discrete_shapes_must_agree():
    with pytest.raises(ContractError, match=r"n=3 has shape \(2,\), expected \(\)"):
        TensorSpec((2,), n=3)
    with pytest.raises(ContractError, match="sizes must be positive"):
        TensorSpec((-1,))


def test_default_preset_must_exist():
    with pytest.raises(ContractError, match="default_preset 'big' is not one of its presets: a"):
        ModelSpec("x", Config, {"a": Config()}, "big", "m:C")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"updates": -1}, "updates cannot be negative or infinite, got -1"),
        ({"updates_per_step": -0.5}, "updates_per_step cannot be negative or infinite"),
        ({"updates_per_step": float("nan")}, "updates_per_step cannot be negative or infinite"),
        ({"start": 5, "end": 5}, "end=5 is not after start=5"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"minimum": 0}, "minimum must be at least 1, got 0"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"boundary": "acros"}, "boundary is 'acros'. Did you mean 'cross'"),
        ({"pad": "behind"}, "pad is 'behind'.* Choose none, before, after, both"),
        ({"source": "file"}, "source is 'file', expected data, replay or None"),
        ({"stride": 2}, "stride, weights and ends draw from single episodes, boundary is 'cross'"),
        ({"weights": (1.0,)}, "stride, weights and ends draw from single episodes"),
        ({"ends": "oversampled"}, "stride, weights and ends draw from single episodes"),
        ({"ends": "often"}, "ends is 'often'.* Choose uniform, oversampled"),
        ({"weights": (0, 0), "pad": "after"}, "not all 0"),
        ({"weights": (0.5, -1), "pad": "after"}, "numbers of at least 0"),
    ],
)
def test_phases_refuse_nonsense(values, text):
    with pytest.raises(ContractError, match=text):
        Phase(**{"name": "p", "batch": 2, "length": 3, **values})


def test_padding_implies_one_episode():
    phase = Phase("p", 2, 3, pad="before", weights=(1, 3), context=2)
    assert (phase.boundary, phase.weights, phase.total) == ("within", (1.0, 3.0), 5)
    assert Phase("p", 2, 3, pad="both", weights=LeastSampled(2.0)).weights == LeastSampled(2.0)


def test_plans_have_distinct_named_phases():
    phase = Phase("all", 2, 3, updates_per_step=1.0)
    assert TrainingPlan([phase]).phase("all") is phase
    with pytest.raises(ContractError, match="has no phase 'x'. Phases: all"):
        TrainingPlan([phase]).phase("x")
    with pytest.raises(ContractError, match="distinct names"):
        TrainingPlan([phase, phase])
    assert TrainingPlan([phase]).collect_until is None
    with pytest.raises(ContractError, match=r"this TrainingPlan has no updates \(play\)"):
        TrainingPlan([phase, Phase("play", 2, 3)])
    with pytest.raises(ContractError, match=r"has no updates \(none\)"):
        TrainingPlan([Phase("none", 2, 3, updates=0)])
    with pytest.raises(ContractError, match="collect_until=-1 cannot be negative"):
        TrainingPlan([phase], collect_until=-1)


def test_labels_are_one_for_each_choice():
    assert TensorSpec((), "int64", n=2, labels=["left", "right"]).labels == ("left", "right")
    with pytest.raises(ContractError, match="has 1 labels for n=2: give one for each choice"):
        TensorSpec((), "int64", n=2, labels=("left",))
    with pytest.raises(ContractError, match="labels for n=None"):
        TensorSpec((2,), labels=("left", "right"))


def test_a_block_is_the_space_of_k_actions():
    box = TensorSpec((2,), low=(-1.0, 0.0), high=1.0)
    assert box.block(3) == TensorSpec((3, 2), low=((-1.0, 0.0),) * 3, high=1.0)
    assert box.block(1) is box
    choice = TensorSpec((), "int64", n=4, labels=tuple("abcd"))
    assert choice.block(2) == TensorSpec((2,), "int64", n=(4, 4), labels=tuple("abcd"))
    with pytest.raises(ContractError, match="several choices at once have no blocks"):
        choice.block(2).block(2)
    with pytest.raises(ContractError, match="at least 1 action, got 0"):
        box.block(0)


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec((2, 1), low=((-1.5,), (0.1,)), high=float("inf")),
        TensorSpec((3, 4, 4), "uint8", low=0, high=255),
        TensorSpec((2,), "int64", n=(3, 3), labels=("a", "b", "c")),
        TensorSpec(()),
    ],
)
def test_specs_survive_json(spec):
    assert TensorSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False))) == spec


@pytest.mark.parametrize("values", [{}, {"shape": [2], "colour": 1}, {"shape": [1], "low": "x"}])
def test_what_is_no_spec_is_refused(values):
    with pytest.raises(ContractError, match="describes no TensorSpec"):
        TensorSpec.from_json(values)
