"""A step of a model, of its planning agent and of its batches: as many of the environment's."""

from __future__ import annotations

from worldflux.core.agent import Learner
from worldflux.errors import ContractError


def check_strides(learner: Learner) -> None:
    """Raise `ContractError` unless `WorldModel.stride`, every `Phase.stride` of the plan and, where
    the agent has one (`PlanningAgent`), its `stride` agree; the sentence names all three.
    """
    model = learner.world_model
    found = {f"{type(model).__name__}.stride": model.stride}
    if (own := getattr(learner, "stride", None)) is not None:
        found[f"{type(learner).__name__}.stride"] = own
    for phase in learner.training_plan().phases:
        found[f"phase {phase.name!r}"] = phase.stride
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} {stride}" for name, stride in found.items())
        raise ContractError(
            f"Strides disagree: {said}. One step of the model is as many environment steps for the "
            "model, for the agent that plans with it and in its batches: set all to the same."
        )
