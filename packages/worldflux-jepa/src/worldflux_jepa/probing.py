"""What frozen features are good for: a linear probe, nearest neighbours, rank, and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.agent import Learner
from worldflux.core.evaluation import Evaluation, held_out_batches
from worldflux.core.source import Source
from worldflux_jepa.collapse import spread

SHOWN, SIDE = 8, 96
NEIGHBOURS = 20


@dataclass(frozen=True)
class Features:
    """Of N held-out images: tokens (N, P, D) of a grid of patches, their labels and themselves."""

    tokens: Tensor
    grid: tuple[int, int]
    images: Tensor
    labels: Tensor | None

    @property
    def pooled(self) -> Tensor:
        """The mean over patches (N, D)."""
        return self.tokens.mean(1)


@torch.no_grad()
def labelled_features(learner: Learner, source: Source, limit: int) -> Features:
    """Features of at most `limit` batches of held-out images, on the CPU; one step of each row."""
    model = learner.world_model
    key: str = model.key  # type: ignore[assignment]
    grid: tuple[int, int] = model.grid  # type: ignore[assignment]
    phase = learner.training_plan().phases[0]
    tokens, images, labels = [], [], []
    for batch in held_out_batches(source, phase, limit):
        with learner.autocast():
            seen = model.observe_sequence(batch)["rep"][:, 0].float()  # (B, P, D)
        tokens.append(seen.cpu())
        images.append(batch.obs[key][:, 0].cpu())
        if "label" in batch.extra:
            labels.append(batch.extra["label"][:, 0].cpu())
    if not tokens:
        return Features(torch.zeros(0, grid[0] * grid[1], 1), grid, torch.zeros(0), None)
    return Features(
        torch.cat(tokens), grid, torch.cat(images), torch.cat(labels) if labels else None
    )


def judge(found: Features, classes: int | None) -> Evaluation:
    """Rank and spread of features, pictures of them and, with labels, the probes.

    The probes are fitted on even rows and judged by odd ones; the score is the linear probe's
    share of right labels. Without labels there is no score.
    """
    if len(found.tokens) < 2:
        return Evaluation()
    pooled = found.pooled
    numbers = {"rank_me": rank_me(pooled)}
    numbers |= {name.replace("/", "_"): float(x) for name, x in spread(pooled).items()}
    pictures = {"features": feature_picture(found)}
    if found.labels is None or classes is None:
        return Evaluation(None, numbers, pictures)
    fit, test = pooled[::2], pooled[1::2]
    known, asked = found.labels[::2], found.labels[1::2]
    score = accuracy(linear_probe(fit, known, test, classes), asked)
    numbers |= {"linear_probe": score}
    numbers |= {"nearest_neighbours": accuracy(nearest(fit, known, test, classes), asked)}
    return Evaluation(score, numbers, pictures)


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """The share of labels (N,) that have the highest of scores (N, classes)."""
    return float((scores.argmax(1) == labels).float().mean())


def linear_probe(fit: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """Scores (M, classes) of features test (M, D) by a ridge regression on fit (N, D).

    Features are standardised by `fit`; of several ridges that one is taken that guesses best the
    fifth of `fit` that it was not fitted on.
    """
    mean, std = fit.mean(0), fit.std(0).clamp(min=1e-6)
    x, y = (fit - mean) / std, F.one_hot(labels, classes).float()
    held = torch.arange(len(x)) % 5 == 0
    ridges = [0.1, 1.0, 10.0, 100.0, 1000.0]
    if bool(held.any()) and not bool(held.all()):
        found = [accuracy(_ridge(x[~held], y[~held], x[held], r), labels[held]) for r in ridges]
        best = ridges[int(np.argmax(found))]
    else:
        best = 1.0
    return _ridge(x, y, (test - mean) / std, best)


def _ridge(x: Tensor, y: Tensor, test: Tensor, ridge: float) -> Tensor:
    """Predictions (M, classes) for test (M, D) of a linear regression of y (N, classes) on x."""
    one = torch.ones(len(x), 1)
    wide = torch.cat([x, one], 1).double()
    gram = wide.T @ wide + ridge * torch.eye(wide.shape[1]).double()
    weights = torch.linalg.solve(gram, wide.T @ y.double())
    return (torch.cat([test, torch.ones(len(test), 1)], 1).double() @ weights).float()


def nearest(fit: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """Votes (M, classes) of the 20 rows of fit (N, D) nearest by cosine, weighted exp(cos/0.07)."""
    near = F.normalize(test, dim=1) @ F.normalize(fit, dim=1).T
    cosine, index = near.topk(min(NEIGHBOURS, len(fit)), 1)
    votes = F.one_hot(labels[index], classes) * ((cosine - 1) / 0.07).exp()[..., None]
    return votes.sum(1)


def rank_me(x: Tensor) -> float:
    """exp of the entropy of the singular values of x (N, D) (RankMe, 2210.02885)."""
    values = torch.linalg.svdvals(x.double())
    share = values / values.sum().clamp(min=1e-12) + 1e-7
    return float((-(share * share.log()).sum()).exp())


def feature_picture(found: Features) -> NDArray[np.uint8]:
    """Images above, below them their patches in the colours of the first three components.

    uint8 (2 * 96, 8 * 96, 3), fewer images where there are fewer.
    """
    count = min(SHOWN, len(found.tokens))
    tokens = found.tokens[:count].flatten(0, 1)  # (count * P, D)
    centred = tokens - tokens.mean(0)
    _, _, right = torch.linalg.svd(centred, full_matrices=False)
    parts = centred @ right[:3].T  # at most three components
    parts = F.pad(parts, (0, 3 - parts.shape[1]))
    low, high = parts.amin(0), parts.amax(0)
    colour = ((parts - low) / (high - low).clamp(min=1e-6)).T.reshape(3, count, *found.grid)
    maps = F.interpolate(colour.transpose(0, 1), (SIDE, SIDE), mode="nearest")
    shown = _shown(found.images[:count])
    both = torch.cat([shown, maps], 2)  # (count, 3, 2 * SIDE, SIDE)
    picture = both.permute(2, 0, 3, 1).flatten(1, 2)
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _shown(images: Tensor) -> Tensor:
    """Images (N, C, Y, X) of any channels as (N, 3, SIDE, SIDE) in [0, 1]."""
    pixels = images.float()
    if images.dtype == torch.uint8:
        pixels = pixels / 255
    else:  # normalised already: for the eye alone
        low, high = pixels.amin(), pixels.amax()
        pixels = (pixels - low) / (high - low).clamp(min=1e-6)
    three = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    return F.interpolate(three, (SIDE, SIDE), mode="bilinear")
