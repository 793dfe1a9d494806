"""World model, heads, whole loss, gradients and optimiser steps against published numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.output import ModelOutput
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.slow import ema_update
from worldflux.nn.two_hot import two_hot_cross_entropy
from worldflux.specs import TensorSpec
from worldflux_dreamer import categorical, shared_losses
from worldflux_dreamer.dreamerv3 import losses
from worldflux_dreamer.dreamerv3.agent import DreamerV3Agent
from worldflux_dreamer.dreamerv3.networks import DreamerDecoder, Encoder, features
from worldflux_dreamer.dreamerv3.policy import BoundedNormal
from worldflux_dreamer.dreamerv3.reference import (
    decoder_entries,
    encoder_entries,
    entries,
    load_weights,
)
from worldflux_dreamer.dreamerv3.world_model import reconstruction_loss

Outputs = dict[str, Tensor]
BATCH_FIELDS = ("reward", "is_first", "is_last", "is_terminal")


def chw(value: Tensor) -> Tensor:
    """NHWC images as CHW; everything else as it is."""
    return value.movedim(-1, -3) if value.dtype == torch.uint8 else value


def recon(output: ModelOutput, key: str) -> Tensor:
    """The decoder's raw output as published: NHWC images, vectors in symlog space."""
    raw = output.aux.get(key)
    return output.predictions[key].movedim(-3, -1) if raw is None else raw


def one_hots(index: Tensor, golden) -> Tensor:
    return torch.nn.functional.one_hot(index, golden.config["classes"]).float()


def observed(golden, agent: DreamerV3Agent) -> Tensor:
    """Tokens (B, T, E) of the file's `enc` group."""
    obs = {key: chw(golden[f"in/enc/{key}"]) for key in agent.obs_spec}
    return agent.world_model.observation_encoder(obs)["embed"]


def enc(golden, agent: DreamerV3Agent) -> Outputs:
    return {"tokens": observed(golden, agent)}


def other_kind(golden, agent: DreamerV3Agent) -> Outputs:
    kind = golden.extra_kind()
    x = golden.under(f"in/{kind}")
    (key,) = x.keys() - {"deter", "stoch"}
    image = x[key].dtype == torch.uint8
    shape = x[key].shape[-3:] if image else x[key].shape[2:]
    spec = {key: _spec(shape, image)}
    model = golden.dreamer_config().model
    encoder, decoder = Encoder(model, spec), DreamerDecoder(model, spec)
    for part, found in (
        ("enc", encoder_entries("", encoder)),
        ("dec", decoder_entries("", decoder)),
    ):
        weights = {f"/{k}": v for k, v in golden.under(f"w/{kind}{part}").items()}
        load_weights({entry.name: entry for entry in found}, weights, part)
    state = State({"deter": x["deter"], "stoch": x["stoch"]})
    output = decoder(state, keys=[key])
    return {
        "tokens": encoder({key: chw(x[key])})["embed"],
        "recon": recon(output, key),
        "recon_loss": reconstruction_loss(output, key, chw(x[key]), spec[key]),
    }


def _spec(shape, image: bool) -> TensorSpec:
    if image:
        return TensorSpec((shape[2], shape[0], shape[1]), "uint8")
    return TensorSpec(tuple(shape))


def obs1(golden, agent: DreamerV3Agent) -> Outputs:
    x, model = golden.under("in/obs1"), agent.world_model
    state = State({"deter": x["deter"], "stoch": x["stoch"]})
    tokens = State({"embed": golden["out/enc/tokens"][:, 1]})
    rand = Rand(draws={"stoch": x["sample"]})
    action = model.condition(x["action"])
    new = model.dynamics_model.observe(state, action, tokens, x["is_first"], rand=rand)
    prior = model.dynamics_model.prior_logits(new["deter"])
    kept = {"deter": new["deter"], "stoch": new["stoch"]}
    return {**kept, "post_logit": new["posterior_logits"], "prior_logit": prior}


def seq(golden, agent: DreamerV3Agent) -> Outputs:
    x, model, c = golden.under("in/seq"), agent.world_model, agent.config.model
    state = State({"deter": x["deter"], "stoch": x["stoch"]})
    tokens = State({"embed": golden["out/enc/tokens"]})
    rand = Rand(draws={"stoch": x["sample"]})
    new = model.dynamics_model.observe_sequence(
        state, model.condition(x["action"]), tokens, x["is_first"], rand=rand
    )
    post, prior = new["posterior_logits"], new["prior_logits"]
    dyn, rep = losses.kl_losses(post, prior, c.unimix, c.free_nats)
    log_post, log_prior = (losses.mixed_log_probs(y, c.unimix) for y in (post, prior))
    return {
        "deter": new["deter"],
        "post_logit": post,
        "prior_logit": prior,
        "kl": categorical.categorical_kl(log_post, log_prior),
        "dyn": dyn,
        "rep": rep,
        "post_ent": categorical.categorical_entropy(log_post).sum(-1),
        "prior_ent": categorical.categorical_entropy(log_prior).sum(-1),
    }


def imagine(golden, agent: DreamerV3Agent) -> Outputs:
    x, model = golden.under("in/imagine"), agent.world_model
    start = State({"deter": x["deter"], "stoch": x["stoch"]})
    rand = Rand(draws={"stoch": x["sample"].transpose(0, 1)})
    path = State.stack(model.rollout(start, x["action"].transpose(0, 1), rand=rand).states[1:])
    return {"deter": path["deter"], "prior_logit": path["prior_logits"]}


def replayed(golden) -> State:
    """Latents of the file's `seq` group (B, T, ...)."""
    return State(
        {"deter": golden["out/seq/deter"], "stoch": one_hots(golden["in/seq/sample"], golden)}
    )


def dec(golden, agent: DreamerV3Agent) -> Outputs:
    (key,), state = agent.obs_spec, replayed(golden)
    output = agent.world_model.decode(state)
    target = chw(golden[f"in/enc/{key}"])
    loss = reconstruction_loss(output, key, target, agent.obs_spec[key])
    return {"recon": recon(output, key), "recon_loss": loss}


def heads(golden, agent: DreamerV3Agent) -> Outputs:
    x, c, state = golden.under("in/heads"), agent.config.model, replayed(golden)
    output, feat = agent.world_model.decode(state), features(state)
    logits, goes_on = output.aux["reward"], output.aux["continue"]
    target = losses.continue_target(x["is_terminal"], c.horizon, c.contdisc)
    rewards = torch.log_softmax(logits, -1)
    policy, value = agent.policy(feat), agent.value(feat)
    outputs = {
        "rew_logits": logits,
        "rew_pred": output.predictions["reward"],
        "rew_loss": two_hot_cross_entropy(rewards, x["reward"], agent.world_model.bins),
        "con_logit": goes_on,
        "con_prob": output.predictions["continue"],
        "con_target": target,
        "con_loss": shared_losses.binary_cross_entropy(goes_on, target),
        "pol_logp": policy.log_prob(x["action"]),
        "pol_ent": policy.entropy(),
        "val_logits": value,
        "val_pred": agent.value.mean(value),
        "slowval_pred": agent.slow_value.mean(agent.slow_value(feat)),
    }
    if isinstance(policy, BoundedNormal):
        return {**outputs, "pol_mean": policy.mean, "pol_std": policy.std}
    raw = agent.policy.logits(agent.policy.mlp(feat))
    return {**outputs, "pol_logits": raw, "pol_probs": torch.cat(policy.log_probs, -1).exp()}


def slow_ema(golden, agent: DreamerV3Agent) -> Outputs:
    ema_update(agent.slow_value, agent.value, agent.config.agent.slow_rate)
    return _published(agent, "slowval/")


def _published(agent: DreamerV3Agent, under: str = "") -> Outputs:
    found = entries(agent).items()
    return {k.removeprefix(under): e.published().clone() for k, e in found if k.startswith(under)}


def full_batch(golden, agent: DreamerV3Agent) -> tuple[Batch, Rand]:
    """The `full` group's data as replay gives it: one context step, and forced draws."""
    x = golden.under("in/full")
    before = {key: torch.zeros_like(x[key][:, :1]) for key in (*BATCH_FIELDS, *agent.obs_spec)}
    padded = {key: torch.cat([pad, x[key]], 1) for key, pad in before.items()}
    after = torch.zeros_like(x["prevact"][:, :1])
    batch = Batch(
        obs={key: chw(padded[key]) for key in agent.obs_spec},
        action=torch.cat([x["prevact"], after], 1),
        context=1,
        stored={"deter": x["deter"][:, None], "stoch": x["stoch"].argmax(-1)[:, None]},
        **{key: padded[key] for key in BATCH_FIELDS},
    )
    agent.return_norm.low.copy_(x["retnorm_lo"])
    agent.return_norm.high.copy_(x["retnorm_hi"])
    draws = {
        "stoch": x["post_sample"],
        "imagined/stoch": x["img_sample"].transpose(0, 1),
        "imagined/action": x["img_act"].transpose(0, 1),
    }
    return batch, Rand(draws=draws)


def full(golden, agent: DreamerV3Agent) -> Outputs:
    batch, rand = full_batch(golden, agent)
    found = agent.losses(batch, rand)
    rand.check_used()
    found.total.backward()
    grads = {name: _gradient(entry) for name, entry in entries(agent).items()}
    grads = {name: grad for name, grad in grads.items() if grad is not None}
    modules = sorted({name.split("/")[0] for name in grads})
    outputs = {
        "total": found.total,
        "img_feat_deter": found.outputs["deter"],
        "img_rew": found.outputs["reward"],
        "img_con": found.outputs["going_on"],
        "img_val": found.outputs["value"],
        "img_slowval": found.outputs["slow_value"],
        "img_ret": found.outputs["return"],
        "replay_ret": found.outputs["replay_return"],
        "retnorm_lo": agent.return_norm.low,
        "retnorm_hi": agent.return_norm.high,
        "gradnorm_total": _norm(grads, ""),
    }
    outputs |= {f"loss/{name}": term for name, term in found.terms.items()}
    outputs |= {f"grad/{name}": grad for name, grad in grads.items()}
    outputs |= {f"gradnorm/{name}": grad.norm() for name, grad in grads.items()}
    return outputs | {f"gradnorm_module/{name}": _norm(grads, f"{name}/") for name in modules}


def _gradient(entry) -> Tensor | None:
    grad = entry.tensor.grad
    if grad is None:
        return None
    return grad.permute(2, 3, 1, 0) if entry.image else grad


def _norm(grads: Outputs, under: str) -> Tensor:
    return torch.stack([g.norm() for name, g in grads.items() if name.startswith(under)]).norm()


def train(golden, agent: DreamerV3Agent) -> Outputs:
    batch, rand = full_batch(golden, agent)
    before, outputs, step = _published(agent), {}, 1
    while f"out/train/total{step}" in golden.tensors:
        metrics = agent.update(batch, "train", rand=rand).metrics
        outputs[f"total{step}"] = metrics["loss"]
        terms = {key: value for key, value in metrics.items() if key.startswith("loss/")}
        outputs |= {f"loss{step}/{key.removeprefix('loss/')}": x for key, x in terms.items()}
        step += 1
    for name, value in _published(agent).items():
        outputs[f"deltanorm/{name}"] = (value - before[name]).norm()
    return outputs


GROUPS: dict[str, Callable[..., Outputs]] = {
    "enc": enc,
    "obs1": obs1,
    "seq": seq,
    "imagine": imagine,
    "dec": dec,
    "heads": heads,
    "slow_ema": slow_ema,
    "full": full,
    "train": train,
}
# After optimiser steps an element with a vanishing gradient moves by an undetermined sign.
SLACK = {"train": {"total2": 10, "total3": 10, "loss2": 10, "loss3": 10, "deltanorm": 10}}


def test_golden_dreamer_agent(golden, agent_group):
    torch.manual_seed(0)
    compute = GROUPS.get(agent_group, other_kind)
    outputs = compute(golden, golden.agent())
    golden.check(agent_group, outputs, SLACK.get(agent_group, {}))
