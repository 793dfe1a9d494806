"""Performance profiles: the share of a model's runs above each score (Agarwal et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from worldflux_train.comparison.results import Standing
from worldflux_train.statistics import Scores, as_scores, bootstrap_band, performance_profile

POINTS = 51


@dataclass(frozen=True)
class Profile:
    """The share of runs above each of `taus` (T,), with its interval where there are seeds."""

    label: str
    taus: Scores
    share: Scores
    low: Scores | None = None
    high: Scores | None = None


def profiles(found: Sequence[Standing]) -> list[Profile]:
    """One for each model, all at the same scores: from the lowest of all to the highest."""
    all_of_them = np.concatenate([as_scores(standing.scores).ravel() for standing in found])
    taus = np.linspace(all_of_them.min(), all_of_them.max(), POINTS)
    return [_profile(standing, taus) for standing in found]


def _profile(standing: Standing, taus: Scores) -> Profile:
    share = performance_profile(standing.scores, taus)
    if len(standing.scores) < 2:
        return Profile(standing.label, taus, share)
    low, high = bootstrap_band(standing.scores, partial(performance_profile, taus=taus), taus.shape)
    return Profile(standing.label, taus, share, low, high)
