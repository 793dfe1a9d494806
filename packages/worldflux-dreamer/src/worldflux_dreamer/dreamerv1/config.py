"""Configuration of DreamerV1 (1912.01603; numbers of `dreamer.py:define_config`)."""

from __future__ import annotations

from pydantic import PositiveFloat

from worldflux.config import Config
from worldflux_dreamer.latent_rssm.config import BehaviorConfig, DiscountedConfig


class ModelConfig(DiscountedConfig):
    """The world model; `free_nats` apply to the batch's mean KL."""

    scale_continue: float = 10.0
    """Weight of the continue head's cross entropy (`pcont_scale`)."""


class AgentConfig(BehaviorConfig):
    """Behaviour by analytic gradients through the imagined dynamics."""

    explore: float = 0.3
    """Std of noise on actions when training (`expl_amount`); probability of a random choice."""
    init_std: PositiveFloat = 5.0
    """Standard deviation, before the tanh, that the actor begins with (`action_init_std`)."""
    mean_scale: PositiveFloat = 5.0
    """Means before the tanh are kept within this (`ActionDecoder.mean_scale`)."""


class DreamerV1Config(Config):
    """DreamerV1: the rooms `model.*` and `agent.*`."""

    model: ModelConfig = ModelConfig()
    """The world model."""
    agent: AgentConfig = AgentConfig()
    """Behaviour learning, optimisers and training plan."""


PRESETS = {
    "dmc": DreamerV1Config(),
    "discrete": DreamerV1Config(
        model=ModelConfig(continue_head=True, scale_kl=0.1, rewards="tanh"),
        agent=AgentConfig(horizon=10, explore=0.4, explore_min=0.1, explore_updates=200_000),
    ),
}
"""`dmc`: control from pixels, action repeat 2. `discrete`: Atari and DMLab (appendix A: straight-
through actions, discount head, horizon 10, KL scale 0.1, tanh of rewards, epsilon 0.4 to 0.1 in
200,000 updates)."""
