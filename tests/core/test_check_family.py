"""`check_family` finds a family whose declarations are not kept, by its id."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from worldflux import get_model_spec, registry
from worldflux.errors import CapabilityError
from worldflux.specs import CheckSettings, ModelSpec
from worldflux.testing import check_family, family
from worldflux.testing.dummies import TinyConfig, TinyModel
from worldflux.testing.family import CONTINUOUS, VECTOR


class Picky(TinyModel):
    def __init__(self, *args):
        raise CapabilityError("only in spaces of four dimensions")


class NoModel:
    def __init__(self, *args):
        pass


class Sloppy(TinyConfig):
    """Accepts whatever it is given."""

    def with_(self, **overrides):
        return self


def given(monkeypatch, **changes):
    facts = {
        "family": "fake", "config": TinyConfig, "presets": {"a": TinyConfig()},
        "default_preset": "a", "model": "worldflux.testing.dummies:TinyModel",
        "description": "fake", "capabilities": TinyModel.capabilities,
    }  # fmt: skip
    spec = ModelSpec(**{**facts, **changes})
    monkeypatch.setattr(registry.models, "get", lambda *_: spec)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"description": ""}, "the spec has no description"),
        ({"capabilities": frozenset()}, "capabilities are not the spec's"),
        ({"presets": {"a": Sloppy()}, "config": Sloppy}, "accepts a key that does not exist"),
        ({"presets": {"a": Sloppy()}}, "preset 'a' is a Sloppy"),
    ],
)
def test_declarations_that_are_not_kept(monkeypatch, changes, text):
    given(monkeypatch, **changes)
    with pytest.raises(AssertionError, match=text):
        check_family("fake")


def test_a_family_may_not_refuse_everything(monkeypatch):
    monkeypatch.setitem(sys.modules, "fake_family", sys.modules[__name__])
    given(monkeypatch, model="fake_family:Picky")
    with pytest.raises(AssertionError, match="fake refuses all of these spaces"):
        check_family("fake")


def test_what_is_no_model_is_found(monkeypatch):
    monkeypatch.setitem(sys.modules, "fake_family", sys.modules[__name__])
    given(monkeypatch, model="fake_family:NoModel")
    with pytest.raises(AssertionError, match="fake_family:NoModel is no WorldModel"):
        check_family("fake")


def test_parts_of_other_sizes_are_trained_in_the_sizes_of_the_check(monkeypatch, tiny_family):
    """Those of `spec.check`, unless the caller names sizes."""
    widths = []
    monkeypatch.setattr(
        family, "check_other_sizes", lambda make: widths.append(make({}).config.width)
    )
    spec = replace(get_model_spec(tiny_family), check=CheckSettings({"width": 5}, preset="wide"))
    family._checked_sizes(spec, "small", VECTOR, CONTINUOUS, {})
    family._checked_sizes(spec, "small", VECTOR, CONTINUOUS, {"width": 6})
    family._checked_sizes(replace(spec, check=None), "wide", VECTOR, CONTINUOUS, {})
    assert widths == [5, 6, spec.presets["wide"].width]
