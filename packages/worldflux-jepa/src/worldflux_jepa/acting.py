"""An agent that plans with what its batch norms have learnt, whatever mode it is in."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from worldflux.core.agent import Mode
from worldflux.core.payloads import ActionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import ContractError
from worldflux.nn.modes import evaluating
from worldflux.planning.agent import PlanningAgent


class EvaluatingAgent(PlanningAgent):
    """Observes and plans in evaluation mode."""

    def act(
        self, obs: Mapping[str, Tensor], state: State | None, is_first: Tensor,
        mode: Mode = "eval", *, rand: Rand | None = None,
    ) -> tuple[ActionPayload, State]:  # fmt: skip
        """Act on observations (B, ...), with the statistics that the batch norms have learnt."""
        with evaluating(self.world_model):
            return super().act(obs, state, is_first, mode, rand=rand)

    def observe(
        self, obs: Mapping[str, Tensor], state: State | None, is_first: Tensor,
        *, rand: Rand | None = None,
    ) -> State:  # fmt: skip
        """Observe (B, ...), with the statistics that the batch norms have learnt."""
        with evaluating(self.world_model):
            return super().observe(obs, state, is_first, rand=rand)


def require_evaluating(model: nn.Module, name: str) -> None:
    """`ContractError` where batch norms would take the statistics of a plan's candidates."""
    norms = (isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
    if model.training and any(norms):
        raise ContractError(
            f"{name} was asked to score plans while training: batch norm would use the "
            "candidates' own statistics in place of those it learnt. Call eval() first."
        )
