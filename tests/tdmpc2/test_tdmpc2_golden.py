"""Equality with the published implementation, tensor by tensor (see `tdmpc2.md` by the file)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn import symlog as symlog_functions
from worldflux_tdmpc2 import distribution, images, learning, losses, networks, policy
from worldflux_tdmpc2.agent import TDMPC2Agent
from worldflux_tdmpc2.latent import features
from worldflux_tdmpc2.reference import our_name
from worldflux_tdmpc2.scale import RunningScale

Outputs = dict[str, Tensor]
STEPS = 3
_METRICS = {
    "consistency_loss": "consistency_loss",
    "reward_loss": "reward_loss",
    "value_loss": "value_loss",
    "total_loss": "loss",
    "grad_norm": "grad_norm",
    "pi_loss": "policy_loss",
    "pi_grad_norm": "policy_grad_norm",
    "pi_entropy": "policy_entropy",
    "pi_scaled_entropy": "policy_scaled_entropy",
    "pi_scale": "value_scale",
    "termination_loss": "termination_loss",
    "termination_rate": "termination_rate",
    "termination_f1": "termination_f1",
}


def _simnorm(golden: Any, given: Mapping[str, Tensor]) -> Outputs:
    return {"y": networks.SimNorm(golden.config["defaults"]["simnorm_dim"])(given["x"])}


def _normedlinear(golden: Any, given: Mapping[str, Tensor]) -> Outputs:
    layer = networks.NormedLinear(given["weight"].shape[1], given["weight"].shape[0])
    layer.load_state_dict({key: value for key, value in given.items() if key != "x"})
    with torch.no_grad():
        inference = layer(given["x"])
    training = layer(given["x"].clone().requires_grad_())
    torch.testing.assert_close(inference, training)
    return {"y": training}


def _symlog(golden: Any, given: Mapping[str, Tensor]) -> Outputs:
    return {"y": symlog_functions.symlog(given["x"])}


def _symexp(golden: Any, given: Mapping[str, Tensor]) -> Outputs:
    return {"y": symlog_functions.symexp(given["x"])}


def _twohot(golden: Any, given: Mapping[str, Tensor]) -> Outputs:
    default = golden.config["defaults"]
    bins = torch.linspace(default["vmin"], default["vmax"], default["num_bins"])
    return {
        "target": distribution.two_hot(given["values"], bins),
        "soft_ce": distribution.cross_entropy(given["logits"], given["values"], bins),
        "inv": distribution.expected(given["inv_logits"], bins),
    }


def _squash(golden: Any, given: Mapping[str, Tensor]) -> Outputs:
    mean, action, log_prob = policy.squash(given["mu"], given["pi"], given["log_pi"].squeeze(-1))
    return {"mu": mean, "pi": action, "log_pi": log_prob}


def _gaussian(golden: Any, given: Mapping[str, Tensor]) -> Outputs:
    return {"logprob": policy.gaussian_log_prob(given["eps"], given["log_std"])}


def _log_std(golden: Any, given: Mapping[str, Tensor]) -> Outputs:
    default = golden.config["defaults"]
    bounds = default["log_std_min"], default["log_std_max"]
    return {"y": policy.bounded_log_std(given["x"], *bounds)}


def _discount(golden: Any, given: Mapping[str, Tensor]) -> Outputs:
    config = golden.agent_config("main").model
    lengths = given["episode_length"].tolist()
    return {"discount": torch.tensor([config.discount(length) for length in lengths])}


def _scale(golden: Any, given: Mapping[str, Tensor]) -> Outputs:
    scale, values = RunningScale(golden.config["defaults"]["tau"]), []
    for x in given["x"]:
        scale.update(x.squeeze(-1))
        values.append(scale.value.clone())
    return {"value": torch.stack(values)}


def _rgb(golden: Any, given: Mapping[str, Tensor]) -> Outputs:
    weights = golden.group("w/rgb")
    first = weights["2.weight"]
    simnorm = golden.config["defaults"]["simnorm_dim"]
    net = images.PixelEncoder(first.shape[1], first.shape[0] * images.CELLS, simnorm)
    prefix = "observation_encoder.net."
    names = {name: our_name(f"_encoder.rgb.{name}").removeprefix(prefix) for name in weights}
    net.load_state_dict({names[name]: value for name, value in weights.items()})
    moved = images.shifted(given["image"], given["shift"].flatten(1))
    return {"shifted": moved.float(), "z": net(moved)}


def _start(golden: Any, agent: TDMPC2Agent, epi: str) -> State:
    return agent.world_model.encode(golden.tensors[f"in/{epi}enc/obs"])


def _enc(golden: Any, given: Mapping[str, Tensor], agent: TDMPC2Agent, epi: str) -> Outputs:
    return {"z": _start(golden, agent, epi)["latent"]}


def _step(golden: Any, given: Mapping[str, Tensor], agent: TDMPC2Agent, epi: str) -> Outputs:
    state = _start(golden, agent, epi)
    after = agent.world_model.transition(state, given["action"])
    output = agent.world_model.decode(after)
    found = {
        "next_z": after["latent"],
        "reward_logits": output.aux["reward_logits"],
        "reward": output.predictions["reward"],
    }
    if epi:  # the reference's termination is that of the latent itself
        here = agent.world_model.decode(state)
        found["termination_logit"] = here.aux["termination_logit"]
        found["termination"] = 1 - here.predictions["continue"]
    return found


def _pi(golden: Any, given: Mapping[str, Tensor], agent: TDMPC2Agent, epi: str) -> Outputs:
    state = _start(golden, agent, epi)
    sample = agent.world_model.act_on(state, given["eps"])
    return {
        **{k: v for k, v in sample._asdict().items()},
        "raw": agent.world_model.policy.net(features(state)),
    }


def _q(golden: Any, given: Mapping[str, Tensor], agent: TDMPC2Agent, epi: str) -> Outputs:
    model, state = agent.world_model, _start(golden, agent, epi)
    action = golden.tensors[f"in/{epi}step/action"]
    every = torch.arange(model.q.members)
    seen = torch.cat([state["latent"], action], -1)
    return {
        "logits": model.q(seen),
        "target_logits": model.target_q(seen),
        "values": model.two_q(state, action, every),
        "target_values": model.two_q(state, action, every, target=True),
        "min": model.two_q(state, action, given["idx_min"], target=True).amin(0),
        "avg": model.two_q(state, action, given["idx_avg"]).mean(0),
    }


def _td(golden: Any, given: Mapping[str, Tensor], agent: TDMPC2Agent, epi: str) -> Outputs:
    model, state = agent.world_model, State({"latent": given["next_z"]})
    action = model.act_on(state, given["eps"]).action
    value = model.two_q(state, action, given["idx"], target=True).amin(0)
    reward, terminal = given["reward"].squeeze(-1), given["terminated"].squeeze(-1)
    return {"target": losses.td_target(reward, terminal, value, model.discount(state))}


def _estimate(golden: Any, given: Mapping[str, Tensor], agent: TDMPC2Agent, epi: str) -> Outputs:
    state = State({k: v[:1] for k, v in _start(golden, agent, epi).tensors.items()})
    plans = given["actions"].transpose(0, 1).unsqueeze(0)
    rand = Rand(draws={"eps": given["eps"].unsqueeze(0), "heads": given["idx"]})
    value = agent.world_model.score(state, plans, rand=rand)
    rand.check_used()
    return {"value": value}


def _plan(golden: Any, given: Mapping[str, Tensor], agent: TDMPC2Agent, first: bool) -> Outputs:
    previous = State({"mean": given["prev_mean"][None], "warm": torch.ones(1, dtype=torch.bool)})
    draws = {
        "noise": given["randn"].transpose(1, 2).unsqueeze(1),
        "choice": given["exponential"][None],
        "propose/eps": given["eps_pi"].transpose(0, 1)[None],
        "score/eps": given["eps_value"].unsqueeze(1),
        "score/heads": given["idx_value"],
    }
    if not first:
        draws["explore"] = given["randn_action"][None]
    trace: list[dict[str, Tensor]] = []
    rand = Rand(draws=draws)
    payload, memory = agent.act(
        {"state": given["obs"]},
        previous,
        torch.tensor([first]),
        mode="eval" if first else "train",
        rand=rand,
        trace=trace,
    )
    rand.check_used()
    names = ("value", "elite_idx", "score", "mean", "std")
    found = {name: torch.stack([step[name][0] for step in trace]) for name in names}
    torch.testing.assert_close(memory["mean"][0], found["mean"][-1], rtol=0, atol=0)
    actions = trace[0]["actions"][0].transpose(0, 1)
    return {**found, "actions": actions, "action": payload.tensor}


def _plan_t0(golden: Any, given: Mapping[str, Tensor], agent: TDMPC2Agent, epi: str) -> Outputs:
    return _plan(golden, given, agent, first=True)


def _plan_warm(golden: Any, given: Mapping[str, Tensor], agent: TDMPC2Agent, epi: str) -> Outputs:
    return _plan(golden, given, agent, first=False)


def _forced(given: Mapping[str, Tensor], step: int) -> Rand:
    draws = {
        "td_eps": given[f"eps_td{step}"].transpose(0, 1),
        "td_heads": given[f"idx_td{step}"],
        "pi_eps": given[f"eps_pi{step}"].transpose(0, 1),
        "pi_heads": given[f"idx_pi{step}"],
    }
    return Rand(draws=draws)


def _updated(golden: Any, which: str, given: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Three production updates: metrics and parameters after each."""
    agent, batch = golden.agent(which), golden.batch(given)
    agent.world_model.scale.value.copy_(given["scale0"].squeeze())
    history = []
    for step in range(1, STEPS + 1):
        rand = _forced(given, step)
        metrics = agent.update(batch, "online", rand=rand).metrics
        rand.check_used()
        parameters = {k: v.detach().clone() for k, v in agent.world_model.named_parameters()}
        history.append({"metrics": metrics, "parameters": parameters})
    return history


def _update(golden: Any, given: Mapping[str, Tensor], agent: TDMPC2Agent, epi: str) -> Outputs:
    found = {}
    for step, after in enumerate(_updated(golden, "epi" if epi else "main", given), 1):
        metrics = after["metrics"]
        found |= {f"{k}{step}": metrics[ours] for k, ours in _METRICS.items() if ours in metrics}
    unrolled = learning.unroll(agent.world_model, golden.batch(given), _forced(given, 1))
    found["td_target1"] = unrolled.td_target.transpose(0, 1)
    found["zs1"] = unrolled.states["latent"].transpose(0, 1)
    return found


PLAIN: dict[str, Callable[..., Outputs]] = {
    "simnorm": _simnorm,
    "normedlinear": _normedlinear,
    "symlog": _symlog,
    "symexp": _symexp,
    "twohot": _twohot,
    "squash": _squash,
    "gaussian": _gaussian,
    "log_std": _log_std,
    "discount": _discount,
    "scale": _scale,
    "rgb": _rgb,
}
OF_AGENT: dict[str, Callable[..., Outputs]] = {
    "enc": _enc,
    "step": _step,
    "pi": _pi,
    "q": _q,
    "td": _td,
    "estimate": _estimate,
    "plan_t0": _plan_t0,
    "plan_warm": _plan_warm,
    "update": _update,
}
AFTERMATH = ("update_gradnorm", "update_grad", "update_deltanorm1", "update_deltanorm3")
AFTERMATH += ("update_param3",)
AGENTS = {"main": "", "epi": "epi_"}


def _check(golden: Any, group: str, ours: Outputs) -> None:
    expected = golden.group(f"out/{group}")
    assert expected.keys() == ours.keys(), (group, expected.keys() ^ ours.keys())
    for name, value in ours.items():
        golden.check(f"{group}/{name}", value)


@pytest.mark.parametrize("group", PLAIN)
def test_golden_functions(golden: Any, group: str) -> None:
    _check(golden, group, PLAIN[group](golden, golden.group(f"in/{group}")))


@pytest.mark.parametrize("group", OF_AGENT)
@pytest.mark.parametrize("which", AGENTS)
def test_golden_agent(golden: Any, which: str, group: str) -> None:
    epi = AGENTS[which]
    given = golden.group(f"in/{epi}{group}")
    _check(golden, f"{epi}{group}", OF_AGENT[group](golden, given, golden.agent(which), epi))


@pytest.mark.parametrize("which", AGENTS)
def test_golden_gradients(golden: Any, which: str) -> None:
    """Gradients that the first update leaves, unclipped: the model's loss, then the policy's."""
    epi, agent = AGENTS[which], golden.agent(which)
    given = golden.group(f"in/{epi}update")
    agent.world_model.scale.value.copy_(given["scale0"].squeeze())
    metrics = agent.update(golden.batch(given), "online", rand=_forced(given, 1)).metrics
    clip, ours = agent.config.agent.clip, {}
    for name, parameter in agent.world_model.named_parameters():
        norm = metrics["policy_grad_norm" if name.startswith("policy.") else "grad_norm"]
        if parameter.grad is not None:
            ours[name] = parameter.grad / min(1.0, clip / (float(norm) + 1e-6))
    norms = golden.group(f"out/{epi}update_gradnorm")
    assert {our_name(name) for name in norms} == ours.keys()
    for name in norms:
        golden.check(f"{epi}update_gradnorm/{name}", ours[our_name(name)].norm())
    for name in golden.group(f"out/{epi}update_grad"):
        golden.check(f"{epi}update_grad/{name}", ours[our_name(name)])


@pytest.mark.parametrize("which", AGENTS)
def test_golden_parameters(golden: Any, which: str) -> None:
    """Parameters, targets included, move as far as the reference's, and to the same place."""
    epi = AGENTS[which]
    start = dict(golden.agent(which).world_model.named_parameters())
    after = _updated(golden, which, golden.group(f"in/{epi}update"))
    for step in (1, STEPS):
        names = golden.group(f"out/{epi}update_deltanorm{step}")
        assert {our_name(name) for name in names} == start.keys()
        for name in names:
            ours = our_name(name)
            moved = after[step - 1]["parameters"][ours] - start[ours]
            golden.check(f"{epi}update_deltanorm{step}/{name}", moved.norm())
    for name in golden.group(f"out/{epi}update_param3"):
        golden.check(f"{epi}update_param3/{name}", after[-1]["parameters"][our_name(name)])


def test_golden_names_are_all_known(golden: Any) -> None:
    """Every tensor of the file is a weight that is read, or belongs to a group tested above."""
    groups = set(PLAIN) | {p + g for p in AGENTS.values() for g in (*OF_AGENT, *AFTERMATH)}
    for name in golden.tensors:
        kind, _, rest = name.partition("/")
        if kind == "w":
            assert our_name(rest.removeprefix("epi/").replace("rgb/", "_encoder.rgb.")), name
        else:
            assert kind in ("in", "out") and rest.partition("/")[0] in groups, name
    assert {name.split("/")[1] for name in golden.outputs} == groups
