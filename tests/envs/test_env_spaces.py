"""Spaces: what an environment gives and takes, in the contract's form."""

import numpy as np
import pytest
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs.boundary.actions import canonical_action
from worldflux_envs.boundary.observations import canonical_observation


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


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(-1, 1, np.int64), (0, 3, np.int64), (0, 255, np.uint8), (-5, -5, np.int32), (0, 1, np.bool_)],
)
def test_every_integer_has_an_equal_part_of_the_interval(low, high, dtype):
    space = spaces.Box(low, high, (1,), dtype)
    _, convert = canonical_action(space)
    count = int(high) - int(low) + 1
    middles = -1 + (2 * np.arange(count) + 1) / count
    chosen = [convert([u]) for u in middles]
    assert all(action in space for action in chosen)
    assert [int(action[0]) for action in chosen] == list(range(int(low), int(high) + 1))
    edge = 0.49 * 2 / count  # nearly to the next one on either side
    assert [int(convert([u + d])[0]) for u in middles for d in (-edge, edge)] == [
        int(action[0]) for action in chosen for _ in range(2)
    ]
    assert int(convert([-1.0])[0]) == low and int(convert([1.0])[0]) == high


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.int8])
def test_integer_actions_stay_in_the_space_at_its_ends(dtype):
    info = np.iinfo(dtype)
    for space in (
        spaces.Box(info.min, info.max, (1,), dtype),
        spaces.Box(info.max - 5, info.max, (1,), dtype),
    ):
        _, convert = canonical_action(space)
        assert all(convert([u]) in space for u in np.linspace(-1, 1, 21))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_an_infinite_side_keeps_the_bound_of_the_other(dtype):
    up, down = spaces.Box(5, np.inf, (1,), dtype), spaces.Box(-np.inf, -3, (1,), dtype)
    for space, ends in ((up, [5, 14, 104]), (down, [-102, -12, -3])):
        _, convert = canonical_action(space)
        assert [round(float(convert([u])[0]), 3) for u in (-1, 0, 1)] == ends
        assert all(convert([u]) in space for u in np.linspace(-2, 2, 41))
        values = [float(convert([u])[0]) for u in np.linspace(-1, 1, 9)]
        assert values == sorted(values)


def test_integers_without_bounds_are_taken_within_one():
    _, convert = canonical_action(spaces.Box(-np.inf, np.inf, (1,), np.int64))
    assert [int(convert([u])[0]) for u in (-1, -0.4, -0.3, 0.3, 0.4, 1)] == [-1, -1, 0, 0, 1, 1]


def test_each_number_of_an_action_has_bounds_of_its_own():
    low, high = np.array([0.0, 5.0, -np.inf, -np.inf]), np.array([4.0, np.inf, -3.0, np.inf])
    space = spaces.Box(low, high, dtype=np.float64)
    _, convert = canonical_action(space)
    assert convert([-1, -1, 1, -1]).tolist() == [0, 5, -3, -1]
    assert convert([1, 0, 0, 0.5]).tolist() == [4, 14, -12, 0.5]
    assert convert([0, 0, 0, 0]) in space


def test_an_action_without_numbers_is_refused():
    with pytest.raises(EnvError, match="There is no action to choose: the action space is Box"):
        canonical_action(spaces.Box(-1, 1, (0,)))


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
