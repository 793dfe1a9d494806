"""What evaluations decide over time: rates that fall on a plateau, and a run that ends early."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from worldflux.atomic import read_json, write_json
from worldflux.core.agent import Learner
from worldflux.errors import ConfigError
from worldflux_train.config import TrainConfig
from worldflux_train.rates import each_rate

logger = logging.getLogger(__name__)
FILE = "patience.json"


@dataclass
class Plateau:
    """A rate that falls when evaluations are no better: `factor` is what it has come to."""

    patience: int
    by: float
    least: float
    worse: int = 0
    factor: float = 1.0

    def judged(self, better: bool) -> bool:
        """Count one evaluation; whether the rate falls now."""
        self.worse = 0 if better else self.worse + 1
        if self.worse < self.patience or self.factor <= self.least:
            return False
        self.worse, self.factor = 0, max(self.least, self.factor * self.by)
        return True


class Patience:
    """Counts evaluations without a better score; a part of the run's checkpoints."""

    def __init__(self, settings: TrainConfig, learner: Learner) -> None:
        self.settings, self.learner = settings, learner
        self.best: float | None = None
        self.worse = 0
        self.stopped: str | None = None
        """Why the run ends before `train.steps`."""
        self.plateaus = {
            f"{name}.{rate}": Plateau(wanted.patience, wanted.factor, wanted.least)
            for name, rate, wanted in each_rate(learner, settings.schedules)
            if wanted.kind == "plateau"
        }
        self._apply()

    def judged(self, score: float | None) -> None:
        """Count one evaluation. `ConfigError` where one without a score has to decide something."""
        limits = (self.settings.stop_patience, self.settings.stop_score)
        if score is None:
            if self.plateaus or limits != (None, None):
                raise ConfigError(
                    "train.stop_patience, train.stop_score and plateau schedules go by the score "
                    "of evaluations, and this run's have none. Take them out, or give the run an "
                    "environment or held-out data that its family scores."
                )
            return
        better = self.best is None or score > self.best
        self.best = score if better else self.best
        self.worse = 0 if better else self.worse + 1
        for name, plateau in self.plateaus.items():
            if plateau.judged(better):
                logger.info("no better score: %s falls to %.3g of itself", name, plateau.factor)
        self._apply()
        self._stop(score)

    def save(self, folder: Path) -> None:
        """Write the counts."""
        plateaus = {name: [p.worse, p.factor] for name, p in self.plateaus.items()}
        values = {"best": self.best, "worse": self.worse, "stopped": self.stopped}
        write_json(folder / FILE, {**values, "plateaus": plateaus})

    def load(self, folder: Path) -> None:
        """Take over the saved counts; a checkpoint of before there were any has none."""
        if not (folder / FILE).is_file():
            return
        saved = read_json(folder / FILE)
        self.best, self.worse, self.stopped = saved["best"], saved["worse"], saved["stopped"]
        for name, (worse, factor) in saved["plateaus"].items():
            if name in self.plateaus:
                self.plateaus[name].worse, self.plateaus[name].factor = worse, factor
        self._apply()

    def _apply(self) -> None:
        self.learner.factors |= {name: p.factor for name, p in self.plateaus.items()}

    def _stop(self, score: float) -> None:
        patience, target = self.settings.stop_patience, self.settings.stop_score
        if target is not None and score >= target:
            self.stopped = f"the score {score:.4g} has reached train.stop_score={target:g}"
        elif patience is not None and self.worse >= patience:
            self.stopped = f"{self.worse} evaluations (train.stop_patience) were no better"
