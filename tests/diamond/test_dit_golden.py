"""Equality of DiT with the published implementation, tensor by tensor (see `dit.md`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.nn.diffusion import betas, bounds
from worldflux.nn.diffusion.ddpm import DDPM
from worldflux.nn.diffusion.spacing import kept_steps
from worldflux.specs import TensorSpec
from worldflux_diamond.dit.config import DiTConfig
from worldflux_diamond.dit.learner import DiTLearner
from worldflux_diamond.dit.network import modulated, positions, time_waves
from worldflux_diamond.dit.reference import load_weights, our_name
from worldflux_diamond.dit.world_model import DiTWorldModel, labelled

WHOLE = DDPM(betas.linear_betas(1000))


def config_of(given: Mapping[str, Any], **agent: Any) -> DiTConfig:
    """Their configuration as ours."""
    model = {
        "patch": given["patch_size"], "width": given["hidden_size"], "depth": given["depth"],
        "heads": given["num_heads"], "expand": given["mlp_ratio"], "classes": given["num_classes"],
        "class_dropout": given["class_dropout_prob"], "learn_variance": given["learn_sigma"],
    }  # fmt: skip
    return DiTConfig.from_dict({"model": model, "agent": agent})


def learner_of(golden: Any, name: str, **agent: Any) -> DiTLearner:
    """Their model `dit` or `dit_plain`, with its weights."""
    given = golden.config[name]
    image = TensorSpec((given["in_channels"], given["input_size"], given["input_size"]))
    with torch.random.fork_rng(devices=[]):
        made = DiTLearner(config_of(given, **agent), {"latents": image})
    weights = golden.group("w")
    own = {k.removeprefix(f"{name}."): x for k, x in weights.items() if k.startswith(f"{name}.")}
    load_weights(made.world_model, own)
    made.averaged.load_state_dict(made.world_model.state_dict())
    return made


@pytest.fixture(scope="module")
def learner(golden_dit: Any) -> DiTLearner:
    return learner_of(golden_dit, "dit")


@pytest.fixture(scope="module")
def plain(golden_dit: Any) -> DiTLearner:
    return learner_of(golden_dit, "dit_plain")


def label_of(model: DiTWorldModel, y: Tensor) -> Tensor:
    """The embedding (B, D) of labels (B,)."""
    return model.condition(None, labelled(y))[:, : model.config.model.width]


def named(model: DiTWorldModel, keys: list[str]) -> list[Tensor | None]:
    """Our parameters in the order of their names; None for the fixed table of positions."""
    own = dict(model.named_parameters())
    names = [key.split(".", 1)[1] if key.startswith("dit") else key for key in keys]
    return [None if name == "pos_embed" else own[our_name(name)] for name in names]


def norms(tensors: list[Tensor | None]) -> Tensor:
    return torch.stack([torch.zeros(()) if x is None else x.norm() for x in tensors])


def grads(model: DiTWorldModel, keys: list[str]) -> Tensor:
    return norms([None if p is None else p.grad for p in named(model, keys)])


def test_positions_and_times(golden_dit: Any, learner: DiTLearner) -> None:
    for width, side in ((48, 4), (32, 6), (16, 3)):
        golden_dit.check(f"pos/d{width}_g{side}", positions(width, side, side))
    golden_dit.check("pos/d16_g3_cls", positions(16, 3, 3, extra=1))
    t = golden_dit.tensors["in/time/t"]
    golden_dit.check("time/embedding", time_waves(t))
    golden_dit.check("time/embedding_odd", time_waves(t, 33))
    golden_dit.check("time/mlp", learner.world_model.dynamics_model.time(t))


def test_labels(golden_dit: Any, learner: DiTLearner, plain: DiTLearner) -> None:
    given, model = golden_dit.group("in/label"), learner.world_model
    y, none = given["y"], model.config.model.classes
    golden_dit.check("label/embedding", label_of(model, y))
    forced = torch.where(given["force_drop_ids"] == 1, none, y)
    golden_dit.check("label/embedding_forced", label_of(model, forced))
    batch = batch_of(torch.zeros(len(y), 4, 8, 8), y)
    drawn = model._labels(batch, Rand(draws={"drop": given["uniform"][:, None]}))
    assert drawn is not None
    golden_dit.check("label/embedding_train", label_of(model, drawn.extras["wf.data.label"]))
    golden_dit.check("label/embedding_plain", label_of(plain.world_model, given["y_plain"]))


def batch_of(x: Tensor, y: Tensor) -> Batch:
    """Latents (B, C, Y, X) and labels (B,) as episodes of one step."""
    yes = torch.ones(len(x), 1, dtype=torch.bool)
    return Batch({"latents": x[:, None]}, yes, yes, yes, extra={"label": y[:, None]})


@pytest.mark.parametrize("case", ["forward", "forward_plain"])
def test_forward_and_backward(
    golden_dit: Any, learner: DiTLearner, plain: DiTLearner, case: str
) -> None:
    given = golden_dit.group(f"in/{case}")
    model = (learner if case == "forward" else plain).world_model
    dynamics, network = model.dynamics_model, model.dynamics_model.network
    model.zero_grad()
    x = given["x"].clone().requires_grad_()
    condition = dynamics.time(given["t"]) + label_of(model, given["y"])
    tokens = network.tokens(x)
    golden_dit.check(f"{case}/tokens_in", tokens)
    golden_dit.check(f"{case}/condition", condition)
    for i, block in enumerate(network.blocks):
        tokens = block(tokens, condition)
        golden_dit.check(f"{case}/block{i}", tokens)
    out = dynamics.output(x, given["t"], label_of(model, given["y"]))
    golden_dit.check(f"{case}/out", out)
    (out * given["cotangent"]).sum().backward()
    golden_dit.check(f"{case}/grad_x", x.grad)
    golden_dit.check(f"{case}/grad_label_table", model.action_conditioner.table.weight.grad)
    golden_dit.check(f"{case}/grad_adaln0", network.blocks[0].modulation.weight.grad)
    keys = golden_dit.config["grad_keys"][case]
    golden_dit.check(f"{case}/grad_norms", grads(model, keys))


def halves(model: DiTWorldModel, y: Tensor) -> tuple[Tensor, Tensor]:
    """The embeddings (B, D) of labels and of none."""
    return model.condition(None, labelled(y)).chunk(2, -1)


def test_guidance(golden_dit: Any, learner: DiTLearner) -> None:
    given, model = golden_dit.group("in/cfg"), learner.world_model
    assert model.config.model.guidance == golden_dit.config["cfg_scale"]
    rows = len(given["t"])
    own = halves(model, given["y"][:rows])
    with torch.no_grad():
        found = model.dynamics_model.guided_output(given["x"][:rows], given["t"], *own)
    golden_dit.check("cfg/out", found)


TABLES = {
    "betas": "betas",
    "alphas_cumprod": "clean",
    "alphas_cumprod_prev": "clean_before",
    "sqrt_alphas_cumprod": "sqrt_clean",
    "sqrt_one_minus_alphas_cumprod": "sqrt_noisy",
    "log_one_minus_alphas_cumprod": "log_noisy",
    "sqrt_recip_alphas_cumprod": "inverse_clean",
    "sqrt_recipm1_alphas_cumprod": "inverse_noisy",
    "posterior_variance": "posterior",
    "posterior_log_variance_clipped": "log_posterior",
    "posterior_mean_coef1": "mean_data",
    "posterior_mean_coef2": "mean_noisy",
}


def test_schedules(golden_dit: Any) -> None:
    processes = {
        "linear1000": WHOLE,
        "linear250": DDPM(betas.linear_betas(250)),
        "cosine100": DDPM(betas.cosine_betas(100)),
        "respaced50": replace(WHOLE, spacing="50"),
        "respaced_ddim": replace(WHOLE, spacing="ddim5"),
    }
    for name, process in processes.items():
        for theirs, ours in TABLES.items():
            if f"{name}/{theirs}" not in golden_dit.outputs:
                continue
            values = process.betas if ours == "betas" else process.tables[ours].values
            golden_dit.check(f"{name}/{theirs}", torch.from_numpy(values).float())
        if name.startswith("respaced"):
            golden_dit.check(f"{name}/timestep_map", torch.tensor(process.kept))
    for kind in ("quad", "const", "jsd", "warmup10", "warmup50"):
        found = betas.betas(kind, 1e-4, 0.02, 40)  # type: ignore[arg-type]
        golden_dit.check(f"beta_schedule/{kind}", torch.from_numpy(found).float())
    for i, (steps, spacing) in enumerate(golden_dit.config["space_timesteps"]):
        golden_dit.check(f"space_timesteps/{i}", torch.tensor(kept_steps(steps, spacing)))


@pytest.fixture(scope="module")
def noised(golden_dit: Any) -> dict[str, Tensor]:
    """Their data, steps and noise, noisy data, and outputs of a network that errs a little."""
    given = {**golden_dit.group("in/q"), **golden_dit.group("in/p")}
    x = WHOLE.noisy(given["x_start"], given["t"], given["noise"])
    guess = given["noise"] + given["eps_error"]
    return {**given, "x": x, "guess": guess, "output": torch.cat([guess, given["var_values"]], 1)}


def test_the_forward_process(golden_dit: Any, noised: dict[str, Tensor]) -> None:
    data, t, x = noised["x_start"], noised["t"], noised["x"]
    golden_dit.check("q/q_sample", x)
    for name, value in zip(
        ("mean", "variance", "log_variance"), WHOLE.forward_moments(data, t), strict=True
    ):
        golden_dit.check(f"q/{name}", value)
    names = ("posterior_mean", "posterior_variance", "posterior_log_variance_clipped")
    for name, value in zip(names, WHOLE.posterior(data, x, t), strict=True):
        golden_dit.check(f"q/{name}", value)


def test_steps_back(golden_dit: Any, noised: dict[str, Tensor]) -> None:
    t, x = noised["t"], noised["x"]
    cases = {
        "learned": (WHOLE, noised["output"]),
        "fixed_large": (replace(WHOLE, variance="large"), noised["guess"]),
        "fixed_small": (replace(WHOLE, variance="small"), noised["guess"]),
        "xstart": (replace(WHOLE, variance="small", predicts="data"), noised["guess"]),
    }
    for name, (process, output) in cases.items():
        if name == "xstart" and not torch.allclose(
            golden_dit.tensors["out/p_xstart/variance"],
            golden_dit.tensors["out/p_fixed_small/variance"],
        ):
            process = replace(process, variance="large")
        for clip, word in ((True, "clipped"), (False, "unclipped")):
            step = process.step_of(output, x, t, clip)
            golden_dit.check(f"p_{name}/mean_{word}", step.mean)
            golden_dit.check(f"p_{name}/pred_xstart_{word}", step.data)
        golden_dit.check(f"p_{name}/variance", step.variance)
        golden_dit.check(f"p_{name}/log_variance", step.log_variance)


def test_bounds(golden_dit: Any, noised: dict[str, Tensor]) -> None:
    data, t, x = noised["x_start"], noised["t"], noised["x"]
    kl = bounds.normal_kl(data, noised["var_values"], x, noised["eps_error"])
    golden_dit.check("p/normal_kl", kl)
    likelihood = bounds.binned_log_likelihood(data, noised["means"], noised["log_scales"])
    golden_dit.check("p/decoder_log_likelihood", likelihood)
    for clip, word in ((True, ""), (False, "_unclipped")):
        found = bounds.bound_term(WHOLE, noised["output"], data, x, t, clip)
        golden_dit.check(f"p/vb_terms{word}", found)
    golden_dit.check("p/prior_bpd", bounds.prior_term(WHOLE, data))


@pytest.mark.parametrize(
    ("case", "process", "objective"),
    [
        ("mse", WHOLE, "mse"),
        ("rescaled_mse", WHOLE, "rescaled_mse"),
        ("rescaled_kl", WHOLE, "rescaled_kl"),
        ("mse_fixed", replace(WHOLE, variance="large"), "mse"),
        ("mse_xstart", replace(WHOLE, variance="large", predicts="data"), "mse"),
    ],
)
def test_losses(
    golden_dit: Any, noised: dict[str, Tensor], case: str, process: DDPM, objective: Any
) -> None:
    learned = process.variance == "learned"
    output = noised["output" if learned else "guess"].clone().requires_grad_()
    terms = bounds.losses(
        process, output, noised["x_start"], noised["x"], noised["t"], noised["noise"], objective
    )
    total = torch.stack(list(terms.values())).sum(0)
    golden_dit.check(f"losses_{case}/loss", total)
    for theirs, ours in (("vb", "bound"), ("mse", "mse")):
        if f"losses_{case}/{theirs}" in golden_dit.outputs:
            golden_dit.check(f"losses_{case}/{theirs}", terms[ours])
    if f"losses_{case}/grad_output" in golden_dit.outputs:
        total.mean().backward()
        golden_dit.check(f"losses_{case}/grad_output", output.grad)


def test_sampling_steps(golden_dit: Any, noised: dict[str, Tensor]) -> None:
    t, x, noise = noised["t"], noised["x"], golden_dit.tensors["in/sample/noise"]
    for clip, word in ((True, ""), (False, "_unclipped")):
        step = WHOLE.step_of(noised["output"], x, t, clip)
        golden_dit.check(f"sample/ddpm{word}", WHOLE.ddpm_step(step, t, noise))
        if clip:
            for eta in (0.0, 0.6, 1.0):
                golden_dit.check(f"sample/ddim_eta{eta}", WHOLE.ddim_step(step, x, t, noise, eta))
            golden_dit.check("sample/ddim_reverse", WHOLE.ddim_back(step, x, t))
        else:
            golden_dit.check("sample/ddim_unclipped", WHOLE.ddim_step(step, x, t, noise))
    large = replace(WHOLE, variance="large")
    step = large.step_of(noised["guess"], x, t, True)
    golden_dit.check("sample/ddpm_fixed_large", large.ddpm_step(step, t, noise))


def forced(given: Mapping[str, Tensor], uniform: Tensor | None = None) -> Rand:
    draws = {"t": given["t"][:, None], "noise": given["noise"][:, None]}
    return Rand(draws=draws if uniform is None else {**draws, "drop": uniform[:, None]})


def test_training_loss(golden_dit: Any, learner: DiTLearner) -> None:
    given, model = golden_dit.group("in/train"), learner.world_model
    rand = forced(given, given["uniform"])
    batch = batch_of(given["x_start"], given["y"])
    found = model.loss(batch, rand=rand)
    rand.check_used()
    golden_dit.check("train/loss_mean", found.loss)
    model.zero_grad()
    found.loss.backward()
    golden_dit.check("train/grad_norms", grads(model, golden_dit.config["grad_keys"]["train"]))
    for i in range(len(given["y"])):  # row by row
        row = {key: value[i : i + 1] for key, value in given.items()}
        one = model.loss(batch_of(row["x_start"], row["y"]), rand=forced(row, row["uniform"]))
        for theirs, value in (
            ("loss", one.loss), ("vb", one.components["bound"]), ("mse", one.components["mse"]),
        ):  # fmt: skip
            expected = golden_dit.tensors[f"out/train/{theirs}"][i]
            torch.testing.assert_close(
                value.detach(), expected, atol=golden_dit.atol[f"out/train/{theirs}"], rtol=1e-5
            )
            golden_dit.checked.add(f"train/{theirs}")


def test_training_loss_without_variance_and_dropout(golden_dit: Any, plain: DiTLearner) -> None:
    given, model = golden_dit.group("in/train_plain"), plain.world_model
    model.zero_grad()
    found = model.loss(batch_of(given["x_start"], given["y"]), rand=forced(given))
    found.loss.backward()
    keys = golden_dit.config["grad_keys"]["train_plain"]
    golden_dit.check("train_plain/grad_norms", grads(model, keys))
    rows = []
    for i in range(len(given["y"])):
        row = {key: value[i : i + 1] for key, value in given.items()}
        rows.append(model.loss(batch_of(row["x_start"], row["y"]), rand=forced(row)).loss)
    golden_dit.check("train_plain/loss", torch.stack(rows))


def test_respaced_training(golden_dit: Any, learner: DiTLearner) -> None:
    given, model = golden_dit.group("in/train"), learner.world_model
    t, process = golden_dit.tensors["in/train_respaced/t"], replace(WHOLE, spacing="20")
    x = process.noisy(given["x_start"], t, given["noise"])
    with torch.no_grad():
        output = model.dynamics_model.output(
            x, process.original_step(t), label_of(model, given["y"])
        )
    terms = bounds.losses(process, output, given["x_start"], x, t, given["noise"])
    golden_dit.check("train_respaced/vb", terms["bound"])
    golden_dit.check("train_respaced/mse", terms["mse"])
    golden_dit.check("train_respaced/loss", terms["bound"] + terms["mse"])


def test_updates_and_the_average(golden_dit: Any) -> None:
    settings, given = golden_dit.config["optimizer"], golden_dit.group("in/train")
    learner = learner_of(
        golden_dit, "dit", lr=settings["learning_rate"], average=settings["ema_decay"]
    )
    before = {k: x.detach().clone() for k, x in learner.world_model.named_parameters()}
    batch, losses = batch_of(given["x_start"], given["y"]), []
    for _ in range(settings["steps"]):
        found = learner.update(batch, "diffusion", rand=forced(given, given["uniform"]))
        losses.append(torch.as_tensor(found.metrics["loss"]))
    golden_dit.check("opt/loss", torch.stack(losses))
    for case, model in (("opt", learner.world_model), ("ema", learner.averaged)):
        keys = golden_dit.config["delta_keys"][case]
        own = {id(p): name for name, p in model.named_parameters()}
        parameters = [p for p in named(model, keys) if p is not None]
        assert len(parameters) == len(keys)
        moved: list[Tensor | None] = [p.detach() - before[own[id(p)]] for p in parameters]
        golden_dit.check(f"{case}/delta_norms", norms(moved))


@pytest.mark.parametrize("case", ["ddpm", "ddim"])
def test_whole_samples(golden_dit: Any, learner: DiTLearner, case: str) -> None:
    """Their loop samples both halves, with and without a label; ours only the labelled one."""
    given, model = golden_dit.group("in/loop"), learner.world_model
    spacing = golden_dit.config["loop"]["ddim" if case == "ddim" else "respacing"]
    process, own = replace(WHOLE, spacing=spacing), halves(model, given["y"])

    def network(x: Tensor, t: Tensor) -> Tensor:
        half = len(x) // 2
        return model.dynamics_model.guided_output(x[:half], t[:half], *own)

    z = torch.cat([given["z"]] * 2)
    rand = Rand(draws={"step": given["noise"]})
    with torch.no_grad():
        path = process.sample(network, z, ddim=case == "ddim", clip=case == "ddim", rand=rand)
    golden_dit.check(f"loop/{case}", torch.stack(path))
    config = model.config.with_(
        **{"model.spacing": spacing, "model.sampler": case, "model.clip": case == "ddim"}
    )
    twin = DiTWorldModel(config, model.obs_spec)
    twin.load_state_dict(model.state_dict())
    draws = {"noise": given["z"], "step": given["noise"][:, :2]}
    with torch.no_grad():
        start = twin.initial(2)
        after = twin.transition(start, None, labelled(given["y"]), rand=Rand(draws=draws))
    expected = golden_dit.tensors[f"out/loop/{case}"][-1, :2]
    atol = golden_dit.atol[f"out/loop/{case}"]
    torch.testing.assert_close(after["x"], expected, atol=atol, rtol=1e-5)


def test_the_whole_bound(golden_dit: Any) -> None:
    given, process = golden_dit.group("in/bpd"), replace(WHOLE, spacing="4")
    answers = iter(given["model_output"])
    found = bounds.bound(process, lambda x, t: next(answers), given["x_start"], given["noise"])
    for theirs, ours in (
        ("total_bpd", found.total), ("prior_bpd", found.prior), ("vb", found.terms),
        ("xstart_mse", found.data_error), ("mse", found.noise_error),
    ):  # fmt: skip
        golden_dit.check(f"bpd/{theirs}", ours)


def test_layers(golden_dit: Any, learner: DiTLearner) -> None:
    given, network = golden_dit.group("in/small"), learner.world_model.dynamics_model.network
    tokens, condition, block = given["tokens"], given["condition"], network.blocks[0]
    with torch.no_grad():
        golden_dit.check("small/block", block(tokens, condition))
        golden_dit.check("small/final_layer", network.final(tokens, condition))
        golden_dit.check("small/attn", block.attention(300 * tokens))
        golden_dit.check("small/mlp", block.mlp(300 * tokens))
    golden_dit.check("small/unpatchify", network.image(given["patches"]))
    still = torch.zeros_like(condition)
    assert np.allclose(modulated(tokens, still, still).mean(-1).numpy(), 0, atol=1e-5)


def test_every_output_was_compared(golden_dit: Any, request: pytest.FixtureRequest) -> None:
    """Runs last: with the whole file, no output of theirs is left out."""
    ran = [item.name for item in request.session.items if item.path == request.path]
    if len(ran) < 20:
        pytest.skip("only a part of this file runs")
    left = golden_dit.outputs - golden_dit.checked
    assert not left, sorted(left)
