"""Spaces: what an environment gives and takes, in the contract's form."""

import numpy as np
import pytest
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs.spaces import canonical_action, canonical_observation


@pytest.mark.parametrize(
    ("space", "obs", "expected"),
    [
        (spaces.Box(-1, 1, (2,), np.float64), np.array([0.5, 1.0]), {"state": [0.5, 1.0]}),
        (spaces.Box(-1, 1, (2, 2)), np.eye(2), {"state": [1, 0, 0, 1]}),
        (spaces.Box(-1, 1, ()), 0.5, {"state": [0.5]}),
        (spaces.Discrete(3, start=4), 5, {"state": [0, 1, 0]}),
        (spaces.MultiDiscrete([2, 3]), [1, 2], {"state": [0, 1, 0, 0, 1]}),
        (spaces.MultiBinary(2), [1, 0], {"state": [1, 0]}),
        (
            spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)}), "c": spaces.Box(0, 1, (1,))}),
            {"a": {"b": 1}, "c": [0.25]},
            {"a_b": [0, 1], "c": [0.25]},
        ),
        (spaces.Tuple([spaces.Discrete(2)]), (0,), {"0": [1, 0]}),
    ],
)
def test_observations_become_float_vectors_by_key(space, obs, expected):
    canonical, convert = canonical_observation(space)
    converted = convert(obs)
    assert converted in canonical
    assert {key: value.tolist() for key, value in converted.items()} == expected


def test_goal_observations_get_the_contracts_names():
    box = spaces.Box(-1, 1, (1,))
    space = spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
    canonical, convert = canonical_observation(space)
    assert set(canonical.spaces) == {"state", "achieved_goal", "goal"}
    obs = convert({"observation": [0.1], "achieved_goal": [0.2], "desired_goal": [0.3]})
    assert [round(float(obs[key][0]), 1) for key in ("state", "achieved_goal", "goal")] == [
        0.1, 0.2, 0.3,
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(4, 5, 3), (3, 4, 5), (1, 20, 20)])
def test_images_are_channels_first(shape):
    rng = np.random.default_rng(0)
    space = spaces.Box(0, 255, shape, np.uint8)
    canonical, convert = canonical_observation(space)
    image = rng.integers(0, 256, shape, np.uint8)
    converted = convert(image)
    assert converted in canonical
    expected = image.transpose(2, 0, 1) if shape[-1] == 3 else image
    assert np.array_equal(converted["image"], expected)


def test_a_grey_image_gets_a_channel_and_small_byte_arrays_stay_vectors():
    grey, convert = canonical_observation(spaces.Box(0, 255, (20, 30), np.uint8))
    assert grey["image"].shape == (1, 20, 30)
    assert convert(np.ones((20, 30), np.uint8)) in grey
    assert canonical_observation(spaces.Box(0, 255, (8, 8), np.uint8))[0]["state"].shape == (64,)


def test_a_converted_observation_does_not_alias_the_environments():
    _, convert = canonical_observation(spaces.Box(-1, 1, (2,), np.float32))
    raw = np.zeros(2, np.float32)
    converted = convert(raw)
    raw[:] = 1
    assert converted["state"].tolist() == [0, 0]


def test_continuous_actions_are_clipped_and_rescaled_to_the_bounds():
    space = spaces.Box(np.array([0.0, -4.0]), np.array([10.0, 2.0]), dtype=np.float64)
    unit, convert = canonical_action(space)
    assert unit == spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert convert([0.0, 0.0]).tolist() == [5.0, -1.0]
    assert convert([-7.0, 7.0]).tolist() == [0.0, 2.0]
    assert convert(np.array([1, -1])) in space


def test_unbounded_actions_are_taken_as_they_are_within_one():
    _, convert = canonical_action(spaces.Box(-np.inf, np.inf, (2,)))
    assert convert([0.5, 3.0]).tolist() == [0.5, 1.0]


def test_rounding_never_leaves_the_bounds():
    low, high = np.float32(-0.1), np.float32(0.3)
    space = spaces.Box(low, high, (3,), np.float32)
    _, convert = canonical_action(space)
    rng = np.random.default_rng(0)
    assert all(convert(rng.uniform(-2, 2, 3)) in space for _ in range(200))


@pytest.mark.parametrize(
    ("space", "canonical", "action", "expected"),
    [
        (spaces.Discrete(3, start=-1), spaces.Discrete(3), np.int64(0), -1),
        (spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([2, 3]), [1, 2], [1, 2]),
        (spaces.MultiBinary(2), spaces.MultiDiscrete([2, 2]), [0, 1], [0, 1]),
    ],
)
def test_discrete_actions_are_indices_from_zero(space, canonical, action, expected):
    found, convert = canonical_action(space)
    assert found == canonical
    assert np.asarray(convert(action)).tolist() == expected
    assert convert(action) in space


def test_spaces_without_a_canonical_form_say_what_to_do():
    with pytest.raises(EnvError, match=r"no canonical form: use SelectAction"):
        canonical_action(spaces.Dict({"a": spaces.Discrete(2)}))
    with pytest.raises(EnvError, match=r"Observation 'state' of Text.* wrap the environment"):
        canonical_observation(spaces.Text(5))
    twice = spaces.Dict({"a_b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(2)})})
    with pytest.raises(EnvError, match="share one key"):
        canonical_observation(twice)
