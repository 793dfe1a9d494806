"""Golden files of IRIS and Delta-IRIS: their tensors, tolerances and configurations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.specs import TensorSpec
from worldflux.testing import random_batch
from worldflux_iris.iris.agent import IRISAgent
from worldflux_iris.iris.config import TINY

SMALL = {"image": TensorSpec((3, 16, 16), "uint8", 0, 255)}
CHOICE = {"action": TensorSpec((), "int64", n=4)}
FOLDER = Path(os.environ.get("WORLDFLUX_GOLDEN", "../shared/golden"))


class Golden:
    """One file of the form that the page beside it describes."""

    def __init__(self, path: Path) -> None:
        with safe_open(str(path), "pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        self.config: dict[str, Any] = json.loads(metadata["config"])
        self.atol: dict[str, float] = json.loads(metadata["atol"])
        self.rtol = float(metadata["rtol"])

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below `prefix/`, without it."""
        start = f"{prefix}/"
        found = {k: v for k, v in self.tensors.items() if k.startswith(start)}
        return {name.removeprefix(start): value for name, value in found.items()}

    def weights(self) -> dict[str, Tensor]:
        """The reference's named weights, in float32."""
        found = self.group("w")
        return {k: v.float() if v.is_floating_point() else v for k, v in found.items()}

    def outputs(self, group: str) -> set[str]:
        """The names of a group's outputs."""
        return set(self.group(f"out/{group}"))

    def check_group(self, group: str, ours: dict[str, Tensor]) -> None:
        """Assert that `ours` are all outputs of a group, within their tolerances."""
        assert ours.keys() == self.outputs(group), ours.keys() ^ self.outputs(group)
        for name, value in ours.items():
            self.check(f"{group}/{name}", value)

    def check(self, name: str, ours: Tensor) -> None:
        """Assert that `ours` is output `name`, within its tolerance."""
        expected, ours = self.tensors[f"out/{name}"], ours.detach()
        assert ours.numel() == expected.numel(), (name, ours.shape, expected.shape)
        ours = ours.reshape(expected.shape)
        if expected.dtype == torch.uint8:
            apart = (ours.int() - expected.int()).abs()
            assert int(apart.max()) <= 1 and float((apart > 0).float().mean()) <= 1e-3, name
            return
        if not expected.is_floating_point():
            assert torch.equal(ours.to(expected.dtype), expected), name
            return
        atol = self.atol.get(f"out/{name}", 1e-5 * float(expected.abs().max()))
        worst = (ours.double() - expected.double()).abs() - self.rtol * expected.double().abs()
        assert float(worst.max()) <= atol, f"{name}: {float(worst.max()):.3g} > {atol:.3g}"


def opened(name: str) -> Golden:
    """The golden file, or a skip that says where it was looked for."""
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden file at {path}: set WORLDFLUX_GOLDEN to its folder")
    return Golden(path)


@pytest.fixture(scope="session")
def golden() -> Golden:
    """IRIS's."""
    return opened("iris")


@pytest.fixture(scope="session")
def delta_golden() -> Golden:
    """Delta-IRIS's."""
    return opened("delta_iris")


@pytest.fixture(autouse=True)
def _forked_rng() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def small() -> Callable[..., IRISAgent]:
    """Makes tiny agents for 16x16 images and 4 choices."""

    def make(**overrides: Any) -> IRISAgent:
        sizes = {
            "model.patch": 4,
            "model.channels": 16,
            "model.code_dim": 8,
            "model.vocab": 16,
            "model.dim": 16,
        }
        more = {"agent.horizon": 3, "agent.lstm_dim": 8, "agent.conv_channels": (4,)}
        return IRISAgent(TINY.with_(**{**sizes, **more, **overrides}), SMALL, CHOICE)

    return make


@pytest.fixture(scope="session")
def sequences() -> Callable[..., Batch]:
    """Makes random Batches (B, T, ...) for them, one episode in a row."""

    def make(rows: int = 3, length: int = 6, seed: int = 0) -> Batch:
        return random_batch(SMALL, CHOICE, rows, length, boundary=False, seed=seed)

    return make
