"""Golden tensors of the published DreamerV3: any file `dreamerv3*.safetensors` of that form."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from worldflux.specs import TensorSpec
from worldflux_dreamer.dreamerv3.agent import DreamerV3Agent
from worldflux_dreamer.dreamerv3.config import DreamerV3Config
from worldflux_dreamer.dreamerv3.reference import entries, load_weights

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("WORLDFLUX_GOLDEN", ROOT / "../shared/golden"))
AGENT_GROUPS = {"enc", "obs1", "seq", "imagine", "dec", "heads", "slow_ema", "full", "train"}
SEQUENCE_INPUTS = {
    *("deter", "stoch", "reward", "is_first", "is_last", "is_terminal", "prevact"),
    *("post_sample", "img_sample", "img_act", "retnorm_lo", "retnorm_hi"),
}


@pytest.fixture(autouse=True)
def fixed_rng() -> Iterator[None]:
    """Tests draw from torch's generator as they like and leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Golden:
    """One file: tensors by name, sizes, tolerances, and which inputs a test has read."""

    def __init__(self, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> None:
        self.tensors = tensors
        self.config = json.loads(metadata["config"])
        self.atol, self.rtol = json.loads(metadata["atol"]), float(metadata["rtol"])
        self.read: set[str] = set()

    @classmethod
    def load(cls, path: Path) -> Golden:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return cls({name: file.get_tensor(name) for name in names}, file.metadata())

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
        load_weights(entries(agent), own, "golden data")
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
    names = ["golden", *sorted(wants - {"golden"})]
    files = sorted(FOLDER.glob("dreamerv3*.safetensors"))
    cases = [case for path in files for case in _cases(path.stem, Golden.load(path), names)]
    if not cases:
        reason = f"no dreamerv3*.safetensors in {FOLDER}: set WORLDFLUX_GOLDEN to the golden data"
        cases = [pytest.param(*[None] * len(names), marks=pytest.mark.skip(reason), id="absent")]
    for observation, action in (
        ("vector", "discrete"),
        ("image", "discrete"),
        ("vector", "choices"),
    ):
        if "agent_group" in names:
            cases += _cases(f"made-{observation}-{action}", made_up(observation, action), names)
    metafunc.parametrize(names, cases)


def _cases(name: str, golden: Golden, names: list[str]) -> list[object]:
    if names == ["golden"]:
        return [pytest.param(golden, id=name)]
    agents = (AGENT_GROUPS | {golden.extra_kind()}) & golden.groups()
    groups = agents if "agent_group" in names else golden.groups() - agents
    return [pytest.param(golden, group, id=f"{name}-{group}") for group in sorted(groups)]


# Files of other forms: random inputs and weights without published outputs, so that what reads a
# file is known to work for vectors, discrete and multi-discrete actions.


def made_up(observation: str, action: str) -> Golden:
    """Inputs and weights in the form of a golden file; outputs only where others build on them."""
    config = _made_up_config(observation, action)
    golden = Golden({}, {"config": json.dumps(config), "atol": "{}", "rtol": "1e-5"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        golden.tensors = {f"in/{name}": x for name, x in _made_up_inputs(config).items()}
        agent = DreamerV3Agent(golden.dreamer_config(), golden.obs_spec(), golden.action_spec())
        weights = {f"w/{name}": entry.published() for name, entry in entries(agent).items()}
        tokens = agent.world_model.observation_encoder.size
    golden.config["params"] = agent.parameter_count()
    golden.tensors |= {name: value.clone() for name, value in weights.items()}
    golden.tensors |= {
        "out/enc/tokens": torch.randn(2, 6, tokens),
        "out/seq/deter": torch.randn(2, 6, config["deter"]),
        "out/train/total1": torch.zeros(()),
        "out/slow_ema/mlp/norm0/scale": torch.ones(config["units"]),
    }
    loose = ("out/enc/tokens", "out/seq/deter", "out/train/total1")
    golden.atol = {name: float("inf") for name in loose}
    return golden


def _made_up_config(observation: str, action: str) -> dict[str, object]:
    names = ("rec", "rew", "con", "dyn", "rep", "policy", "value", "repval")
    return {
        **{"deter": 16, "hidden": 8, "stoch": 4, "classes": 3, "blocks": 8, "units": 8},
        **{"cnn_depth": 2, "cnn_mults": [2, 3, 4, 4], "cnn_kernel": 5, "observation": observation},
        **{"action": "discrete", "actions": [3, 2] if action == "choices" else 5},
        **{"unimix": 0.01, "free_nats": 1.0, "bins": 255, "horizon": 333, "contdisc": True},
        **{"lam": 0.95, "actent": 3e-4, "slowreg": 1.0, "slowvalue_rate": 0.02, "imag_length": 3},
        "retnorm": dict(impl="perc", rate=0.01, limit=1.0, perclo=5.0, perchi=95.0, debias=False),
        "loss_scales": dict.fromkeys(names, 1.0),
        "policy": {"minstd": 0.1, "maxstd": 1.0, "layers": 3},
        **{"value_layers": 3, "reward_layers": 1, "continue_layers": 1, "imglayers": 2},
        **{"obslayers": 1, "dynlayers": 1, "norm_eps": 1e-4, "train_lr": 3e-4, "train_warmup": 0},
        "opt": {"agc": 0.3, "pmin": 1e-3, "eps": 1e-20, "beta1": 0.9, "beta2": 0.999},
    }


def _made_up_inputs(config) -> dict[str, Tensor]:
    b, t, h, stoch, k = 2, 6, config["imag_length"], config["stoch"], config["classes"]
    counts = config["actions"]

    def observed(*lead: int) -> dict[str, Tensor]:
        if config["observation"] == "image":
            return {"image": torch.randint(0, 256, (*lead, 64, 64, 3), dtype=torch.uint8)}
        return {"state": torch.randn(*lead, 7)}

    def actions(*lead: int) -> Tensor:
        if isinstance(counts, list):
            return torch.stack([torch.randint(0, n, lead) for n in counts], -1)
        return torch.randint(0, counts, lead)

    def latent(*lead: int) -> dict[str, Tensor]:
        index = torch.randint(0, k, (*lead, stoch))
        one_hot = torch.nn.functional.one_hot(index, k).float()
        return {"deter": torch.randn(*lead, config["deter"]), "stoch": one_hot}

    def sample(*lead: int) -> Tensor:
        return torch.randint(0, k, (*lead, stoch))

    flags = {name: torch.rand(b, t) < 0.2 for name in ("is_first", "is_last", "is_terminal")}
    rewards, edges = (
        torch.randn(b, t),
        {"retnorm_lo": torch.zeros(()), "retnorm_hi": torch.ones(())},
    )
    groups = {
        "enc": observed(b, t),
        "obs1": {
            **latent(b),
            "action": actions(b),
            "is_first": flags["is_first"][:, 0],
            "sample": sample(b),
        },
        "seq": {
            **latent(b),
            "action": actions(b, t),
            "is_first": flags["is_first"],
            "sample": sample(b, t),
        },
        "imagine": {**latent(5), "action": actions(5, 4), "sample": sample(5, 4)},
        "heads": {
            "reward": rewards,
            "is_terminal": flags["is_terminal"],
            "action": actions(b, t),
        },
        "full": {
            **{**latent(b), **observed(b, t), **flags, **edges, "reward": rewards},
            **{"prevact": actions(b, t), "img_act": actions(b * t, h + 1)},
            **{"post_sample": sample(b, t), "img_sample": sample(b * t, h)},
        },
    }
    return {f"{group}/{key}": x for group, found in groups.items() for key, x in found.items()}
