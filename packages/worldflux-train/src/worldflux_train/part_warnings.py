"""What a run says of the caller's parts that its training never reaches."""

from __future__ import annotations

import logging

from torch import Tensor

from worldflux.core.agent import Learner

logger = logging.getLogger(__name__)


class UntrainedParts:
    """Names, once, what of the caller's parts got no gradient in any phase's first update."""

    def __init__(self, learner: Learner) -> None:
        self._waiting = {phase.name for phase in learner.training_plan().phases}
        self._left: dict[str, Tensor] = {}
        model = learner.world_model
        for slot in model.slot_overrides:
            for name, parameter in getattr(model, slot).named_parameters():
                if parameter.requires_grad:
                    self._left[f"{slot}.{name}"] = parameter

    def after(self, phase: str) -> None:
        """Look at the gradients that an update of `phase` has just left."""
        if not self._left or phase not in self._waiting:
            return
        self._waiting.discard(phase)
        self._left = {name: p for name, p in self._left.items() if p.grad is None}
        if self._left and not self._waiting:
            logger.warning(
                "No phase of the training gives a gradient to %s: they stay as they were made. Let "
                "what the part gives depend on them (no detach, no torch.no_grad), or set their "
                "requires_grad to False.",
                ", ".join(self._left),
            )
            self._left = {}
