"""Reads the published implementation's weights (stable-worldmodel, `wm/lewm`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from worldflux_jepa.checkpoints import load
from worldflux_jepa.lewm.world_model import LeWorldModel
from worldflux_jepa.projected import Projected

_NAMES = (
    (r"predictor\.pos_embedding$", "predictor.positions"),
    (r"predictor\.transformer\.norm\.", "predictor.norm."),
    (r"predictor\.transformer\.(input|output)_proj\.", r"predictor.\1."),
    (r"predictor\.transformer\.cond_proj\.", "predictor.condition."),
    (r"predictor\.transformer\.layers\.(\d+)\.attn\.to_qkv\.", r"predictor.blocks.\1.attn.qkv."),
    (r"predictor\.transformer\.layers\.(\d+)\.attn\.to_out\.0\.", r"predictor.blocks.\1.attn.out."),
    (r"predictor\.transformer\.layers\.(\d+)\.mlp\.net\.0\.", r"predictor.blocks.\1.mlp.norm."),
    (r"predictor\.transformer\.layers\.(\d+)\.mlp\.net\.1\.", r"predictor.blocks.\1.mlp.fc1."),
    (r"predictor\.transformer\.layers\.(\d+)\.mlp\.net\.4\.", r"predictor.blocks.\1.mlp.fc2."),
    (r"predictor\.transformer\.layers\.(\d+)\.adaLN_modulation\.1\.",
     r"predictor.blocks.\1.modulation."),
    (r"predictor\.transformer\.layers\.(\d+)\.", r"predictor.blocks.\1."),
    (r"pred_proj\.", "projector."),
    (r"action_encoder\.patch_embed\.", "smooth."),
    (r"action_encoder\.embed\.0\.", "fc1."),
    (r"action_encoder\.embed\.2\.", "fc2."),
)  # fmt: skip


def our_name(name: str) -> str:
    """Our name of their parameter, within the part of ours that it belongs to."""
    for theirs, ours in _NAMES:
        found, count = re.subn("^" + theirs, ours, name)
        if count:
            return found
    return name


def load_weights(model: LeWorldModel, weights: Mapping[str, Tensor]) -> None:
    """Put their weights, by official names, into all parts of `model` but the encoder's trunk.

    Encoders are read by whoever wrote them. `StorageError` names what does not fit.
    """
    encoder = model.slot("observation_encoder")
    assert isinstance(encoder, Projected), type(encoder)
    _load(model.slot("dynamics_model"), weights, ("predictor.", "pred_proj."), "predictor")
    _load(model.slot("action_conditioner"), weights, ("action_encoder.",), "action encoder")
    projector = {
        name.removeprefix("projector."): value
        for name, value in weights.items()
        if name.startswith("projector.")
    }
    load(encoder.projector, projector, "projector")


def _load(
    module: nn.Module, weights: Mapping[str, Tensor], prefixes: tuple[str, ...], what: str
) -> None:
    own = {our_name(k): v for k, v in weights.items() if k.startswith(prefixes)}
    kept = {k: v for k, v in module.state_dict().items() if k in ("mean", "std")}
    load(module, {**own, **kept}, what)


def statistics(mean: Tensor, std: Tensor, model: LeWorldModel) -> None:
    """The actions' statistics (A,) that a published model was trained with."""
    blocks = model.slot("action_conditioner")
    with torch.no_grad():
        blocks.mean.copy_(mean)  # type: ignore[operator, union-attr]
        blocks.std.copy_(std)  # type: ignore[operator, union-attr]
