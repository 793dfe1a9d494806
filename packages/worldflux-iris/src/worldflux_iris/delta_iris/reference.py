"""Reads the published implementation's weights (vmicheli/delta-iris), tokenizer to target."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from worldflux.errors import StorageError
from worldflux_iris.published import Place, load

_DYNAMICS = "world_model.dynamics_model."
_TOKENIZER = _DYNAMICS + "tokenizer."
_RULES: tuple[tuple[str, str], ...] = (
    (r"tokenizer\.encoder_act_emb\.", _TOKENIZER + "encoder_action."),
    (r"tokenizer\.decoder_act_emb\.", _TOKENIZER + "decoder_action."),
    (r"tokenizer\.quantizer\.pre_quant_proj\.", _TOKENIZER + "project."),
    (r"tokenizer\.quantizer\.post_quant_proj\.", _TOKENIZER + "restore."),
    (r"tokenizer\.quantizer\.codebook$", _TOKENIZER + "quantizer.codebook"),
    (r"tokenizer\.quantizer\.codewords_freqs$", _TOKENIZER + "quantizer.used"),
    (r"tokenizer\.quantizer\.num_codebook_updates$", _TOKENIZER + "quantizer.moves"),
    (r"tokenizer\.encoder\.encoder\.", _TOKENIZER + "encoder."),
    (r"tokenizer\.decoder\.decoder\.", _TOKENIZER + "decoder."),
    (r"tokenizer\.frame_cnn\.encoder\.", _TOKENIZER + "frame."),
    (r"world_model\.transformer\.pos_emb\.", _DYNAMICS + "transformer.positions."),
    (r"world_model\.transformer\.ln\.", _DYNAMICS + "transformer.norm."),
    (r"world_model\.transformer\.", _DYNAMICS + "transformer."),
    (r"world_model\.frame_cnn\.0\.encoder\.", _DYNAMICS + "context."),
    (r"world_model\.frame_cnn\.2\.", _DYNAMICS + "context_norm."),
    (r"world_model\.act_emb\.", _DYNAMICS + "actions."),
    (r"world_model\.latents_emb\.", _DYNAMICS + "words."),
    (r"world_model\.head_latents\.head_module\.", _DYNAMICS + "token."),
    (r"world_model\.head_rewards\.head_module\.", _DYNAMICS + "reward."),
    (r"world_model\.head_ends\.head_module\.", _DYNAMICS + "end."),
    (r"actor_critic\.model\.", "actor."),
    (r"actor_critic\.target_model\.", "target."),
)
_INNER: tuple[tuple[str, str], ...] = (
    (".sa.ln.", ".norm1."),
    (".sa.attention.proj.", ".attention.out."),
    (".sa.", ".attention."),
    (".mlp.ln.", ".norm2."),
    (".mlp.mlp.0.", ".wide."),
    (".mlp.mlp.2.", ".narrow."),
    (".f.0.", ".norm1."),
    (".f.2.", ".conv1."),
    (".f.3.", ".norm2."),
    (".f.5.", ".conv2."),
    (".skip_projection.", ".side."),
    (".cnn.0.encoder.", ".cnn."),
    (".actor_linear.", ".policy."),
    (".critic_linear.", ".value."),
    ("actor.actor_linear.", "actor.policy."),
)
_UNUSED = re.compile(r".*\.sa\.mask$|.*head_\w+\.indices$")
_THIRDS = {"query": 0, "key": 1, "value": 2}
_THIRD = re.compile(r"\.attention\.(query|key|value)\.(weight|bias)$")
_DOWN = re.compile(r"(\.(?:encoder|frame|context|cnn)\.\d+)\.conv\.")


def place(name: str) -> Place:
    """Where their parameter or buffer is."""
    for pattern, ours in _RULES:
        found, count = re.subn(f"^{pattern}", ours, name)
        if count:
            break
    else:
        raise StorageError(
            f"{name!r} is no parameter of Delta-IRIS as published: another kind of file."
        )
    for theirs, ours in _INNER:
        found = found.replace(theirs, ours)
    found = _DOWN.sub(r"\1.", found)  # a halving is a convolution itself
    third = _THIRD.search(found)
    if third is None:
        return Place(found, None)
    return Place(_THIRD.sub(r".attention.qkv.\2", found), _THIRDS[third[1]])


def load_weights(agent: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put published weights into a `DeltaIRISAgent`; every name and shape must fit."""
    load(agent, weights, lambda name: None if _UNUSED.match(name) else place(name))
