"""Classifier-free guidance (Ho and Salimans 2022, 2207.12598)."""

from __future__ import annotations

import torch
from torch import Tensor


def guided(labelled: Tensor, unlabelled: Tensor, scale: float, channels: int) -> Tensor:
    """The first `channels` of outputs (B, C, ...) pushed from `unlabelled` towards `labelled`.

    Scale 1 is the labelled output itself. Further channels stay those of `labelled`.
    """
    free, own = unlabelled[:, :channels], labelled[:, :channels]
    return torch.cat([free + scale * (own - free), labelled[:, channels:]], 1)
