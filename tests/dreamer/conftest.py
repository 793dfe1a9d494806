"""Golden tensors of the published DreamerV3: any file `dreamerv3*.safetensors` of that form."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from worldflux.specs import TensorSpec
from worldflux_dreamer.agent import DreamerV3Agent
from worldflux_dreamer.config import DreamerV3Config
from worldflux_dreamer.reference import entries, load_weights

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("WORLDFLUX_GOLDEN", ROOT / "../shared/golden"))
AGENT_GROUPS = {"enc", "obs1", "seq", "imagine", "dec", "heads", "slow_ema", "full", "train"}
SEQUENCE_INPUTS = {
    *("deter", "stoch", "reward", "is_first", "is_last", "is_terminal", "prevact"),
    *("post_sample", "img_sample", "img_act", "retnorm_lo", "retnorm_hi"),
}


class Golden:
    """One file: tensors by name, sizes, tolerances, and which inputs a test has read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.config = json.loads(metadata["config"])
        self.atol, self.rtol = json.loads(metadata["atol"]), float(metadata["rtol"])
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return self.tensors[name].clone()

    def under(self, prefix: str) -> dict[str, Tensor]:
        """All tensors below `prefix/`, by the rest of their names."""
        start = prefix + "/"
        return {
            name.removeprefix(start): self[name] for name in self.tensors if name.startswith(start)
        }

    def groups(self) -> set[str]:
        return {name.split("/")[1] for name in self.tensors if not name.startswith("w/")}

    def extra_kind(self) -> str | None:
        """The group of the other kind of observation: it has its own encoder `w/<group>enc`."""
        for group in self.groups():
            if any(name.startswith(f"w/{group}enc/") for name in self.tensors):
                return group
        return None

    def check(self, group: str, ours: Mapping[str, Tensor], slack: Mapping[str, float]) -> None:
        """Every output of the group is computed and close, every input of it was used."""
        prefix = f"out/{group}/"
        wanted = [name for name in self.tensors if name.startswith(prefix)]
        unknown = [name for name in wanted if name.removeprefix(prefix) not in ours]
        assert not unknown, f"tensors this test does not know: {unknown}"
        unused = [n for n in self.tensors if n.startswith(f"in/{group}/") and n not in self.read]
        assert not unused, f"inputs this test does not use: {unused}"
        worse = []
        for name in wanted:
            key = name.removeprefix(prefix)
            factor = next((v for start, v in slack.items() if key.startswith(start)), 1.0)
            worse += self._compare(name, ours[key], factor)
        assert not worse, "\n".join(worse)

    def _compare(self, name: str, ours: Tensor, factor: float) -> list[str]:
        theirs = self.tensors[name]
        if ours.shape != theirs.shape:
            return [f"{name}: shape {tuple(ours.shape)}, expected {tuple(theirs.shape)}"]
        if not theirs.is_floating_point():
            return [] if torch.equal(ours.to(theirs.dtype), theirs) else [f"{name}: not equal"]
        ours, theirs = ours.detach().double(), theirs.double()
        atol = self.atol.get(name, 1e-5 * float(theirs.abs().max()))
        excess = (ours - theirs).abs() - factor * (atol + self.rtol * theirs.abs())
        if bool((excess <= 0).all()):
            return []
        error = float((ours - theirs).abs().max())
        return [f"{name}: error {error:.3g}, allowed {factor} * {atol:.3g} (+ relative)"]

    # What the file's sizes mean in our terms

    def dreamer_config(self) -> DreamerV3Config:
        c, scales, norm = self.config, self.config["loss_scales"], self.config["retnorm"]
        same = ("deter", "hidden", "stoch", "classes", "blocks", "units", "unimix", "free_nats")
        model = {name: c[name] for name in (*same, "bins", "horizon", "contdisc", "norm_eps")}
        model |= {f"scale_{name}": scales[name] for name in ("dyn", "rep", "rec", "rew", "con")}
        model |= {"depth": c["cnn_depth"], "mults": c["cnn_mults"], "kernel": c["cnn_kernel"]}
        model |= {"image_layers": c["imglayers"], "obs_layers": c["obslayers"]}
        model |= {"dyn_layers": c["dynlayers"], "reward_layers": c["reward_layers"]}
        model |= {"continue_layers": c["continue_layers"]}
        agent = {name: c[name] for name in ("imag_length", "lam", "actent", "slowreg")}
        agent |= {f"scale_{name}": scales[name] for name in ("policy", "value", "repval")}
        agent |= {"slow_rate": c["slowvalue_rate"], "value_layers": c["value_layers"]}
        agent |= {f"policy_{k}": v for k, v in c["policy"].items() if k == "layers"}
        agent |= {k: v for k, v in c["policy"].items() if k in ("minstd", "maxstd")}
        agent |= {"retnorm_rate": norm["rate"], "retnorm_limit": norm["limit"]}
        agent |= {"retnorm_low": norm["perclo"], "retnorm_high": norm["perchi"]}
        agent |= {"lr": c["train_lr"], "warmup": c["train_warmup"], **c["opt"]}
        assert norm["impl"] == "perc"
        assert not norm["debias"]
        return DreamerV3Config(model=model, agent=agent)

    def obs_spec(self) -> dict[str, TensorSpec]:
        found = self.under("in/full")
        return {key: spec_of(x[0, 0]) for key, x in found.items() if key not in SEQUENCE_INPUTS}

    def action_spec(self) -> dict[str, TensorSpec]:
        size = self.config["actions"]
        if self.config["action"] == "continuous":
            return {"action": TensorSpec((size,), low=-1.0, high=1.0)}
        if isinstance(size, list):
            return {"action": TensorSpec((len(size),), "int64", n=tuple(size))}
        return {"action": TensorSpec((), "int64", n=size)}

    def agent(self) -> DreamerV3Agent:
        """A new agent with the file's sizes, spaces and weights; every weight has a place."""
        agent = DreamerV3Agent(self.dreamer_config(), self.obs_spec(), self.action_spec())
        assert agent.parameter_count() == self.config["params"]
        kind = self.extra_kind()
        own = self.under("w")
        if kind is not None:
            extra = (f"{kind}enc/", f"{kind}dec/")
            own = {name: value for name, value in own.items() if not name.startswith(extra)}
        load_weights(entries(agent), own, str(self.path))
        return agent


def spec_of(sample: Tensor) -> TensorSpec:
    """The space of one observation (NHWC images become CHW)."""
    if sample.ndim == 3:
        y, x, c = sample.shape
        return TensorSpec((c, y, x), "uint8")
    return TensorSpec(tuple(sample.shape))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    wants = {"golden", "maths_group", "agent_group"} & set(metafunc.fixturenames)
    if not wants:
        return
    files = sorted(FOLDER.glob("dreamerv3*.safetensors"))
    names = ["golden", *sorted(wants - {"golden"})]
    cases = [case for path in files for case in _cases(path, names)]
    reason = f"no dreamerv3*.safetensors in {FOLDER}: set WORLDFLUX_GOLDEN to the golden data"
    if not cases:
        cases = [pytest.param(*[None] * len(names), marks=pytest.mark.skip(reason), id="absent")]
    metafunc.parametrize(names, cases)


def _cases(path: Path, names: list[str]) -> list[object]:
    golden = Golden(path)
    if names == ["golden"]:
        return [pytest.param(golden, id=path.stem)]
    extra = {golden.extra_kind()}
    agents = (AGENT_GROUPS | extra) & golden.groups()
    groups = agents if "agent_group" in names else golden.groups() - agents
    return [pytest.param(Golden(path), g, id=f"{path.stem}-{g}") for g in sorted(groups)]
