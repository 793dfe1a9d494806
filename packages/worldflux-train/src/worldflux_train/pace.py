"""How fast a run goes, and how long what is left of it will take."""

from __future__ import annotations

from worldflux_train.clock import Clock


class Pace:
    """Rates since the last row of metrics; evaluations are timed apart and count as time left."""

    def __init__(self, eval_every: int) -> None:
        self.eval_every = eval_every
        self.evaluation = 0.0
        """Seconds of the last evaluation."""
        self._paused = 0.0
        self.mark(Clock(), 0)

    def mark(self, clock: Clock, updates: int) -> None:
        """Begin to measure anew."""
        self._from = (clock.step, clock.tick, updates, clock.seconds)
        self._paused = 0.0

    def evaluated(self, seconds: float) -> None:
        """An evaluation took that long."""
        self.evaluation = seconds
        self._paused += seconds

    def row(self, clock: Clock, updates: int, last_tick: int, before: int) -> dict[str, float]:
        """Rates and seconds left of a run that ends at `last_tick`.

        `before` is the tick from which on evaluations are still to come.
        """
        step, tick, updated, seconds = self._from
        span = max(clock.seconds - seconds - self._paused, 1e-9)
        ticks = max(last_tick - clock.tick, 0)
        rate = (clock.tick - tick) / span
        left = ticks / rate if rate > 0 else 0.0
        return {
            "time/elapsed": clock.seconds,
            "time/steps_per_second": (clock.step - step) / span,
            "time/updates_per_second": (updates - updated) / span,
            "time/left": left + self._evaluations(before, last_tick) * self.evaluation,
        }

    def _evaluations(self, before: int, last_tick: int) -> int:
        """Evaluations due in (before, last_tick], the last one always."""
        if self.eval_every == 0:
            return 1
        scheduled = last_tick // self.eval_every - before // self.eval_every
        return max(scheduled, 0) + (last_tick % self.eval_every > 0)
