"""Whether representations have collapsed: their spread and how many directions they use."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from worldflux.core.evaluation import held_out_batches
from worldflux.core.learner import Learner
from worldflux.core.rand import Rand
from worldflux.core.source import Source
from worldflux.distributed import gather

logger = logging.getLogger(__name__)
LEAST_STD, LEAST_RANK = 0.02, 1.5
EVERY = 50
"""Updates between two looks: reading a number waits for the device."""


@torch.no_grad()
def spread(x: Tensor) -> dict[str, Tensor]:
    """ "rep/std", the mean deviation of features x (N, D) over rows, and "rep/rank".

    The rank is the participation ratio of the covariance's eigenvalues, (sum)^2 / sum of squares:
    1 where all rows lie on a line, D where all directions vary alike.
    """
    x = gather(x.detach().float())
    std = x.std(0, correction=0).mean()
    centred = x - x.mean(0)
    gram = centred @ centred.T if len(x) < x.shape[1] else centred.T @ centred
    squares = gram.square().sum()
    rank = gram.trace().square() / squares.clamp(min=1e-30)
    return {"rep/std": std, "rep/rank": rank}


def collapsed(std: float, rank: float) -> str:
    """What has collapsed, in words; empty where nothing has."""
    if std < LEAST_STD:
        return f"all inputs have nearly the same representation (deviation {std:.2g})"
    if rank < LEAST_RANK:
        return f"representations vary along one direction alone (effective rank {rank:.2f})"
    return ""


class CollapseWatch:
    """Warns once when an update's representations have collapsed, and once when they are back."""

    def __init__(self) -> None:
        self.warned = False

    def look(self, update: int, found: Mapping[str, Tensor | float]) -> None:
        """Look at the scalars of `spread` at every so many updates."""
        if update % EVERY or "rep/std" not in found:
            return
        said = collapsed(float(found["rep/std"]), float(found["rep/rank"]))
        if said and not self.warned:
            logger.warning(
                "update %d: the representation collapsed: %s. Its loss can be low all the same. "
                "See what keeps it apart (target's momentum, SIGReg's weight, learning rate).",
                update, said,
            )  # fmt: skip
        elif self.warned and not said:
            logger.warning("update %d: the representation is apart again.", update)
        self.warned = bool(said)


def mean_numbers(found: Sequence[Mapping[str, Tensor | float]]) -> dict[str, float]:
    """The mean of scalars by name, "/" in names replaced by "_"; empty of none."""
    names = found[0] if found else ()
    return {
        name.replace("/", "_"): sum(float(each[name]) for each in found) / len(found)
        for name in names
    }


def held_out_means(
    learner: Learner, source: Source, rand: Rand | None, limit: int
) -> dict[str, float]:
    """Loss, its parts and what is watched, as means over at most `limit` held-out batches."""
    found = []
    for batch in held_out_batches(source, learner.training_plan().phases[0], limit):
        with learner.autocast():
            output = learner.world_model.loss(batch, rand=rand)
        found.append({"loss": output.loss, **output.components, **output.metrics})
    return mean_numbers(found)
