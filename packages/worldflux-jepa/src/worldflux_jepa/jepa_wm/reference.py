"""Reads the published predictor's weights (facebookresearch/vjepa2, `ac_predictor.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from worldflux.errors import StorageError
from worldflux_jepa.checkpoints import below, depth_of, load, read_file, renamed
from worldflux_jepa.jepa_wm.config import PredictorConfig
from worldflux_jepa.jepa_wm.predictor import Predictor

NAMES = {
    "predictor_embed.": "embed.",
    "action_encoder.": "action.",
    "state_encoder.": "state.",
    "extrinsics_encoder.": "extrinsics.",
    "predictor_blocks.": "blocks.",
    "predictor_norm.": "norm.",
    "predictor_proj.": "proj.",
}


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Named weights of the predictor in an official file (its "predictor", or the file's own)."""
    content = read_file(path)
    inner = content.get("predictor", content)
    found = below(inner) if isinstance(inner, Mapping) else {}
    if "predictor_embed.weight" not in found:
        raise StorageError(f"{path} holds no V-JEPA 2-AC predictor: no predictor_embed.weight.")
    return found


def inferred_config(
    weights: Mapping[str, Tensor], heads: int = 16, *, use_extrinsics: bool = False
) -> PredictorConfig:
    """The sizes of a predictor; no weight tells the number of heads."""
    width = weights["predictor_embed.weight"].shape[0]
    pose = weights.get("extrinsics_encoder.weight")
    return PredictorConfig(
        width=width,
        depth=depth_of(weights, "predictor_blocks."),
        heads=heads,
        mlp_ratio=weights["predictor_blocks.0.mlp.fc1.weight"].shape[0] / width,
        extrinsics=0 if pose is None else pose.shape[1],
        use_extrinsics=use_extrinsics,
    )


def load_weights(predictor: Predictor, weights: Mapping[str, Tensor]) -> None:
    """Put the weights into `predictor`; every name and shape must fit."""
    load(predictor, renamed(weights, NAMES), "predictor")
