"""What a plan costs: how far what it leads to is from the goal."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from worldflux.errors import ContractError

Distance = Literal["squared", "l1", "cosine"]
Over = Literal["last", "sum"]


def distance_to_goal(path: Tensor, goal: Tensor, distance: Distance, over: Over) -> Tensor:
    """Costs (B, N) of paths (B, N, H, ...) to goals (B, ...): at the end, or summed over steps.

    "squared" sums squares over features, "l1" is the mean of absolute differences, "cosine" is
    1 - cosine, the mean over tokens where there are some.
    """
    if path.shape[3:] != goal.shape[1:] or len(path) != len(goal):
        raise ContractError(
            f"The goal has shape {tuple(goal.shape)}, expected {(len(path), *path.shape[3:])}: "
            "encode it with the same model, one for each row."
        )
    reached = path[:, :, -1:] if over == "last" else path
    goal = goal[:, None, None].to(path).expand_as(reached)
    if distance == "cosine":
        cosine = F.cosine_similarity(reached, goal, dim=-1)
        return (1 - cosine).flatten(3).mean(-1).sum(-1) if cosine.ndim > 3 else (1 - cosine).sum(-1)
    apart = (reached - goal).flatten(3)
    each = apart.square().sum(-1) if distance == "squared" else apart.abs().mean(-1)
    return each.sum(-1)
