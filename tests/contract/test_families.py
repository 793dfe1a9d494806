"""The published conformance checks over every installed model family."""

from __future__ import annotations

import pytest

from worldflux import get_model_spec, list_models
from worldflux.testing import check_family
from worldflux.testing.family import check_family_learns

FAMILIES = sorted({get_model_spec(name).family for name in list_models()})
LONG = {"delta-iris", "diamond", "dreamerv2", "genie", "iris", "jepa-wm", "lewm", "vjepa"}
"""Families whose checks take over ten seconds each: in the slow tests."""
LONG_WORLD = {*LONG, "dreamerv1", "ijepa"}


def marked(families, long):
    return [pytest.param(f, marks=pytest.mark.slow if f in long else ()) for f in families]


@pytest.mark.parametrize("family", marked(FAMILIES, LONG))
def test_a_family_conforms(family):
    """In the sizes of `spec.check` where images are small there: others take long."""
    check = get_model_spec(family).check
    small = dict(check.overrides) if check is not None and check.image < 64 else {}
    name = f"{family}:{check.preset}" if small else family
    assert "check_slots_take_effect" in check_family(name, learn=False, **small)


def quick(family):
    """Whether a family learns the known world in a moment."""
    check = get_model_spec(family).check
    return check is not None and check.updates > 0


@pytest.mark.parametrize("family", marked(filter(quick, FAMILIES), LONG_WORLD))
def test_a_family_learns_a_known_world(family):
    check_family_learns(get_model_spec(family))
