"""How well a trained model plans: episodes toward goals, their success, time and pictures."""

from worldflux_train.planning.result import PlannedEpisode, PlanResult, interval
from worldflux_train.planning.run import plan_run

__all__ = ["PlanResult", "PlannedEpisode", "interval", "plan_run"]
