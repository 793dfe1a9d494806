"""What a planner can be told. Torch-free, so that family configs can hold one."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from worldflux.config import Config

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class ScoreConfig(Config):
    """How candidates are scored through a model that has no `score` of its own."""

    discount: Fraction = 1.0
    """Factor per step on predicted rewards and the terminal value."""
    terminal_value: bool = False
    """Add the model's predicted value of the last state."""
    deterministic: bool = True
    """Imagine with the mode of each transition instead of a sample."""
    goal_key: str | None = None
    """State tensor compared with `conditions.goal`; None where the State has only one."""
    distance: Literal["squared", "l1"] = "squared"
    """Sum of squared (LeWM) or mean absolute (V-JEPA 2-AC) differences to the goal."""
    over: Literal["last", "all"] = "last"
    """Distance at the last imagined state, or summed over all of them (EB-JEPA)."""


class PlannerConfig(Config):
    """What every planner has."""

    horizon: PositiveInt = 12
    """Length H of a plan, in steps."""
    proposals: NonNegativeInt = 0
    """Candidates that the model's own `propose` (its policy) contributes."""
    warm_start: bool = True
    """Whether a plan begins with the one before, moved on; PlaNet begins with mean 0 every time."""
    execute: PositiveInt = 1
    """Actions executed before the next plan; the warm start is shifted by as many."""
    exploration: NonNegativeFloat | None = None
    """When exploring: noise on the first action, as a std in units of half the action range
    (PlaNet: 0.3); for a discrete action the probability of a uniformly random one. None is the
    plan's own std where the planner hands it out (MPPI, as in TD-MPC2), else no noise."""
    score: ScoreConfig = ScoreConfig()
    """Default scoring; unused where the model has a `score`."""

    @model_validator(mode="after")
    def _executes_within_horizon(self) -> Self:
        if self.execute > self.horizon:
            raise ValueError(f"execute={self.execute} exceeds horizon={self.horizon}")
        return self


class RandomShootingConfig(PlannerConfig):
    """Uniform candidates, the best one is the plan."""

    kind: Literal["random_shooting"] = "random_shooting"
    candidates: PositiveInt = 1000
    """Uniform candidates; the previous plan and the proposals come on top."""


class _RefitConfig(PlannerConfig):
    """Planners that refit a distribution over plans to the best candidates."""

    candidates: PositiveInt = 1000
    """Candidates N of an iteration, proposals among them."""
    elites: PositiveInt = 100
    """Best candidates K that the distribution is refitted to."""
    iterations: PositiveInt = 10
    """Rounds of sampling and refitting."""
    init_std: PositiveFloat = 1.0
    """Standard deviation at the start of each plan, in units of half the action range."""
    min_std: NonNegativeFloat = 0.0
    """Smallest standard deviation after a refit, in the same unit."""
    max_std: PositiveFloat = 2.0
    """Largest standard deviation after a refit, in the same unit."""
    min_prob: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.01
    """Discrete actions: probability mass kept uniform over the choices after a refit."""

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.elites > self.candidates:
            raise ValueError(f"elites={self.elites} exceeds candidates={self.candidates}")
        if self.proposals >= self.candidates:
            raise ValueError(
                f"proposals={self.proposals} leaves none of {self.candidates} candidates"
            )
        if self.min_std > self.max_std:
            raise ValueError(f"min_std={self.min_std} exceeds max_std={self.max_std}")
        return self


class CEMConfig(_RefitConfig):
    """Cross-entropy method; defaults of PlaNet (1811.04551, appendix A and algorithm 2)."""

    kind: Literal["cem"] = "cem"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the old mean and std that a refit keeps (V-JEPA 2-AC: 0.15)."""
    include_mean: bool = False
    """The first candidate of each iteration is the mean itself (DINO-WM)."""
    select: Literal["mean", "best"] = "mean"
    """The plan is the last mean (PlaNet) or the best candidate of the last iteration."""


class ICEMConfig(_RefitConfig):
    """iCEM (2008.06389, algorithm 1): coloured noise, kept and shifted elites, decaying N."""

    kind: Literal["icem"] = "icem"
    candidates: PositiveInt = 128
    """Candidates N of the first iteration, proposals excluded."""
    elites: PositiveInt = 10
    """Best candidates K that the distribution is refitted to."""
    iterations: PositiveInt = 3
    """Rounds of sampling and refitting."""
    init_std: PositiveFloat = 0.5
    """Standard deviation at the start of each plan, in units of half the action range."""
    beta: NonNegativeFloat = 2.5
    """Exponent of the noise's power spectrum 1/f^beta over the horizon; 0 is white."""
    decay: Annotated[float, Field(ge=1.0)] = 1.25
    """Factor by which N shrinks per iteration, down to twice the elites."""
    keep: Fraction = 0.3
    """Share of the elites kept for the next iteration and, shifted, for the next plan."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of the old mean and std that a refit keeps."""

    @model_validator(mode="after")
    def _elites_in_half(self) -> Self:
        if 2 * self.elites > self.candidates:
            raise ValueError(
                f"candidates={self.candidates} is less than twice elites={self.elites}"
            )
        return self


class MPPIConfig(_RefitConfig):
    """Model predictive path integral control as TD-MPC2 has it (2310.16828, section 3.2)."""

    kind: Literal["mppi"] = "mppi"
    horizon: PositiveInt = 3
    """Length H of a plan, in steps."""
    candidates: PositiveInt = 512
    """Candidates N of an iteration, proposals among them."""
    elites: PositiveInt = 64
    """Best candidates K that are weighted; as many as `candidates` is classical MPPI."""
    iterations: PositiveInt = 6
    """Rounds of sampling and refitting."""
    init_std: PositiveFloat = 2.0
    """Standard deviation at the start of each plan, in units of half the action range."""
    min_std: NonNegativeFloat = 0.05
    """Smallest standard deviation after a refit, in the same unit."""
    temperature: PositiveFloat = 0.5
    """Weights are softmax(temperature * score): TD-MPC2's convention, 1/lambda of MPPI."""
    select: Literal["mean", "sample"] = "sample"
    """The plan is the last mean, or an elite drawn by its weight (TD-MPC2)."""


class GradientConfig(PlannerConfig):
    """Gradient ascent on the score of several candidates, with Adam."""

    kind: Literal["gradient"] = "gradient"
    candidates: PositiveInt = 16
    """Random restarts; the first starts at the shifted previous plan. Proposals come on top."""
    iterations: PositiveInt = 50
    """Gradient steps."""
    lr: PositiveFloat = 0.1
    """Adam's step size, in units of half the action range (or logits)."""
    init_std: NonNegativeFloat = 0.5
    """Spread of the restarts, in the same unit."""
    relaxed: bool = False
    """Discrete actions: ascend on softmax(logits) in place of one-hot vectors
    (Henaff et al., 1705.07177); the model must accept such mixtures."""


AnyPlannerConfig = Annotated[
    RandomShootingConfig | CEMConfig | ICEMConfig | MPPIConfig | GradientConfig,
    Field(discriminator="kind"),
]
"""Field type for a family's config: `planner: AnyPlannerConfig`, chosen by its `kind`."""


class PlanningAgentConfig(Config):
    """An agent that learns a world model and acts by planning in it."""

    planner: AnyPlannerConfig = CEMConfig()
    """How to plan."""
    lr: PositiveFloat = 3e-4
    """Adam's learning rate."""
    eps: PositiveFloat = 1e-8
    """Adam's epsilon."""
    clip: PositiveFloat = 100.0
    """Largest norm of the gradient."""
    batch: PositiveInt = 50
    """Sequences in an update."""
    length: Annotated[int, Field(ge=2)] = 50
    """Steps of a sequence."""
    updates_per_step: PositiveFloat = 1.0
    """Gradient updates per agent step."""
    prefill: NonNegativeInt = 1000
    """Random agent steps before learning."""
