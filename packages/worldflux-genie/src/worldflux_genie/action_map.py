"""From an environment's actions to latent ones, learned from a few labelled sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.errors import ContractError
from worldflux_genie.world_model import GenieWorldModel


@dataclass(frozen=True)
class ActionMap:
    """`latent[i]` stands for an environment's action i; `counts` (A, V) is how often both met.

    `purity` is the share of transitions whose action is the commonest of their latent one: 1 where
    latent actions tell all. `agreement` is the share whose latent action is the map's.
    """

    latent: tuple[int, ...]
    counts: Tensor
    purity: float
    agreement: float


def fit_action_map(
    model: GenieWorldModel,
    batches: Batch | Iterable[Batch],
    labels: Sequence[str] = (),
    *,
    actions: int | None = None,
) -> ActionMap:
    """Let `model` be played with the actions of the environment that `batches` (B, T) are from.

    Each of the environment's discrete actions becomes the latent one that was inferred most often
    for it, relative to how common that one is. `actions` is their number, by default as many as
    there are labels, or as occur. Afterwards `model.action` is the environment's space, and saved
    with the model.
    """
    found = [pairs(model, batch) for batch in _each(batches)]
    taken, inferred = (torch.cat(side) for side in zip(*found, strict=True))
    if not len(taken):
        raise ContractError("fit_action_map got no transition within an episode: give sequences.")
    count = actions or len(labels) or int(taken.max()) + 1
    counts = contingency(taken, inferred, count, model.action_conditioner.quantizer.codes)
    never = (counts.sum(1) == 0).nonzero().flatten().tolist()
    if never:
        raise ContractError(
            f"fit_action_map: action {never[0]} of {count} is in none of the {len(taken)} labelled "
            "transitions, so nothing says what it does. Give more of them."
        )
    share = counts / counts.sum(0).clamp(min=1)  # of each latent action
    latent = tuple((share * (counts / counts.sum(1, keepdim=True))).argmax(1).tolist())
    model.with_actions(latent, tuple(labels))
    agreed = int(counts[torch.arange(count), list(latent)].sum()) / len(taken)
    return ActionMap(latent, counts, purity(counts), agreed)
    return ActionMap(latent, counts, purity(counts), agreed / len(taken))


def pairs(model: GenieWorldModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """The actions taken and those inferred, both (M,), of the transitions within episodes."""
    action, valid = batch.require("action"), batch.transitions().valid
    if action.ndim != 2 or action.is_floating_point():
        raise ContractError(
            f"fit_action_map maps choices (B, T), got actions of shape {tuple(action.shape)} and "
            f"type {action.dtype}."
        )
    inferred = model.infer_actions(batch.obs[model.key], batch.is_first)
    return action[:, :-1][valid].cpu(), inferred[valid].cpu()


def contingency(taken: Tensor, inferred: Tensor, actions: int, latent: int) -> Tensor:
    """How often each action (A) met each latent one (V), (A, V), of pairs (M,)."""
    cells = torch.bincount(taken * latent + inferred, minlength=actions * latent)
    return cells.view(actions, latent)


def purity(counts: Tensor) -> float:
    """The share of pairs (A, V) whose action is the commonest of their latent one."""
    commonest, total = int(counts.max(0).values.sum()), int(counts.sum())
    commonest, total = int(counts.amax(0).sum()), int(counts.sum())
    return commonest / max(total, 1)


def _each(batches: Batch | Iterable[Batch]) -> Iterable[Batch]:
    return [batches] if isinstance(batches, Batch) else batches
