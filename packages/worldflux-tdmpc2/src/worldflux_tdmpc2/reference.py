"""Reads the published implementation's checkpoints (nicklashansen/tdmpc2), of both its formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from worldflux.errors import StorageError
from worldflux.specs import TensorSpec
from worldflux_tdmpc2.config import ModelConfig, Task, TDMPC2Config
from worldflux_tdmpc2.world_model import TDMPC2WorldModel

_NAMES = {
    "_encoder.state.": "observation_encoder.net.",
    "_task_emb.": "observation_encoder.embedding.",
    "_dynamics.": "dynamics_model.net.",
    "_reward.": "decoder_module.reward.",
    "_termination.": "decoder_module.termination.",
    "_pi.": "policy.net.",
    "_Qs.params.": "q.layers.",
    "_target_Qs_params.": "target_q.layers.",
}
_PIXELS = "_encoder.rgb."
_PIXEL_OFFSET = 2
"""Their convolutions come after the random shift and the scaling of pixels."""
_UNUSED = re.compile(
    r"_detach_Qs_params\.|log_std_(min|dif)$|.*\.__(batch_size|device)$|_action_masks$"
)
_FLAT = re.compile(r"_(target_)?Qs\.params\.(\d+)$")
_PARTS = ("weight", "bias", "ln.weight", "ln.bias")


def our_name(name: str) -> str:
    """Our name of their parameter."""
    if name.startswith(_PIXELS):
        index, _, part = name.removeprefix(_PIXELS).partition(".")
        return f"observation_encoder.net.{int(index) - _PIXEL_OFFSET}.{part}"
    for theirs, ours in _NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise StorageError(
        f"{name!r} is no parameter of TD-MPC2 as published. The file holds another model."
    )


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The named weights of an official `.pt` file; nothing in it is executed."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise StorageError(f"{path} is no readable TD-MPC2 checkpoint: {error}") from error
    found = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(found, Mapping):
        kind = type(content).__name__
        raise StorageError(f"{path} holds a {kind}, expected named weights, or those as 'model'.")
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def converted(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their weights under our names, of the current format and of the one before."""
    found = {_current(name): value for name, value in weights.items()}
    return {our_name(name): value for name, value in found.items() if not _UNUSED.match(name)}


def inferred_config(weights: Mapping[str, Tensor], base: ModelConfig | None = None) -> ModelConfig:
    """The sizes of a checkpoint; all else, such as the episode length, is as in `base`."""
    base, ours = base or ModelConfig(), converted(weights)
    hidden, q = ours["dynamics_model.net.0.weight"], ours["q.layers.2.weight"]
    sizes: dict[str, object] = {
        "latent_dim": ours["dynamics_model.net.2.weight"].shape[0],
        "mlp_dim": hidden.shape[0],
        "num_q": q.shape[0],
        "bins": q.shape[1],
        "episodic": "decoder_module.termination.0.weight" in ours,
    }
    layers = sorted(k for k in ours if re.fullmatch(r"observation_encoder\.net\.\d+\.ln\.bias", k))
    if layers:
        sizes |= {"enc_dim": ours[layers[0]].shape[0], "enc_layers": len(layers)}
    embedding = ours.get("observation_encoder.embedding.weight")
    if embedding is not None:
        sizes |= {"task_dim": embedding.shape[1]}
        if not base.tasks:
            sizes["tasks"] = _tasks(weights, embedding.shape[0], base.lengths[0])
    return base.with_(**sizes)


def world_model(weights: Mapping[str, Tensor], base: ModelConfig | None = None) -> TDMPC2WorldModel:
    """The world model that a checkpoint's weights belong to, with those weights."""
    config, ours = inferred_config(weights, base), converted(weights)
    embed = config.task_dim if config.tasks else 0
    first = ours["observation_encoder.net.0.weight"]
    if first.ndim == 4:
        image = TensorSpec((first.shape[1], 64, 64), "uint8", 0, 255)
        obs_spec = {"image": image}
    else:
        obs_spec = {"state": TensorSpec((first.shape[1] - embed,))}
    if config.tasks:
        obs_spec["task"] = TensorSpec((), "int64", n=len(config.tasks))
    action = ours["policy.net.2.bias"].shape[0] // 2
    action_spec = {"action": TensorSpec((action,), low=-1.0, high=1.0)}
    model = TDMPC2WorldModel(TDMPC2Config(model=config), obs_spec, action_spec)
    load_weights(model, weights)
    return model


def load_weights(model: TDMPC2WorldModel, weights: Mapping[str, Tensor]) -> None:
    """Put a checkpoint's weights into `model`; every name and shape must fit."""
    ours, own = converted(weights), dict(model.named_parameters())
    odd = sorted(own.keys() ^ ours.keys())
    if odd:
        where = "the model" if odd[0] in own else "the checkpoint"
        raise StorageError(f"Only {where} has {odd[0]!r}: the checkpoint is of another kind.")
    with torch.no_grad():
        for name, parameter in own.items():
            if parameter.shape != ours[name].shape:
                raise StorageError(
                    f"{name!r} has shape {tuple(ours[name].shape)} in the checkpoint and "
                    f"{tuple(parameter.shape)} in the model: choose the preset it was trained with."
                )
            parameter.copy_(ours[name])


def _current(name: str) -> str:
    """The older format numbers the ensemble's tensors; the newer one names them."""
    match = _FLAT.match(name)
    if match is None:
        return name
    layer, part = divmod(int(match[2]), len(_PARTS))
    return f"{'_target_Qs_params' if match[1] else '_Qs.params'}.{layer}.{_PARTS[part]}"


def _tasks(weights: Mapping[str, Tensor], count: int, length: int) -> tuple[Task, ...]:
    """Tasks without names; how many action dimensions each uses, where the checkpoint tells."""
    masks = weights.get("_action_masks")
    if masks is None:
        raise StorageError(
            f"This checkpoint of {count} tasks does not hold their action masks: give the tasks, "
            "in their order, as `base.tasks`."
        )
    used = masks.sum(-1).int().tolist()
    return tuple(
        Task(name=f"task{i}", action_dim=size, episode_length=length) for i, size in enumerate(used)
    )
