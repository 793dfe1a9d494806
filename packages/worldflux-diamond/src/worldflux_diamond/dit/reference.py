"""Reads the published implementation's weights (facebookresearch/DiT)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from worldflux.errors import StorageError
from worldflux_diamond.dit.world_model import DiTWorldModel

_DYNAMICS = "dynamics_model."
_FIXED = "pos_embed"
"""Their table of positions, which is computed here."""
_RULES = (
    (r"^x_embedder\.proj\.", f"{_DYNAMICS}network.embed."),
    (r"^t_embedder\.mlp\.0\.", f"{_DYNAMICS}time.first."),
    (r"^t_embedder\.mlp\.2\.", f"{_DYNAMICS}time.second."),
    (r"^y_embedder\.embedding_table\.", "action_conditioner.table."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", rf"{_DYNAMICS}network.blocks.\1.attention.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", rf"{_DYNAMICS}network.blocks.\1.attention.out."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", rf"{_DYNAMICS}network.blocks.\1.wide."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", rf"{_DYNAMICS}network.blocks.\1.narrow."),
    (r"^blocks\.(\d+)\.adaLN_modulation\.1\.", rf"{_DYNAMICS}network.blocks.\1.modulation."),
    (r"^final_layer\.linear\.", f"{_DYNAMICS}network.final.linear."),
    (r"^final_layer\.adaLN_modulation\.1\.", f"{_DYNAMICS}network.final.modulation."),
)


def our_name(name: str) -> str:
    """Our name of their parameter, of the world model."""
    for pattern, ours in _RULES:
        found, changed = re.subn(pattern, ours, name)
        if changed:
            return found
    raise StorageError(
        f"{name!r} is no parameter of DiT as published. The file is another model's."
    )


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The named weights of an official `.pt` file, the averaged ones where it holds both."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise StorageError(f"{path} is no readable DiT checkpoint: {error}") from error
    found = content.get("ema", content) if isinstance(content, Mapping) else None
    if not isinstance(found, Mapping):
        kind = type(content).__name__
        raise StorageError(f"{path} holds a {kind}, expected named weights, or those as 'ema'.")
    return dict(found)


def load_weights(model: DiTWorldModel, weights: Mapping[str, Tensor]) -> None:
    """Put their named weights into `model`, which has to have their sizes."""
    ours = {our_name(name): x.float() for name, x in weights.items() if name != _FIXED}
    own = model.state_dict()
    wrong = [k for k, x in own.items() if k not in ours or ours[k].shape != x.shape]
    wrong += sorted(ours.keys() - own.keys())
    if wrong:
        shapes = [tuple(x[wrong[0]].shape) if wrong[0] in x else "none" for x in (ours, own)]
        raise StorageError(
            f"{len(wrong)} tensors do not fit this model, {wrong[0]!r} first: the file has "
            f"{shapes[0]}, the model {shapes[1]}. Give the model the configuration of the file."
        )
    model.load_state_dict(ours)
