"""A step of a model, of its planning agent and of its batches: as many of the environment's."""

from __future__ import annotations

import numpy as np

from worldflux.columns import ACTION, REWARD
from worldflux.core.agent import Learner
from worldflux.episodes import Episode, rows_of
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


def in_blocks(episode: Episode, stride: int) -> Episode:
    """An episode as a model with a `stride` k sees it: every k-th of its rows.

    Actions become blocks (rows, k, ...) and rewards the sums of k, as in the batches of such a
    phase; steps at the end that fill no block are left out.
    """
    if stride == 1:
        return episode
    blocks = (rows_of(episode) - 1) // stride
    end = blocks * stride
    found = {name: np.asarray(column)[: end + 1 : stride] for name, column in episode.items()}
    if ACTION in episode:
        taken = np.asarray(episode[ACTION])[:end]
        taken = taken.reshape(blocks, stride, *taken.shape[1:])
        found[ACTION] = np.concatenate([taken, np.zeros_like(taken, shape=(1, *taken.shape[1:]))])
    if REWARD in episode:
        reward = np.asarray(episode[REWARD])
        sums = reward[1 : end + 1].reshape(blocks, stride).sum(1)
        found[REWARD] = np.concatenate([reward[:1], sums]).astype(reward.dtype)
    return found
