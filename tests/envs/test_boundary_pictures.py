"""Pictures of every kind become uint8 (C, Y, X), or the error says what is missing."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.errors import EnvError
from worldflux_envs.boundary.faults import EnvFault
from worldflux_envs.boundary.observations import canonical_observation
from worldflux_envs.stack import contract_env

RNG = np.random.default_rng(0)


def told(space, obs):
    canonical, convert = canonical_observation(space)
    [(key, image)] = convert(obs).items()
    assert canonical.spaces[key].contains(image), (canonical, image.dtype, image.shape)
    return key, image


@pytest.mark.parametrize(
    ("low", "high", "dtype", "value", "expected"),
    [
        (0, 1, np.float32, 0.0, 0),
        (0, 1, np.float32, 0.7, 178),
        (0, 1, np.float64, 1.0, 255),
        (0, 255, np.float32, 254.6, 255),
        (-1, 1, np.float32, 0.0, 128),
        (0, 65535, np.uint16, 257, 1),
        (0, 255, np.int32, 200, 200),
        (0, 255, np.int16, 255, 255),
        (0, 1, np.int64, 1, 255),
        (0, 1, np.bool_, True, 255),
    ],
)
def test_the_bounds_of_a_picture_are_black_and_white(low, high, dtype, value, expected):
    space = spaces.Box(low, high, (20, 30, 3), dtype)
    key, image = told(space, np.full((20, 30, 3), value, dtype))
    assert key == "image" and image.shape == (3, 20, 30) and (image == expected).all()


@pytest.mark.parametrize(
    ("shape", "order", "expected"),
    [
        ((20, 30, 2), (2, 0, 1), (2, 20, 30)),
        ((5, 30, 20), (0, 1, 2), (5, 30, 20)),
        ((84, 84, 12), (2, 0, 1), (12, 84, 84)),
        ((4, 84, 84), (0, 1, 2), (4, 84, 84)),
        ((4, 84, 84, 3), (0, 3, 1, 2), (12, 84, 84)),
        ((4, 3, 20, 30), (0, 1, 2, 3), (12, 20, 30)),
        ((2, 20, 30, 1), (0, 3, 1, 2), (2, 20, 30)),
        ((20, 30, 1), (2, 0, 1), (1, 20, 30)),
        ((16, 20), (0, 1), (1, 16, 20)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels_and_stacks_are_found_wherever_they_are(shape, order, expected, dtype):
    if len(shape) == 2 and dtype == np.float32:
        shape, expected = (32, 40), (1, 32, 40)
    raw = RNG.integers(0, 256, shape).astype(np.uint8)
    high = 255 if dtype == np.uint8 else 1
    obs = raw if dtype == np.uint8 else (raw / 255).astype(np.float32)
    key, image = told(spaces.Box(0, high, shape, dtype), obs)
    assert key == "image" and image.shape == expected
    assert np.array_equal(image, raw.transpose(order).reshape(expected))


def test_a_stack_of_four_colour_frames_is_read_oldest_first():
    stack = np.stack([np.full((16, 16, 3), 10 * n, np.uint8) for n in range(4)])
    _, image = told(spaces.Box(0, 255, stack.shape, np.uint8), stack)
    assert image[:, 0, 0].tolist() == [0, 0, 0, 10, 10, 10, 20, 20, 20, 30, 30, 30]


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (spaces.Box(-np.inf, np.inf, (20, 20, 3)), r"float32 from -inf to inf does not say which"),
        (spaces.Box(0, np.inf, (20, 20, 3)), r"does not say which values are black and white"),
        (spaces.Box(0, np.inf, (20, 20, 3), np.int32), r"does not say which values are black"),
        (
            spaces.Box(0, 255, (20, 20, 20), np.uint8),
            r"\(20, 20, 20\) is no vector, and no axis of",
        ),
        (spaces.Box(0, 1, (32, 20, 17)), r"no axis of it is the channels of an image"),
    ],
)
def test_what_looks_like_a_picture_and_is_none_says_so(space, text):
    with pytest.raises(EnvError, match=text):
        canonical_observation(space)
    with pytest.raises(EnvError, match=r"Observation 'camera'.*" + text):
        canonical_observation(spaces.Dict({"camera": space}))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (20, 20)),
        spaces.Box(0, 1, (20, 20)),
        spaces.Box(0, 9, (7, 7, 4), np.int32),
        spaces.Box(0, 1, (10, 10, 6)),
        spaces.Box(0, 255, (8, 8), np.uint8),
    ],
)
def test_small_grids_and_matrices_stay_vectors(space):
    assert told(space, space.sample())[0] == "state"


@pytest.mark.parametrize(
    ("dtype", "high", "value"),
    [
        (np.float32, 1, 1.01),
        (np.float32, 1, -0.01),
        (np.float32, 1, np.nan),
        (np.float64, 255, 300.0),
        (np.uint16, 100, 101),
        (np.int32, 255, -1),
    ],
)
def test_values_beyond_the_bounds_are_refused(dtype, high, value):
    _, convert = canonical_observation(spaces.Box(0, high, (16, 16, 3), dtype))
    pixels = np.zeros((16, 16, 3), dtype)
    pixels[3, 4, 1] = value
    with pytest.raises(EnvFault, match=rf"'image' has a value of {value:g}, expected .* from 0 to"):
        convert(pixels)


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 1), (1, 16, 16), (2, 16, 16, 1), (3, 16, 16)])
def test_no_picture_is_a_view_of_the_environments_array(shape):
    _, convert = canonical_observation(spaces.Box(0, 255, shape, np.uint8))
    raw = np.zeros(shape, np.uint8)
    image = convert(raw)["image"]
    raw[:] = 7
    assert not image.any()


class Film(gymnasium.Env):
    """Stacked float pictures."""

    observation_space = spaces.Box(0, 1, (4, 20, 30, 3), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full((4, 20, 30, 3), 0.5, np.float32), {}


def test_size_reaches_pictures_of_any_kind():
    env = contract_env(Film(), size=(8, 10))
    assert env.observation_space["image"].shape == (12, 8, 10)
    assert (env.reset()[0]["image"] == 128).all()
