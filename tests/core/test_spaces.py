"""Specs from the shorthand and from Gymnasium spaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces as gs

from worldflux.errors import ConfigError
from worldflux.spaces import (
    action_specs,
    observation_specs,
    resolve_action_spec,
    resolve_obs_spec,
)
from worldflux.specs import TensorSpec

IMAGE = TensorSpec((3, 64, 64), "uint8", low=0, high=255)


def test_defaults_are_an_image_and_six_continuous_actions() -> None:
    assert resolve_obs_spec() == {"image": IMAGE}
    assert resolve_action_spec() == {"action": TensorSpec((6,), low=-1.0, high=1.0)}


def test_shorthand() -> None:
    assert resolve_obs_spec(obs_shape=[3, 64, 64]) == {"image": IMAGE}
    assert resolve_obs_spec(obs_shape=(4,)) == {"state": TensorSpec((4,))}
    assert resolve_action_spec(action_dim=2) == {"action": TensorSpec((2,), low=-1.0, high=1.0)}
    assert resolve_action_spec(action_dim=5, discrete=True) == {
        "action": TensorSpec((), "int64", n=5)
    }


def test_full_specs_pass_through() -> None:
    specs = {"image": IMAGE, "state": TensorSpec((4,))}
    assert resolve_obs_spec(specs) == specs and resolve_action_spec(specs) == specs


REFUSED = [
    (lambda: resolve_obs_spec({"image": IMAGE}, (4,)), "Give obs_spec or its shorthand obs_shape"),
    (lambda: resolve_obs_spec(obs_shape=(2, 2)), r"obs_shape=\(2, 2\) is neither an image"),
    (lambda: resolve_obs_spec({}), r"obs_spec must map keys to TensorSpec, got \{\}"),
    (lambda: resolve_action_spec({"a": (3,)}), r"action_spec must map keys .* got \{'a': \(3,\)\}"),  # type: ignore[dict-item]
    (lambda: resolve_action_spec({"a": IMAGE}, discrete=False), "Give action_spec or its shorthan"),
    (lambda: resolve_action_spec(action_dim=0), "action_dim must be at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refusals_say_what_is_wrong(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_observation_spaces() -> None:
    box = gs.Box(-1.0, 1.0, (4,), np.float32)
    image = gs.Box(0, 255, (3, 64, 64), np.uint8)
    assert observation_specs(box) == {"state": TensorSpec((4,), low=-1.0, high=1.0)}
    assert observation_specs(image) == {"image": IMAGE}
    both = observation_specs(gs.Dict({"state": box, "image": image}))
    assert both == {"state": TensorSpec((4,), low=-1.0, high=1.0), "image": IMAGE}


def test_bounds_that_differ_stay_apart() -> None:
    low, high = np.array([[-1, -2]], np.float32), np.array([[1, np.inf]], np.float32)
    spec = action_specs(gs.Box(low, high))["action"]
    assert spec.low == ((-1.0, -2.0),) and spec.high == ((1.0, float("inf")),)


@pytest.mark.parametrize(
    ("space", "spec"),
    [
        (gs.Discrete(5), TensorSpec((), "int64", n=5)),
        (gs.MultiDiscrete([2, 3]), TensorSpec((2,), "int64", n=(2, 3))),
        (gs.MultiBinary(3), TensorSpec((3,), "int64", n=(2, 2, 2))),
        (gs.Box(-2.0, 2.0, (1,), np.float64), TensorSpec((1,), "float64", -2.0, 2.0)),
    ],
)
def test_action_spaces(space: Any, spec: TensorSpec) -> None:
    assert action_specs(space) == {"action": spec}
    assert action_specs(gs.Dict({"arm": space})) == {"arm": spec}


@pytest.mark.parametrize("space", [gs.Discrete(3, start=1), gs.MultiDiscrete([2], start=[1])])
def test_choices_that_do_not_start_at_zero_are_refused(space: Any) -> None:
    with pytest.raises(ConfigError, match=r"starts at .*1.*; indices start at 0"):
        action_specs(space)


@pytest.mark.parametrize("space", [gs.Text(3), gs.Tuple([gs.Discrete(2)]), gs.Dict(a=gs.Dict())])
def test_other_spaces_are_refused(space: Any) -> None:
    with pytest.raises(ConfigError, match=r"has no TensorSpec\. Supported are Box, Discrete"):
        observation_specs(space)
