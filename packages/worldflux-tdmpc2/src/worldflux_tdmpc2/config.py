"""Configuration of TD-MPC2 (2310.16828). Sources: nicklashansen/tdmpc2, `config.yaml` or named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from worldflux.config import Config
from worldflux.planning.config import MPPIConfig

if TYPE_CHECKING:
    from worldflux.columns import Columns

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Task(Config):
    """One task of a multi-task model, at the index that observations carry under "task"."""

    name: str
    """What the task is called."""
    action_dim: PositiveInt
    """Action dimensions the task uses; the rest is masked."""
    episode_length: PositiveInt = 500
    """T, agent steps of an episode."""


class ModelConfig(Config):
    """The world model: sizes, distributions, and the weights of its loss terms."""

    latent_dim: PositiveInt = 512
    """D, size of the latent (`latent_dim`)."""
    enc_dim: PositiveInt = 256
    """Units of the vector encoder (`enc_dim`)."""
    enc_layers: PositiveInt = 2
    """Layers of the vector encoder, the last one included, at least 2 (`num_enc_layers`)."""
    mlp_dim: PositiveInt = 512
    """Units of dynamics, reward, termination, policy and Q (`mlp_dim`)."""
    num_q: Annotated[int, Field(ge=2)] = 5
    """E, Q functions in the ensemble (`num_q`)."""
    simnorm_dim: PositiveInt = 8
    """Size of the simplices a latent consists of (`simnorm_dim`)."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.01
    """Dropout after the first linear layer of each trained Q function (`dropout`)."""
    bins: Annotated[int, Field(ge=3)] = 101
    """Bins of reward and value distributions (`num_bins`)."""
    vmin: float = -10.0
    """Lowest bin, in symlog units (`vmin`)."""
    vmax: float = 10.0
    """Highest bin, in symlog units (`vmax`)."""
    log_std_min: float = -10.0
    """Lowest log standard deviation of the policy (`log_std_min`)."""
    log_std_max: float = 2.0
    """Highest log standard deviation of the policy (`log_std_max`)."""
    episodic: bool = False
    """Whether episodes can terminate; adds a termination head (`episodic`)."""
    tasks: tuple[Task, ...] = ()
    """The tasks of a multi-task model; empty for one task (`common/__init__.py:TASK_SET`)."""
    task_dim: PositiveInt = 96
    """Size of a task's embedding, if there are tasks (`task_dim`)."""
    episode_length: PositiveInt | None = None
    """T, agent steps of an episode of the one task; it determines the discount. None is the
    environment's limit of steps, or 500 where it has none."""
    discount_denom: PositiveFloat = 5.0
    """The discount is clip((T/d - 1) / (T/d)) with this d (`discount_denom`)."""
    discount_min: Fraction = 0.95
    """Lowest discount (`discount_min`)."""
    discount_max: Fraction = 0.995
    """Highest discount (`discount_max`)."""
    rho: Fraction = 0.5
    """Weight of step t of a sequence is rho^t (`rho`)."""
    scale_consistency: NonNegativeFloat = 20.0
    """Weight of the latents' consistency (`consistency_coef`)."""
    scale_reward: NonNegativeFloat = 0.1
    """Weight of the rewards' cross entropy (`reward_coef`)."""
    scale_value: NonNegativeFloat = 0.1
    """Weight of the values' cross entropy (`value_coef`)."""
    scale_termination: NonNegativeFloat = 1.0
    """Weight of the terminations' cross entropy (`termination_coef`)."""
    scale_entropy: NonNegativeFloat = 1e-4
    """Weight of the scaled entropy in the policy loss (`entropy_coef`)."""
    tau: Fraction = 0.01
    """Share of the new value in target Q functions and running value scale (`tau`)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.latent_dim % self.simnorm_dim:
            raise ValueError(
                f"latent_dim={self.latent_dim} is not a multiple of simnorm_dim={self.simnorm_dim}"
            )
        if self.vmin >= self.vmax or self.log_std_min >= self.log_std_max:
            raise ValueError("vmin must be below vmax, and log_std_min below log_std_max")
        return self

    @property
    def lengths(self) -> tuple[int, ...]:
        """T of each task, or of the one task."""
        return tuple(task.episode_length for task in self.tasks) or (self.episode_length or 500,)

    def discount(self, episode_length: int) -> float:
        """Discount for episodes of this many agent steps (`tdmpc2.py:_get_discount`)."""
        fraction = episode_length / self.discount_denom
        return min(max((fraction - 1) / fraction, self.discount_min), self.discount_max)


class AgentConfig(Config):
    """Learning and acting."""

    lr: PositiveFloat = 3e-4
    """Adam's learning rate (`lr`)."""
    enc_lr_scale: PositiveFloat = 0.3
    """Factor on it for the encoder (`enc_lr_scale`)."""
    clip: PositiveFloat = 20.0
    """Largest gradient norm, of the model and of the policy (`grad_clip_norm`)."""
    batch_size: PositiveInt = 256
    """Sequences in an update (`batch_size`)."""
    horizon: PositiveInt = 3
    """H, transitions in a sequence that the latent is rolled out over (`horizon`)."""
    seed_steps: NonNegativeInt | None = None
    """Random agent steps before learning, and updates in the burst that follows them;
    None is max(1000, 5 T) (`envs/__init__.py`)."""
    updates_per_step: PositiveFloat = 1.0
    """Updates per agent step after that (`trainer/online_trainer.py`)."""
    plan: bool = True
    """Whether to act by planning (`mpc`); else by the policy alone."""
    wide_action: PositiveInt = 20
    """Action dimensions from which on a plan has 2 more iterations (`tdmpc2.py`)."""
    planner: MPPIConfig = MPPIConfig(proposals=24)
    """How to plan (`iterations`, `num_samples`, `num_elites`, `num_pi_trajs`, `temperature`)."""


class TDMPC2Config(Config):
    """TD-MPC2: world model and agent."""

    model: ModelConfig = ModelConfig()
    """The world model."""
    agent: AgentConfig = AgentConfig()
    """Learning and acting."""

    def completed(self, columns: Columns, episode_limit: int | None = None) -> Self:
        """With the episode length of the environment, if none is given."""
        if self.model.episode_length is not None or self.model.tasks or episode_limit is None:
            return self
        return self.with_(**{"model.episode_length": episode_limit})


def _preset(
    enc_dim: int, mlp_dim: int, latent_dim: int, enc_layers: int, num_q: int = 5
) -> TDMPC2Config:
    return TDMPC2Config(
        model=ModelConfig(
            enc_dim=enc_dim,
            mlp_dim=mlp_dim,
            latent_dim=latent_dim,
            enc_layers=enc_layers,
            num_q=num_q,
        )
    )


PRESETS = {  # `common/__init__.py:MODEL_SIZE`
    "1m": _preset(256, 384, 128, 2, num_q=2),
    "5m": _preset(256, 512, 512, 2),
    "19m": _preset(1024, 1024, 768, 3),
    "48m": _preset(1792, 1792, 768, 4),
    "317m": _preset(4096, 4096, 1376, 5, num_q=8),
}
