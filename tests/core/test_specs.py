"""Specs and training plans: data that refuses nonsense."""

from __future__ import annotations

import pytest

from worldflux.config import Config
from worldflux.errors import ContractError
from worldflux.specs import ModelSpec, TensorSpec
from worldflux.training import Phase, TrainingPlan


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
        ({"updates": -1}, "cannot be negative, got updates_per_step=None and updates=-1"),
        ({"updates_per_step": -0.5}, "cannot be negative"),
        ({"updates": 1, "start": 5, "end": 5}, "ends at step 5, but starts at step 5"),
        ({"updates": 1, "batch": 0}, "batch and length must be at least 1"),
        ({"updates": 1, "boundary": "over"}, "cross, within or pad, got 'over'"),
    ],
)
def test_phases_refuse_nonsense(values, text):
    with pytest.raises(ContractError, match=text):
        Phase(**{"name": "p", "batch": 2, "length": 3, **values})


def test_plans_have_distinct_named_phases():
    phase = Phase("all", 2, 3, updates_per_step=1.0)
    assert TrainingPlan([phase]).phase("all") is phase
    with pytest.raises(ContractError, match="has no phase 'x'. Phases: all"):
        TrainingPlan([phase]).phase("x")
    with pytest.raises(ContractError, match="distinct names"):
        TrainingPlan([phase, phase])
    batches_only = Phase("play", 2, 3)
    assert TrainingPlan([phase, batches_only]).collect_until is None
    with pytest.raises(ContractError, match=r"No phase of this TrainingPlan has updates \(play\)"):
        TrainingPlan([batches_only])
    with pytest.raises(ContractError, match="collect_until is -1"):
        TrainingPlan([phase], collect_until=-1)
