"""Every preset has exactly the published number of parameters, counted on the meta device."""

from __future__ import annotations

import pytest
import torch

from worldflux.config import ConfigError
from worldflux.specs import TensorSpec
from worldflux_dreamer.dreamerv3.agent import DreamerV3Agent
from worldflux_dreamer.dreamerv3.config import PRESETS, AgentConfig, DreamerV3Config, ModelConfig

IMAGE = {"image": TensorSpec((3, 64, 64), "uint8")}
PROPRIO = {"state": TensorSpec((24,))}
CONTINUOUS = TensorSpec((6,), low=-1.0, high=1.0)
SPACES = ((IMAGE, TensorSpec((), "int64", n=18)), (IMAGE, CONTINUOUS), (PROPRIO, CONTINUOUS))
COUNTS = {
    "size1m": (688_004, 686_846, 640_867),
    "size12m": (10_498_772, 10_494_158, 9_738_019),
    "size25m": (23_496_244, 23_489_326, 21_782_947),
    "size50m": (41_659_284, 41_650_062, 38_612_003),
    "size100m": (93_482_068, 93_468_238, 86_622_499),
    "size200m": (165_967_124, 165_948_686, 153_769_507),
    "size400m": (372_924_052, 372_896_398, 345_473_059),
}
SLOW_CRITIC_12M = 853_503


def agent(preset: str, space: int) -> DreamerV3Agent:
    obs, action = SPACES[space]
    with torch.device("meta"):
        return DreamerV3Agent(PRESETS[preset], obs, {"action": action})


@pytest.mark.parametrize("space", range(3), ids=("image-discrete", "image", "proprio"))
@pytest.mark.parametrize("preset", COUNTS)
def test_parameter_count_is_the_published_one(preset, space):
    assert agent(preset, space).parameter_count() == COUNTS[preset][space]


def test_every_preset_is_counted():
    assert list(PRESETS) == list(COUNTS)


def test_parts_of_size12m():
    made = agent("size12m", 0)
    decoder = made.world_model.decoder_module
    counted = {
        "dyn": made.world_model.dynamics_model,
        "enc": made.world_model.observation_encoder,
        "dec": decoder.image,
        "rew": decoder.reward,
        "con": decoder.going_on,
        "pol": made.policy,
        "val": made.value,
        "slow": made.slow_value,
    }
    found = {name: sum(p.numel() for p in part.parameters()) for name, part in counted.items()}
    assert found == {
        **{"dyn": 5_982_720, "enc": 220_416, "dec": 1_272_003, "rew": 721_407, "con": 656_129},
        **{"pol": 792_594, "val": 853_503, "slow": SLOW_CRITIC_12M},
    }


def test_defaults_are_the_published_ones():
    c = AgentConfig()
    assert (c.lr, c.warmup, c.agc, c.beta1, c.beta2, c.eps) == (4e-5, 1000, 0.3, 0.9, 0.999, 1e-20)
    assert (c.imag_length, c.lam, c.actent, c.slowreg, c.slow_rate) == (15, 0.95, 3e-4, 1.0, 0.02)
    assert (c.batch, c.length, c.context, c.train_ratio) == (16, 64, 1, 32)
    assert DreamerV3Config() == PRESETS["size200m"]
    assert all(field.description for field in (*AgentConfig.model_fields.values(),))
    assert all(field.description for field in (*ModelConfig.model_fields.values(),))


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("model.deter", 100, "deter=100 is not a multiple of blocks"),
        ("model.decoder_blocks", 7, "deter=8192 is not a multiple of decoder_blocks"),
        ("model.kernel", 4, "kernel=4 is even: 'same' padding needs an odd kernel"),
        ("agent.minstd", 2.0, "maxstd=1.0 is below minstd=2.0"),
        ("agent.retnorm_high", 1.0, "retnorm_high=1.0 is below retnorm_low=5.0"),
        ("agent.batch", 0, "agent.batch|AgentConfig.batch"),
        ("agent.lrr", 1, "has no key 'lrr'. Did you mean 'lr'?"),
    ],
)
def test_bad_values_say_what_is_wrong(key, value, text):
    with pytest.raises(ConfigError) as caught:
        DreamerV3Config().with_(**{key: value})
    assert any(part in str(caught.value) for part in text.split("|"))
