"""Weights under the published names, both ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from worldflux.errors import StorageError
from worldflux.specs import TensorSpec
from worldflux_dreamer.dreamerv3.agent import DreamerV3Agent
from worldflux_dreamer.dreamerv3.config import DreamerV3Config
from worldflux_dreamer.dreamerv3.reference import load_reference, save_reference, to_reference

TINY = DreamerV3Config(
    model={"deter": 32, "hidden": 16, "stoch": 6, "classes": 4, "units": 16, "depth": 2}
)
OBS = {
    **{"image": TensorSpec((3, 64, 64), "uint8"), "state": TensorSpec((5,))},
    "goal": TensorSpec((), "int64", n=3),
}
ACTION = {"action": TensorSpec((), "int64", n=4)}


def agent(seed: int, config: DreamerV3Config = TINY) -> DreamerV3Agent:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = DreamerV3Agent(config, OBS, ACTION)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter)
        return made


def test_published_names_cover_every_parameter():
    names = to_reference(agent(0))
    counted = sum(value.numel() for name, value in names.items() if not name.startswith("retnorm"))
    assert counted == sum(p.numel() for p in agent(0).parameters())
    assert names["dyn/dyngru/kernel"].shape == (8, 4, 12)
    assert names["enc/cnn0/kernel"].shape == (5, 5, 3, 4)
    assert {"dec/vec/goal/logits/kernel", "dec/vec/state/pred/kernel"} <= set(names)
    assert {"pol/head/action/logits/bias", "slowval/head/logits/bias"} <= set(names)


@pytest.mark.parametrize("form", ["safetensors", "npz"])
def test_weights_make_a_round_trip(tmp_path, form):
    source, target = agent(0), agent(1)
    path = tmp_path / f"weights.{form}"
    save_reference(source, tmp_path / "weights.safetensors")
    if form == "npz":
        tensors = load_file(tmp_path / "weights.safetensors")
        np.savez(path, **{name: value.numpy() for name, value in tensors.items()})
    load_reference(target, path)
    for (name, ours), theirs in zip(
        source.state_dict().items(), target.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_a_missing_slow_critic_starts_as_the_critic(tmp_path):
    kept = {k: v.contiguous() for k, v in to_reference(agent(0)).items() if "slowval" not in k}
    save_file({**kept, "opt/step": torch.zeros(())}, tmp_path / "weights.safetensors")
    loaded = agent(1)
    load_reference(loaded, tmp_path / "weights.safetensors")
    for slow, fast in zip(loaded.slow_value.parameters(), loaded.value.parameters(), strict=True):
        assert torch.equal(slow, fast)


def test_weights_that_do_not_belong_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    names = {name: value.contiguous() for name, value in to_reference(agent(0)).items()}
    save_file({k: v for k, v in names.items() if k != "dyn/dyngru/bias"}, path)
    with pytest.raises(StorageError, match=r"lacks 'dyn/dyngru/bias' \(1 missing, 0 unexpected\)"):
        load_reference(agent(1), path)
    save_file({**names, "dyn/dyngru/bais": torch.zeros(1)}, path)
    with pytest.raises(StorageError, match="has unexpected 'dyn/dyngru/bais'.*Did you mean"):
        load_reference(agent(1), path)
    save_file(names, path)
    wider = TINY.with_(**{"model.units": 24})
    with pytest.raises(StorageError, match="has shape .* this agent needs"):
        load_reference(agent(1, wider), path)
    with pytest.raises(StorageError, match="No file"):
        load_reference(agent(1), tmp_path / "nothing.npz")
    (tmp_path / "weights.pkl").write_bytes(b"")
    with pytest.raises(StorageError, match=r"neither \.safetensors nor \.npz"):
        load_reference(agent(1), tmp_path / "weights.pkl")
