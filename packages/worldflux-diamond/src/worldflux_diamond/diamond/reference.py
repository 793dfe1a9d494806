"""Reads the published implementation's weights (eloialonso/diamond)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from worldflux.errors import StorageError
from worldflux_diamond.diamond.agent import DiamondAgent

_DYNAMICS = "world_model.dynamics_model."
_PARTS = (
    ("denoiser.inner_model.", f"{_DYNAMICS}denoiser.network."),
    ("rew_end_model.", f"{_DYNAMICS}reward_end."),
    ("actor_critic.encoder.encoder.", "actor.encoder."),
    ("actor_critic.critic_linear.", "actor.value."),
    ("actor_critic.actor_linear.", "actor.choice."),
    ("actor_critic.lstm.", "actor.lstm."),
)
_RULES = (
    (r"\.noise_emb\.", ".noise."),
    (r"\.act_emb\.(0\.)?", ".action."),
    (r"\.cond_proj\.", ".cond."),
    (r"\.d_blocks\.(\d+)\.resblocks\.", r".down.\1."),
    (r"\.u_blocks\.(\d+)\.resblocks\.", r".up.\1."),
    (r"\.mid_blocks\.resblocks\.", ".middle."),
    (r"\.blocks\.(\d+)\.resblocks\.", r".chains.\1."),
    (r"\.downsamples\.", ".shrink."),
    (r"\.upsamples\.", ".grow."),
    (r"\.(skip_projection|proj)\.", ".skip."),
    (r"\.attn\.norm\.norm\.", ".attention.norm."),
    (r"\.attn\.(qkv|out)_proj\.", r".attention.\1."),
    (r"\.norm_out\.norm\.", ".norm_out."),
    (r"\.f\.0\.norm\.", ".norm."),
    (r"\.f\.2\.", ".conv."),
    (r"(_[ih]h)_l0$", r"\1"),
)
_EMBEDDING = ".action.weight"


def our_name(name: str) -> str:
    """Our name of their parameter, of the agent."""
    for theirs, ours in _PARTS:
        if name.startswith(theirs):
            found = ours + name.removeprefix(theirs)
            for pattern, replacement in _RULES:
                found = re.sub(pattern, replacement, found)
            return found
    raise StorageError(
        f"{name!r} is no parameter of DIAMOND as published. The file holds another model."
    )


def our_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their named weights as ours, float32; an embedding is a matrix over one-hot choices."""
    found = {our_name(name): tensor.float() for name, tensor in weights.items()}
    return {k: x.T.contiguous() if k.endswith(_EMBEDDING) else x for k, x in found.items()}


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The named weights of an official agent's file; nothing in it is executed."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise StorageError(f"{path} is no readable DIAMOND checkpoint: {error}") from error
    if not isinstance(content, Mapping):
        raise StorageError(f"{path} holds a {type(content).__name__}, expected named weights.")
    return dict(content)


def load_weights(agent: DiamondAgent, weights: Mapping[str, Tensor]) -> None:
    """Put their named weights into `agent`, which has to have their sizes."""
    ours, own = our_weights(weights), agent.state_dict()
    wrong = [k for k, x in own.items() if k not in ours or ours[k].shape != x.shape]
    more = sorted(ours.keys() - own.keys())
    if wrong or more:
        name = (wrong or more)[0]
        shapes = [tuple(x[name].shape) if name in x else "none" for x in (ours, own)]
        raise StorageError(
            f"{len(wrong) + len(more)} tensors do not fit this agent, {name!r} first: the file "
            f"has {shapes[0]}, the agent {shapes[1]}. Give the agent the configuration of the file."
        )
    agent.load_state_dict(ours)
