"""The check that a loss does not reach over the end of an episode."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.testing.batches import batch_for
from worldflux.testing.inputs import randomise

_LENGTH = 8
_MIDDLE = 4
_TOLERANCE = 2e-5  # of the losses: float noise measures 1e-6, an ignored is_first 1e-2 and more


def two_episodes(model: WorldModel, first: int, second: int) -> Batch:
    """Rows (2, T) of an episode by seed `first` and another by seed `second` behind it."""
    a, b = (batch_for(model, 2, _LENGTH, boundary=False, seed=seed) for seed in (first, second))

    def joined(left: Tensor, right: Tensor) -> Tensor:
        return torch.cat([left[:, :_MIDDLE], right[:, _MIDDLE:]], 1)

    batch = Batch(
        obs={key: joined(value, b.obs[key]) for key, value in a.obs.items()},
        action=None if a.action is None or b.action is None else joined(a.action, b.action),
        reward=None if a.reward is None or b.reward is None else joined(a.reward, b.reward),
        is_first=a.is_first.clone(),
        is_last=a.is_last.clone(),
        is_terminal=a.is_terminal.clone(),
        extra={name: joined(value, b.extra[name]) for name, value in a.extra.items()},
    )
    batch.is_first[:, _MIDDLE] = True
    batch.is_last[:, _MIDDLE - 1] = True
    batch.is_terminal[0, _MIDDLE - 1] = True  # row 1 ends by a time limit
    if batch.action is not None:
        batch.action[batch.is_last] = 0
    if batch.reward is not None:
        batch.reward[batch.is_first] = 0
    return batch


@torch.no_grad()
def check_loss_respects_episodes(model: WorldModel) -> None:
    """A loss is a sum over episodes: what one of them adds does not depend on its neighbour.

    L(A1,B1) - L(A2,B1) - L(A1,B2) + L(A2,B2) is zero for such a loss, with the same noise.
    """
    randomise(model)

    def loss(first: int, second: int) -> float:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return float(model.loss(two_episodes(model, first, second)).loss)

    found = loss(1, 3), loss(2, 3), loss(1, 4), loss(2, 4)
    mixed = abs(found[0] - found[1] - found[2] + found[3])
    size = max(abs(value) for value in found)
    assert mixed <= _TOLERANCE * size, (
        "the loss reaches across an episode boundary: what an episode adds to it depends on the "
        f"episode before it in the row (by {mixed:.2g} of {size:.2g}). Start anew where is_first "
        "holds; a loss that depends on the batch as a whole declares loss_spans_batch = True"
    )
