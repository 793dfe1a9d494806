"""Equality with the published implementation, tensor by tensor (see `diamond.md` by the file)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.actor_critic import lambda_returns
from worldflux.nn.diffusion import edm
from worldflux_diamond.diamond import dreams
from worldflux_diamond.diamond.agent import DiamondAgent
from worldflux_diamond.diamond.blocks import Fourier
from worldflux_diamond.diamond.denoiser import Denoiser
from worldflux_diamond.diamond.losses import actor_critic_losses
from worldflux_diamond.diamond.reference import our_name
from worldflux_diamond.diamond.unet import UNet
from worldflux_diamond.diamond.world_model import pixels

SURE = 1e4  # a draw of this size decides a choice


def one_hot(index: Tensor, n: int = 4) -> Tensor:
    return F.one_hot(index, n).float()


def batch_of(given: dict[str, Tensor], frames: Tensor | None = None, **options: Any) -> Batch:
    """A Batch (B, T, ...) of their arrays."""
    obs = given["obs_u8"] if frames is None else frames
    none = torch.zeros(obs.shape[:2], dtype=torch.bool)
    found: dict[str, Any] = {
        "obs": {"image": obs}, "action": given["act"], "is_first": none, "is_last": none,
        "is_terminal": none, "reward": torch.zeros(obs.shape[:2]),
    }  # fmt: skip
    return Batch(**{**found, **options})


def gradients(agent: DiamondAgent, loss: Tensor, keys: list[str]) -> Tensor:
    """Norms of the gradients of a loss, in the order of their parameters `keys`."""
    agent.zero_grad()
    loss.backward()
    named = dict(agent.named_parameters())
    found = [named[our_name(key)].grad for key in keys]
    return torch.stack([torch.zeros(()) if x is None else x.norm() for x in found])


@pytest.fixture
def denoiser(golden_agent: DiamondAgent) -> Denoiser:
    return golden_agent.world_model.dynamics_model.denoiser


def test_scales_levels_and_quantisation(golden: Any, denoiser: Denoiser) -> None:
    by = denoiser.conditioners(golden.tensors["in/cond/sigma"])
    for name in ("c_in", "c_out", "c_skip", "c_noise"):
        golden.check(f"cond/{name}", getattr(by, name))
    assert isinstance(denoiser.network.noise, Fourier)
    golden.check("cond/fourier", denoiser.network.noise(by.c_noise))
    for steps in (1, 3, 5):
        golden.check(f"sigmas/n{steps}", torch.tensor(edm.karras_sigmas(steps, 0.002, 5.0, 7)))
    golden.check("sigmas/n10", torch.tensor(edm.karras_sigmas(10, 0.01, 20.0, 5)))
    golden.check("quant/y", edm.quantised(golden.tensors["in/quant/x"]))


@pytest.mark.parametrize("case", ["model", "model_pad"])
def test_denoising(golden: Any, denoiser: Denoiser, case: str) -> None:
    given = golden.group(f"in/{case}")
    frames, actions = pixels(given["obs_u8"]), one_hot(given["act"])
    noise = edm.per_row(given["sigma"], given["noise"]) * given["noise"]
    noisy = pixels(given["next_u8"]) + noise
    by = denoiser.conditioners(given["sigma"])
    output = denoiser.output(noisy, by, frames, actions)
    found = denoiser.denoise(noisy, given["sigma"], frames, actions)
    golden.check(f"{case}/cond_vector", denoiser.network.condition(by.c_noise, actions))
    golden.check(f"{case}/noisy", noisy)
    golden.check(f"{case}/model_output", output)
    golden.check(f"{case}/denoised_prequant", edm.denoised(output, noisy, by))
    golden.check(f"{case}/denoised", found)
    golden.check(f"{case}/denoised_u8", ((found + 1) / 2 * 255).round().to(torch.uint8))


def test_unet(golden: Any, denoiser: Denoiser) -> None:
    unet, given = denoiser.network.unet, golden.group("in/unet")
    assert isinstance(unet, UNet)
    y, down, up = unet.traced(given["x"], given["cond"])
    golden.check("unet/y", y)
    for name, levels in (("d", down), ("u", up)):
        means = [image.abs().mean() for level in levels for image in level]
        golden.check(f"unet/{name}_absmean", torch.stack(means))


@pytest.mark.parametrize("steps", [1, 2])
def test_denoiser_loss(golden: Any, golden_agent: DiamondAgent, steps: int) -> None:
    case, model = f"loss{steps}", golden_agent.world_model
    given, denoiser = golden.group(f"in/{case}"), model.dynamics_model.denoiser
    names = {"sigma": "sigma_eps", "offset": "offset_noise", "noise": "noise"}
    forced = {
        f"denoiser/{ours}": torch.stack([given[f"{theirs}{i}"] for i in range(steps)])
        for ours, theirs in names.items()
    }
    batch = batch_of(given, mask=given["mask_padding"], context=4)
    rand = Rand(draws=forced)
    loss = model.loss(batch, "denoiser", rand=rand).loss
    rand.check_used()
    golden.check(f"{case}/loss", loss)
    keys = golden.config["grad_keys"][case]
    golden.check(f"{case}/grad_norms", gradients(golden_agent, loss, keys))
    # the same, step by step
    frames, actions = pixels(given["obs_u8"]), one_hot(given["act"])
    for i in range(steps):
        now, past = Rand(draws=forced, prefix="denoiser/").at(i), frames[:, i : i + 4]
        noisy, sigma = denoiser.noisy(frames[:, i + 4], now)
        by = denoiser.conditioners(sigma)
        target = edm.network_target(frames[:, i + 4], noisy, by)
        error, made = denoiser.loss_step(frames[:, i + 4], past, actions[:, i : i + 4], now)
        golden.check(f"{case}/sigma{i}", sigma)
        golden.check(f"{case}/noisy{i}", noisy)
        golden.check(f"{case}/target{i}", target)
        output = denoiser.output(noisy, by, past, actions[:, i : i + 4])
        golden.check(f"{case}/model_output{i}", output)
        golden.check(f"{case}/denoised{i}", made)
        golden.check(f"{case}/loss_step{i}", error[given["mask_padding"][:, i + 4]].mean())
        frames = torch.cat([frames[:, : i + 4], made[:, None], frames[:, i + 5 :]], 1)


@pytest.mark.parametrize("case", ["euler", "heun", "churn"])
def test_samplers(golden: Any, golden_agent: DiamondAgent, case: str) -> None:
    """Through `transition`, with the sampler of the configuration."""
    settings = dict(golden.config["samplers"][case])
    settings["steps"] = settings.pop("num_steps_denoising")
    given, network = golden.group(f"in/sample_{case}"), golden_agent.world_model.dynamics_model
    config = network.denoiser.config.with_(**settings)
    denoiser = Denoiser(config, network.denoiser.network)
    forced = {}
    if case == "churn":
        forced["churn"] = torch.stack([given["eps0"], given["eps1"]])
    frames, actions = pixels(given["obs_u8"]), one_hot(given["act"])
    rand = Rand(draws=forced)
    path = denoiser.sample(given["x0"], frames, actions, rand)
    rand.check_used()
    golden.check(f"sample_{case}/x", path[-1])
    golden.check(f"sample_{case}/trajectory", torch.stack(path))


def test_sampling_is_the_transition(golden: Any, golden_agent: DiamondAgent) -> None:
    given, model = golden.group("in/sample_euler"), golden_agent.world_model
    batch = batch_of(given, context=3)
    state = model.observe_sequence(batch).at(-1)
    after = model.transition(state, given["act"][:, -1], rand=Rand(draws={"noise": given["x0"]}))
    golden.check("sample_euler/x", after["frames"][:, -1])


def _remembered(golden: Any, agent: DiamondAgent, memory: dict[str, Tensor]) -> State:
    """The States of their frames, observed one after the other, from a memory (B, D)."""
    given, model = golden.group("in/rew_end"), agent.world_model
    frames = given["obs_u8"]
    start = model.encode({"image": frames[:, 0]}).with_(memory)
    batch = batch_of({"act": F.pad(given["act"], (0, 1))}, frames)
    following = batch.map(lambda x: x[:, 1:])
    dynamics = model.dynamics_model
    features = State({"frame": pixels(following.obs["image"])})
    return dynamics.observe_sequence(start, one_hot(given["act"]), features, following.is_first)


def test_reward_and_end(golden: Any, golden_agent: DiamondAgent) -> None:
    given = golden.group("in/rew_end")
    memory = {"reward.h": given["h0"][0], "reward.c": given["c0"][0]}
    seen = _remembered(golden, golden_agent, memory)
    golden.check("rew_end/logits_rew", seen["reward_logits"])
    golden.check("rew_end/logits_end", seen["end_logits"])
    golden.check("rew_end/h", seen["reward.h"][:, -1])
    golden.check("rew_end/c", seen["reward.c"][:, -1])
    seen = _remembered(golden, golden_agent, {})
    golden.check("rew_end/logits_rew_zero_state", seen["reward_logits"])
    golden.check("rew_end/logits_end_zero_state", seen["end_logits"])
    part = golden_agent.world_model.dynamics_model.reward_end
    frames = pixels(given["obs_u8"])
    pair = torch.cat([frames[:, 0], frames[:, 1]], 1)
    cond = part.action(one_hot(given["act"][:, 0]))
    golden.check("rew_end/encoder", part.encoder(pair, cond))


def test_reward_and_end_loss(golden: Any, golden_agent: DiamondAgent) -> None:
    """Their step has the reward and end of its action; ours arrive with the frame it led to."""
    given = golden.group("in/rew_end_loss")
    held = given["mask_padding"].clone()
    held[:, 1:] |= given["mask_padding"][:, :-1]
    frames = given["obs_u8"].clone()
    frames[0, 3] = given["final_obs_u8"][0]
    end = F.pad(given["end"][:, :-1], (1, 0)).bool()
    batch = batch_of(
        given, frames, mask=held, reward=F.pad(given["rew"][:, :-1], (1, 0)), is_terminal=end,
        is_last=end,
    )  # fmt: skip
    found = golden_agent.world_model.loss(batch, "reward_end")
    golden.check("rew_end_loss/loss", found.loss)
    golden.check("rew_end_loss/loss_rew", found.components["reward"])
    golden.check("rew_end_loss/loss_end", found.components["end"])
    keys = golden.config["grad_keys"]["rew_end_loss"]
    golden.check("rew_end_loss/grad_norms", gradients(golden_agent, found.loss, keys))


def test_policy_and_value(golden: Any, golden_agent: DiamondAgent) -> None:
    given, actor = golden.group("in/ac"), golden_agent.actor
    frames, memory = pixels(given["obs_u8"]), (given["h0"], given["c0"])
    golden.check("ac/encoder", actor.encoder(frames[:, 0]))
    found: dict[str, list[Tensor]] = {"logits": [], "values": [], "h": [], "c": []}
    for t in range(frames.shape[1]):
        logits, value, memory = actor(frames[:, t], memory)
        for name, x in zip(found, (logits, value, *memory), strict=True):
            found[name].append(x)
    for name, steps in found.items():
        golden.check(f"ac/{name}", torch.stack(steps, 1))


def test_returns(golden: Any) -> None:
    given = golden.group("in/lambda")
    for lam in (0.0, 0.95, 1.0):
        found = lambda_returns(
            given["rew"].sign(), given["end"], given["val_bootstrap"], 0.985, lam, given["trunc"]
        )
        golden.check(f"lambda/returns_lambda_{lam}", found)


def _check_losses(golden: Any, case: str, total: Tensor, found: dict[str, Tensor]) -> None:
    golden.check(f"{case}/loss_actions", found["loss/policy"])
    golden.check(f"{case}/loss_entropy", found["loss/entropy"])
    golden.check(f"{case}/loss_values", found["loss/value"])
    golden.check(f"{case}/loss_total", total)


def test_actor_critic_loss(golden: Any, golden_agent: DiamondAgent) -> None:
    given = {**golden.group("in/lambda"), **golden.group("in/ac_loss")}
    logits, value = given["logits_act"].requires_grad_(), given["val"].requires_grad_()
    steps = dreams.Dreamt(
        logits=logits, action=given["act"], value=value, next_value=given["val_bootstrap"],
        reward=given["rew"], ended=given["end"].bool(), cut=given["trunc"].bool(),
        live=torch.ones_like(given["end"]).bool(), frame=torch.zeros(()),
    )  # fmt: skip
    total, found = actor_critic_losses(golden_agent.config.agent, steps)
    _check_losses(golden, "ac_loss", total, found)
    golden.check("ac_loss/policy_entropy", found["entropy_bits"])
    total.backward()
    golden.check("ac_loss/grad_logits", logits.grad)
    golden.check("ac_loss/grad_val", value.grad)


def _forced(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their draws, the step first: the choice that is drawn wins by far."""
    chosen = {
        "action": one_hot(given["act"]), "reward": one_hot(given["rew_class"], 3),
        "end": one_hot(given["end"], 2),
    }  # fmt: skip
    forced = {name: SURE * x.transpose(0, 1) for name, x in chosen.items()}
    return {f"imagined/{k}": x for k, x in {**forced, "noise": given["x0"].transpose(0, 1)}.items()}


def test_imagination(golden: Any, golden_agent: DiamondAgent) -> None:
    """A whole update's loss: dreams end, are cut off, and begin anew from the next histories."""
    given, agent = golden.group("in/imagine"), golden_agent
    pool = batch_of({"act": given["init_act"]}, given["init_obs_u8"], context=3)
    everything = dreams.starts(agent.world_model, agent.actor, pool, Rand())
    golden.check("imagine/init_h", everything["reward.h"])
    golden.check("imagine/init_c", everything["reward.c"])
    # The first two begin with an empty memory, as nothing else does.
    zeros = torch.zeros_like(everything["actor.h"])
    first = everything.with_({"actor.h": zeros, "actor.c": zeros}).rows(slice(2)).detach()
    rows = {"pool": replace(pool.map(lambda x: x[2:]), context=3), "dreams": first}
    rand = Rand(draws=_forced(given))
    steps, _ = agent._dreamt(rows, rand)
    flips = 3 / steps.frame.numel()
    differ = (steps.frame - golden.tensors["out/imagine/obs"]).abs()
    assert differ.max() < 0.008 and (differ > 1e-6).float().mean() <= flips
    golden.check("imagine/obs", steps.frame, atol=0.008)
    golden.check("imagine/rew", steps.reward)
    golden.check("imagine/trunc", steps.cut.long())
    golden.check("imagine/logits_act", steps.logits)
    golden.check("imagine/val", steps.value)
    golden.check("imagine/val_bootstrap", steps.next_value)
    c = agent.config.agent
    returns = lambda_returns(
        steps.reward, steps.ended, steps.next_value, c.gamma, c.lam, cut=steps.cut
    )
    golden.check("imagine/lambda_returns", returns)
    total, found = agent._behaviour(rows, rand)
    rand.check_used()
    _check_losses(golden, "imagine", total, found)
    keys = golden.config["grad_keys"]["imagine"]
    golden.check("imagine/grad_norms", gradients(agent, total, keys))
    assert found["dreams/masked"] == 0 and math.isfinite(float(total.detach()))


def test_every_output_was_compared(golden: Any, request: pytest.FixtureRequest) -> None:
    """Runs last: with the whole file, no output of theirs is left out."""
    ran = [item.name for item in request.session.items if item.path == request.path]
    if len(ran) < 14:
        pytest.skip("only a part of this file runs")
    assert golden.outputs == golden.checked, sorted(golden.outputs - golden.checked)
