"""Losses, distributions and the optimiser against the published implementation's numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from worldflux.nn.norms import RMSNorm
from worldflux.nn.symlog import symexp, symlog
from worldflux.nn.two_hot import symexp_bins, two_hot, two_hot_cross_entropy, two_hot_mean
from worldflux_dreamer import categorical as choices
from worldflux_dreamer import shared_losses
from worldflux_dreamer.dreamerv3 import losses
from worldflux_dreamer.dreamerv3.behavior import Critics, Imagined, imagination_losses, replay_loss
from worldflux_dreamer.dreamerv3.config import AgentConfig
from worldflux_dreamer.dreamerv3.optim import LaProp, agc_factors
from worldflux_dreamer.dreamerv3.policy import BoundedNormal, Categoricals
from worldflux_dreamer.dreamerv3.returns import ReturnNorm
from worldflux_dreamer.layers import BlockLinear

Outputs = dict[str, Tensor]


def rmsnorm(golden, x: Outputs) -> Outputs:
    norm = RMSNorm(len(x["scale"]), golden.config["norm_eps"])
    norm.load_state_dict({"scale": x["scale"]})
    return {"y": norm(x["x"])}


def blocklinear(golden, x: Outputs) -> Outputs:
    blocks, size_in, size_out = x["kernel"].shape
    layer = BlockLinear(blocks * size_in, blocks * size_out, blocks)
    layer.load_state_dict({"kernel": x["kernel"], "bias": x["bias"]})
    return {"y": layer(x["x"])}


def twohot(golden, x: Outputs) -> Outputs:
    bins = symexp_bins(golden.config["bins"])
    log_probs = torch.log_softmax(x["logits"], -1)
    return {
        "bins": bins,
        "loss": two_hot_cross_entropy(log_probs, x["values"], bins),
        "target": two_hot(x["values"], bins),
        "pred": two_hot_mean(x["pred_logits"], bins),
    }


def normal(golden, x: Outputs) -> Outputs:
    dist = BoundedNormal(x["mean"], x["std"], x["mean"].shape[-1:])
    return {"logp": dist.log_prob(x["event"]), "entropy": dist.entropy()}


def categorical(golden, x: Outputs) -> Outputs:
    dist = Categoricals((losses.mixed_log_probs(x["logits"], 0.0),), single=True)
    return {"logp": dist.log_prob(x["event"]), "entropy": dist.entropy()}


def binary(golden, x: Outputs) -> Outputs:
    loss = shared_losses.binary_cross_entropy(x["logit"], x["target"])
    return {"loss": loss, "prob": torch.sigmoid(x["logit"])}


def kl(golden, x: Outputs) -> Outputs:
    unimix, free = golden.config["unimix"], golden.config["free_nats"]
    post, prior = x["post"].requires_grad_(), x["prior"].requires_grad_()
    dyn, rep = losses.kl_losses(post, prior, unimix, free)
    log_post, log_prior = (losses.mixed_log_probs(y, unimix) for y in (post, prior))
    (dyn_grad,) = torch.autograd.grad(dyn[1:].sum(), prior)
    (rep_grad,) = torch.autograd.grad(rep[1:].sum(), post)
    return {
        "kl": choices.categorical_kl(log_post, log_prior),
        "dyn": dyn,
        "rep": rep,
        "dyn_grad_prior": dyn_grad,
        "rep_grad_post": rep_grad,
        "ent_post": choices.categorical_entropy(log_post).sum(-1),
        "logp_post": log_post,
    }


def straight_through(golden, x: Outputs) -> Outputs:
    logits = golden["in/kl/post"].requires_grad_()
    probs = losses.mixed_probs(logits, golden.config["unimix"])
    sample = choices.straight_through(x["index"], probs)
    (grad,) = torch.autograd.grad(sample, logits, x["upstream"])
    return {"grad": grad}


def lambda_return(golden, x: Outputs) -> Outputs:
    discount, lam = 1 - 1 / golden.config["horizon"], golden.config["lam"]
    never = torch.zeros_like(x["rew"])
    replay = shared_losses.lambda_return(x["last"], x["term"], x["rew"], x["boot"], discount, lam)
    imag = shared_losses.lambda_return(never, x["softterm"], x["rew"], x["val"], 1.0, lam)
    return {"replay": replay, "imag": imag}


def retnorm(golden, x: Outputs) -> Outputs:
    norm = ReturnNorm(golden.dreamer_config().agent)
    rows = []
    for returns in x["x"]:
        norm.update(returns)
        rows.append((norm.low.clone(), norm.high.clone(), norm.low.clone(), norm.scale()))
    parts = zip(*rows, strict=True)
    names = ("lo", "hi", "offset", "scale")
    return {name: torch.stack(part) for name, part in zip(names, parts, strict=True)}


def _critics(golden, x: Outputs) -> Critics:
    bins = symexp_bins(golden.config["bins"])
    logits = x["value_logits"].requires_grad_()
    slow = two_hot_mean(x["slowvalue_logits"], bins)
    return Critics(logits, two_hot_mean(logits.detach(), bins), slow, bins)


def imag_loss(golden, x: Outputs) -> Outputs:
    config = golden.dreamer_config()
    norm = ReturnNorm(config.agent)
    norm.load_state_dict({"low": x["retnorm_lo"], "high": x["retnorm_hi"]})
    inputs = {k: v.requires_grad_() for k, v in x.items() if k.startswith("policy_")}
    if "policy_mean" in inputs:
        shape = inputs["policy_mean"].shape[-1:]
        policy = BoundedNormal(inputs["policy_mean"], inputs["policy_std"], shape)
    else:
        log_probs = losses.mixed_log_probs(inputs["policy_logits"], 0.0)
        policy = Categoricals((log_probs,), single=True)
    critics = _critics(golden, x)
    imagined = Imagined(x["act"], x["rew"], x["con"])
    terms, ret, metrics = imagination_losses(imagined, policy, critics, norm, config)
    (value_grad,) = torch.autograd.grad(terms["value"].mean(), critics.logits)
    grads = torch.autograd.grad(terms["policy"].mean(), list(inputs.values()))
    outputs = {
        **terms,
        "ret": ret,
        "retnorm_offset": norm.low,
        "retnorm_scale": norm.scale(),
        "weight": losses.imagination_weight(x["con"], 1.0),
        "grad_value_logits": value_grad,
    }
    outputs |= {f"grad_{name}": grad for name, grad in zip(inputs, grads, strict=True)}
    return outputs | {f"metric_{name}": value for name, value in metrics.items()}


def repl_loss(golden, x: Outputs) -> Outputs:
    critics = _critics(golden, x)
    config = golden.dreamer_config()
    loss, ret = replay_loss(x["last"], x["term"], x["rew"], x["boot"], critics, config)
    (grad,) = torch.autograd.grad(loss.mean(), critics.logits)
    return {"ret": ret, "repval": loss, "grad_value_logits": grad}


def opt(golden, x: Outputs) -> Outputs:
    names = sorted(name.removeprefix("param/") for name in x if name.startswith("param/"))
    start = [x[f"param/{name}"] for name in names]
    c = golden.config["opt"]
    steps = 1
    while f"grad{steps}/{names[0]}" in x:
        steps += 1
    grads = [[x[f"grad{step}/{name}"] for name in names] for step in range(1, steps)]
    norms = ([t.norm() for t in grads[1]], [t.norm() for t in start])
    clips = agc_factors(*norms, c["agc"], c["pmin"])
    clipped = zip(names, grads[1], clips, strict=True)
    outputs = {f"agc/{name}": grad * clip for name, grad, clip in clipped}
    default = AgentConfig()
    for case, lr, warmup in (("default", default.lr, default.warmup), ("fast", 1e-2, 2)):
        outputs |= _optimise(case, names, start, grads, {"lr": lr, "warmup": warmup, **c})
    return outputs


def _optimise(case: str, names, start, grads, settings) -> Outputs:
    betas = (settings.pop("beta1"), settings.pop("beta2"))
    params = [torch.nn.Parameter(tensor.clone()) for tensor in start]
    optimizer = LaProp(params, betas=betas, **settings)
    outputs = {}
    for step, given in enumerate(grads, 1):
        for param, grad in zip(params, given, strict=True):
            param.grad = grad.clone()
        optimizer.step()
        for name, param in zip(names, params, strict=True):
            outputs[f"{case}/update{step}/{name}"] = optimizer.last_update(param)
            outputs[f"{case}/param{step}/{name}"] = param.detach().clone()
    return outputs


GROUPS: dict[str, Callable[..., Outputs]] = {
    "rmsnorm": rmsnorm,
    "blocklinear": blocklinear,
    "symlog": lambda golden, x: {"y": symlog(x["x"])},
    "symexp": lambda golden, x: {"y": symexp(x["x"])},
    "twohot": twohot,
    "normal": normal,
    "categorical": categorical,
    "binary": binary,
    "kl": kl,
    "straight_through": straight_through,
    "lambda_return": lambda_return,
    "retnorm": retnorm,
    "imag_loss": imag_loss,
    "repl_loss": repl_loss,
    "opt": opt,
}


def test_golden_dreamer_maths(golden, maths_group):
    assert maths_group in GROUPS, f"no test knows the group {maths_group!r}"
    inputs = golden.under(f"in/{maths_group}")
    golden.check(maths_group, GROUPS[maths_group](golden, inputs), {})
