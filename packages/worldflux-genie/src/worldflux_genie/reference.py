"""Weights of p-doom/jasmine under our names: its parameter paths, and its kernels' layout."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from worldflux.errors import StorageError
from worldflux_genie.world_model import GenieWorldModel

_PARTS = {
    "tokenizer/encoder": "observation_encoder.net",
    "tokenizer/decoder": "decoder_module.net",
    "lam/encoder": "action_conditioner.encoder",
    "lam/decoder": "action_conditioner.decoder",
    "dynamics/transformer": "dynamics_model.net",
}
_SINGLE = {
    "tokenizer/vq/codebook": "observation_encoder.quantizer.codebook",
    "lam/vq/codebook": "action_conditioner.quantizer.codebook",
    "lam/action_in": "action_conditioner.token",
    "lam/patch_up": "action_conditioner.patch_up",
    "lam/action_up": "action_conditioner.action_up",
    "dynamics/patch_embed/embedding": "dynamics_model.words.weight",
    "dynamics/mask_token": "dynamics_model.hidden",
    "dynamics/action_up": "dynamics_model.action_up",
}
_LAYERS = {
    "input_norm1": "norm_in",
    "input_dense": "layer_in",
    "input_norm2": "norm",
    "output_dense": "layer_out",
    "spatial_norm": "space_norm",
    "spatial_attention/out": "space.out",
    "temporal_norm": "time_norm",
    "temporal_attention/out": "time.out",
    "ffn_norm": "ffn_norm",
    "ffn_dense1": "ffn.0",
    "ffn_dense2": "ffn.2",
}
_LAST = {"kernel": "weight", "bias": "bias", "scale": "weight"}
_QKV = re.compile(r"(.*)/(spatial|temporal)_attention/(query|key|value)/(kernel|bias)$")
_ORDER = ("query", "key", "value")


def our_name(name: str) -> str:
    """The name of their parameter `name` in our world model; queries, keys and values share one."""
    if name in _SINGLE:
        return _SINGLE[name]
    path, _, last = name.rpartition("/")
    if path in _SINGLE:
        return f"{_SINGLE[path]}.{_LAST[last]}"
    part = next((part for part in _PARTS if name.startswith(f"{part}/")), None)
    if part is None:
        raise StorageError(f"{name!r} is no parameter of jasmine's Genie.")
    inner = name.removeprefix(f"{part}/")
    prefix = ""
    if inner.startswith("blocks/"):
        _, number, inner = inner.split("/", 2)
        prefix = f"blocks.{number}."
    found = _QKV.fullmatch(f"/{inner}")
    if found:
        which = "space" if found[2] == "spatial" else "time"
        return f"{_PARTS[part]}.{prefix}{which}.qkv.{_LAST[found[4]]}"
    layer, _, last = inner.rpartition("/")
    return f"{_PARTS[part]}.{prefix}{_LAYERS[layer]}.{_LAST[last]}"


def converted(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their weights by our names: kernels (in, out) transposed, heads joined, q, k and v in one."""
    found: dict[str, Tensor] = {}
    threes: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        ours, match = our_name(name), _QKV.fullmatch(f"/{name}")
        if match:
            threes.setdefault(ours, {})[match[3]] = _laid_out(name, value)
        else:
            found[ours] = _laid_out(name, value)
    for ours, three in threes.items():
        missing = [part for part in _ORDER if part not in three]
        if missing:
            raise StorageError(f"{ours!r} lacks its {missing[0]}: the checkpoint is not whole.")
        found[ours] = torch.cat([three[part] for part in _ORDER])
    return found


def _laid_out(name: str, value: Tensor) -> Tensor:
    """A kernel as torch keeps it, (out, in); anything else flat, but for tables."""
    if name.endswith(("codebook", "embedding")):
        return value
    if not name.endswith("kernel"):
        return value.flatten()
    inputs = value.shape[:-1] if name.endswith("out/kernel") else value.shape[:1]
    return value.reshape(inputs.numel(), -1).T.contiguous()


def load_weights(model: GenieWorldModel, weights: Mapping[str, Tensor]) -> None:
    """Put jasmine's weights into `model`; every name and shape must fit."""
    ours, own = converted(weights), dict(model.named_parameters())
    for name in _odd(ours, own):
        where = "the model" if name in own else "the checkpoint"
        raise StorageError(f"Only {where} has {name!r}: the checkpoint is of another kind.")
    with torch.no_grad():
        for name, parameter in own.items():
            if parameter.shape != ours[name].shape:
                raise StorageError(
                    f"{name!r} has shape {tuple(ours[name].shape)} in the checkpoint and "
                    f"{tuple(parameter.shape)} in the model: give it the sizes it was trained with."
                )
            parameter.copy_(ours[name])


def _odd(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Iterator[str]:
    yield from sorted(left.keys() ^ right.keys())
