"""Reads the published implementation's checkpoints (eloialonso/iris), tokenizer to actor."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from worldflux.errors import StorageError
from worldflux_iris.published import Place, load

_ENCODER, _DECODER = "world_model.observation_encoder.", "world_model.decoder_module."
_DYNAMICS = "world_model.dynamics_model."
_RULES: tuple[tuple[str, str], ...] = (
    (r"tokenizer\.embedding\.weight", _ENCODER + "quantizer.codebook"),
    (r"tokenizer\.pre_quant_conv\.", _ENCODER + "net.project."),
    (r"tokenizer\.post_quant_conv\.", _DECODER + "net.project."),
    (r"tokenizer\.encoder\.down\.(\d+)\.downsample\.conv\.", _ENCODER + r"net.down.\1."),
    (r"tokenizer\.encoder\.down\.(\d+)\.", _ENCODER + r"net.levels.\1."),
    (r"tokenizer\.encoder\.", _ENCODER + "net."),
    (r"tokenizer\.decoder\.up\.(\d+)\.upsample\.conv\.", _DECODER + r"net.up.@\1."),
    (r"tokenizer\.decoder\.up\.(\d+)\.", _DECODER + r"net.levels.@\1."),
    (r"tokenizer\.decoder\.", _DECODER + "net."),
    (r"world_model\.pos_emb\.", _DYNAMICS + "transformer.positions."),
    (r"world_model\.transformer\.ln_f\.", _DYNAMICS + "transformer.norm."),
    (r"world_model\.transformer\.", _DYNAMICS + "transformer."),
    (r"world_model\.embedder\.embedding_tables\.0\.", "world_model.action_conditioner.table."),
    (r"world_model\.embedder\.embedding_tables\.1\.", _DYNAMICS + "words."),
    (r"world_model\.head_observations\.head_module\.", _DYNAMICS + "token."),
    (r"world_model\.head_rewards\.head_module\.", _DYNAMICS + "sign."),
    (r"world_model\.head_ends\.head_module\.", _DYNAMICS + "end."),
    (r"actor_critic\.lstm\.", "actor.lstm."),
    (r"actor_critic\.actor_linear\.", "actor.policy."),
    (r"actor_critic\.critic_linear\.", "actor.value."),
)
_INNER: tuple[tuple[str, str], ...] = (
    (".block.", ".blocks."),
    (".attn.0.", ".attention.0."),
    (".attn.1.", ".attention.1."),
    (".attn.2.", ".attention.2."),
    (".attn.3.", ".attention.3."),
    (".mid.block_1.", ".middle.before."),
    (".mid.block_2.", ".middle.after."),
    (".mid.attn_1.", ".middle.attention."),
    (".attn.", ".attention."),
    (".conv_in.", ".first."),
    (".conv_out.", ".last."),
    (".norm_out.", ".norm."),
    (".nin_shortcut.", ".side."),
    (".proj_out.", ".out."),
    (".proj.", ".out."),
    (".ln1.", ".norm1."),
    (".ln2.", ".norm2."),
    (".mlp.0.", ".wide."),
    (".mlp.2.", ".narrow."),
)
_CONV = re.compile(r"actor_critic\.conv(\d)\.(.*)")
_UNUSED = re.compile(
    r".*\.attn\.mask$|.*\.head_\w+\.indices$|.*head_\w+\.indices$|tokenizer\.lpips\."
)
_THIRDS = {"q": 0, "query": 0, "k": 1, "key": 1, "v": 2, "value": 2}
_THIRD = re.compile(r"\.(q|k|v|query|key|value)\.(weight|bias)$")


def place(name: str, levels: int) -> Place:
    """Where their parameter is; `levels` are those of the tokenizer (their decoder counts back)."""
    conv = _CONV.fullmatch(name)
    if conv is not None:
        return Place(f"actor.convs.{int(conv[1]) - 1}.{conv[2]}", None)
    for pattern, ours in _RULES:
        found, count = re.subn(f"^{pattern}", ours, name)
        if count:
            break
    else:
        raise StorageError(f"{name!r} is no parameter of IRIS as published: another kind of file.")
    found = re.sub(r"@(\d+)", lambda match: str(levels - 1 - int(match[1])), found)
    for theirs, ours in _INNER:
        found = found.replace(theirs, ours)
    third = _THIRD.search(found)
    if third is None or ".attention" not in found:
        return Place(found, None)
    return Place(_THIRD.sub(r".qkv.\2", found), _THIRDS[third[1]])


def load_weights(agent: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put a checkpoint's weights into an `IRISAgent`; every name and shape must fit."""
    levels = 1 + max(
        (
            int(m[1])
            for m in (re.match(r"tokenizer\.encoder\.down\.(\d+)", n) for n in weights)
            if m
        ),
        default=0,
    )
    load(agent, weights, lambda name: None if _UNUSED.match(name) else place(name, levels))
