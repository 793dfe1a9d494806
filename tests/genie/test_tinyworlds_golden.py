"""Equality with AlmondGod/tinyworlds where ours is the same: FSQ and its unmasking schedule.

Its networks are others (norms after each part, FiLM in place of an action token, a decoder of
latent actions that sees the first frame alone): ours follow the paper, and are compared with
jasmine's. See `tinyworlds.md` by the file.
"""

from __future__ import annotations

from typing import Any

import torch

from worldflux_genie import maskgit
from worldflux_genie.config import QuantizerConfig
from worldflux_genie.quantize import FiniteScalarQuantizer


def quantizer(tinyworlds: Any) -> FiniteScalarQuantizer:
    c = tinyworlds.config
    return FiniteScalarQuantizer(
        QuantizerConfig(kind="fsq", levels=(c["num_bins"],) * c["latent_dim"])
    )


def test_scalars_are_rounded_numbered_and_passed_straight(tinyworlds: Any) -> None:
    given, fsq = tinyworlds.group("in/fsq"), quantizer(tinyworlds)
    z = given["z"].clone().requires_grad_()
    found = fsq(z)
    (grad,) = torch.autograd.grad((found.output * given["cotangent"]).sum(), [z])
    table = fsq.rows(torch.arange(fsq.codes))
    for name, value in (("q", found.output), ("indices", found.index), ("grad_z", grad),
                        ("table", table)):  # fmt: skip
        tinyworlds.check(f"fsq/{name}", value)
    assert set(tinyworlds.group("out/fsq")) == {"q", "indices", "grad_z", "table"}


def test_their_tokens_and_actions_are_ours(tinyworlds: Any) -> None:
    """Of their latents our quantizer gives their codes and numbers, in tokenizer and actions."""
    c, tok, lam = tinyworlds.config, tinyworlds.group("out/tok"), tinyworlds.group("out/lam")
    found = quantizer(tinyworlds)(tok["latents"])
    tinyworlds.check("tok/q", found.output)
    tinyworlds.check("tok/indices", found.index)
    two = QuantizerConfig(kind="fsq", levels=(2,) * c["action_dim"])
    tinyworlds.check("lam/q", FiniteScalarQuantizer(two)(lam["latents"]).output)
    assert FiniteScalarQuantizer(two).codes == c["n_actions"]
    inferred = tinyworlds.tensors["out/infer/indices"]
    tinyworlds.check("infer/latents", quantizer(tinyworlds).rows(inferred))


def test_their_schedule_is_our_exponential_one(tinyworlds: Any) -> None:
    c = tinyworlds.config["inference"]
    frames = tinyworlds.tensors["in/dyn/tokens"].shape
    assert c["schedule_k"] == maskgit.STEEPNESS
    counts = maskgit.committed("exponential", frames[-1] * c["horizon"], c["steps"])
    tinyworlds.check("infer/schedule", torch.tensor(counts))
