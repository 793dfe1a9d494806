"""Reads the published implementation's checkpoints (facebookresearch/ijepa)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from worldflux.errors import StorageError
from worldflux.specs import TensorSpec
from worldflux_jepa.checkpoints import below, depth_of, heads_of, load, read_file, renamed
from worldflux_jepa.ijepa.config import IJEPAConfig, ModelConfig, PredictorConfig
from worldflux_jepa.ijepa.world_model import IJEPAModel
from worldflux_jepa.vit_config import ViTConfig

PARTS = ("encoder", "predictor", "target_encoder")
PREDICTOR = {
    "predictor_embed.": "embed.",
    "predictor_pos_embed": "pos_embed",
    "predictor_blocks.": "blocks.",
    "predictor_norm.": "norm.",
    "predictor_proj.": "proj.",
}
Weights = Mapping[str, Mapping[str, Tensor]]


def read_checkpoint(path: str | Path) -> dict[str, dict[str, Tensor]]:
    """Named weights of `encoder`, `predictor` and `target_encoder` of an official file."""
    content = read_file(path)
    missing = [part for part in PARTS if not isinstance(content.get(part), Mapping)]
    if missing:
        raise StorageError(f"{path} is no I-JEPA checkpoint: it has no {', '.join(missing)}.")
    return {part: below(content[part]) for part in PARTS}


def inferred_config(
    weights: Weights, base: IJEPAConfig | None = None, heads: int | None = None,
    predictor_heads: int | None = None,
) -> IJEPAConfig:  # fmt: skip
    """The sizes of a checkpoint; masks and training are as in `base`."""
    encoder, predictor = weights["encoder"], weights["predictor"]
    patches = encoder["patch_embed.proj.weight"]
    width = patches.shape[0]
    vit = ViTConfig(
        width=width,
        depth=depth_of(encoder),
        heads=heads_of(width, heads),
        mlp_ratio=encoder["blocks.0.mlp.fc1.weight"].shape[0] / width,
        patch=patches.shape[-1],
    )
    own = PredictorConfig(
        width=predictor["predictor_embed.weight"].shape[0],
        depth=depth_of(predictor, "predictor_blocks."),
        heads=predictor_heads,
    )
    base = base or IJEPAConfig()
    model = ModelConfig(encoder=vit, predictor=own, mask=base.model.mask)
    return IJEPAConfig(model=model, agent=base.agent)


def world_model(
    weights: Weights, base: IJEPAConfig | None = None, *, heads: int | None = None,
    predictor_heads: int | None = None, image: TensorSpec | None = None,
) -> IJEPAModel:  # fmt: skip
    """The model of a checkpoint, for square uint8 images unless `image` says otherwise."""
    config = inferred_config(weights, base, heads, predictor_heads)
    patches = weights["encoder"]["patch_embed.proj.weight"]
    side = patches.shape[-1] * math.isqrt(weights["encoder"]["pos_embed"].shape[1])
    spec = image or TensorSpec((patches.shape[1], side, side), "uint8", low=0, high=255)
    model = IJEPAModel(config, {"image": spec})
    load_weights(model, weights)
    return model


def load_weights(model: IJEPAModel, weights: Weights) -> None:
    """Put a checkpoint's weights into `model`; every name and shape must fit."""
    load(model.slot("observation_encoder"), weights["encoder"], "encoder")
    load(model.predictor, renamed(weights["predictor"], PREDICTOR), "predictor")
    load(model.target, weights["target_encoder"], "target_encoder")


def split(flat: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Weights named `encoder.…`, `predictor.…`, `target_encoder.…` as one dict for each part."""
    return {
        part: {k.removeprefix(f"{part}."): v for k, v in flat.items() if k.startswith(f"{part}.")}
        for part in PARTS
    }
