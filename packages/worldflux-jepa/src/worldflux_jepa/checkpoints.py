"""Files of named weights that others published, and putting them into a model of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from worldflux.errors import StorageError

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
"""Attention heads of the usual vision transformers, by width: no weight tells them."""


def read_file(path: str | Path) -> dict[str, Any]:
    """What a published file holds, on the CPU; nothing in it is executed."""
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, ValueError) as error:
        raise StorageError(f"{path} is no readable checkpoint: {error}") from error
    if not isinstance(content, Mapping):
        raise StorageError(f"{path} holds a {type(content).__name__}, expected named weights.")
    return dict(content)


def below(weights: Mapping[str, Any], *prefixes: str) -> dict[str, Tensor]:
    """The tensors of a dict of names, without "module." and the first of `prefixes` that fits."""
    found = {}
    for name, value in weights.items():
        if isinstance(value, Tensor):
            bare = name.removeprefix("module.")
            start = next((p for p in prefixes if bare.startswith(p)), "")
            found[bare.removeprefix(start)] = value
    return found


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """`weights` under our names: of `names` (theirs to ours) the first that a name begins with."""
    found = {}
    for name, value in weights.items():
        start = next((old for old in names if name.startswith(old)), "")
        found[names.get(start, "") + name.removeprefix(start)] = value
    return found


@torch.no_grad()
def load(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Put weights into `module`, every name and shape of which must fit."""
    own = dict(module.state_dict(keep_vars=True))
    odd = sorted(own.keys() ^ weights.keys())
    if odd:
        where = "the model" if odd[0] in own else "the checkpoint"
        raise StorageError(f"{what}: only {where} has {odd[0]!r}. It is one of another kind.")
    for name, tensor in own.items():
        if tensor.shape != weights[name].shape:
            raise StorageError(
                f"{what}: {name!r} has shape {tuple(weights[name].shape)} in the checkpoint and "
                f"{tuple(tensor.shape)} in the model. Choose the preset it was trained with."
            )
        tensor.copy_(weights[name])


def heads_of(width: int, heads: int | None) -> int:
    """The number of heads: the caller's, or the usual one of this width."""
    if heads is None and width not in HEADS:
        raise StorageError(
            f"No weight of this checkpoint tells how many attention heads it has, and {width} is "
            "no usual width: give `heads`."
        )
    return heads or HEADS[width]


def depth_of(weights: Mapping[str, Tensor], prefix: str = "blocks.") -> int:
    """Number of blocks, from names such as `blocks.11.norm1.weight`."""
    numbers = [int(n.removeprefix(prefix).split(".")[0]) for n in weights if n.startswith(prefix)]
    return 1 + max(numbers, default=-1)
