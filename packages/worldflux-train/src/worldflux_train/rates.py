"""`train.schedules` put in the place of a learner's own."""

from __future__ import annotations

from worldflux.core.agent import Learner
from worldflux.core.schedules import Schedule
from worldflux.errors import ConfigError, did_you_mean
from worldflux_train.rate_config import ALL, RateSchedule, Schedules


def apply_schedules(learner: Learner, schedules: Schedules) -> None:
    """Replace the learner's schedules of the rates that are named.

    `ConfigError` for an optimiser that it does not have, and for a rate that is 0 throughout.
    """
    for name, rate, wanted in each_rate(learner, schedules):
        learner.schedules[f"{name}.{rate}"] = as_schedule(wanted)


def each_rate(learner: Learner, schedules: Schedules) -> list[tuple[str, str, RateSchedule]]:
    """The optimisers' names, rates and what is wanted of them; those of "all" come first."""
    found: dict[tuple[str, str], RateSchedule] = {}
    for owner in sorted(schedules, key=lambda owner: owner != ALL):
        names = list(learner.optimizers) if owner == ALL else [owner]
        if owner != ALL and owner not in learner.optimizers:
            raise ConfigError(
                f"train.schedules.{owner} is of no optimizer."
                f"{did_you_mean(owner, learner.optimizers)} Optimizers: "
                f"{', '.join(learner.optimizers) or 'none'}, or {ALL}."
            )
        for rate, wanted in schedules[owner].items():
            having = [name for name in names if _has(learner, name, rate)]
            if not having:
                raise ConfigError(
                    f"train.schedules.{owner}.{rate} scales nothing: that rate of "
                    f"{', '.join(names) or 'it'} is 0. Give the family a {rate} first."
                )
            found |= {(name, rate): wanted for name in having}
    return [(name, rate, wanted) for (name, rate), wanted in found.items()]


def as_schedule(wanted: RateSchedule) -> Schedule:
    """What core follows; a plateau only warms up there, and falls by `Learner.factors`."""
    kind = "constant" if wanted.kind == "plateau" else wanted.kind
    end = {"exponential": 0.1, "step": 0.1}.get(kind, 0.0) if wanted.end is None else wanted.end
    if kind == "step" and wanted.at is None:
        raise ConfigError(
            "A schedule of kind step needs `at`, the moments of its steps: {kind: step, at: 0.5}."
        )
    return Schedule(kind, wanted.start, wanted.peak, end, wanted.warmup, wanted.at, wanted.decay)


def _has(learner: Learner, name: str, rate: str) -> bool:
    return any(float(group.get(rate, 0.0)) > 0 for group in learner.optimizers[name].param_groups)
