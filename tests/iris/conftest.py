"""Golden files of IRIS and Delta-IRIS: their tensors, tolerances and configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from golden_file import GoldenFile, opened
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.specs import TensorSpec
from worldflux.testing import random_batch
from worldflux_iris.iris.agent import IRISAgent
from worldflux_iris.iris.config import TINY

SMALL = {"image": TensorSpec((3, 16, 16), "uint8", 0, 255)}
CHOICE = {"action": TensorSpec((), "int64", n=4)}


class Golden(GoldenFile):
    """One file of the form that the page beside it describes."""

    def outputs(self, group: str) -> set[str]:
        """The names of a group's outputs."""
        return set(self.group(f"out/{group}"))

    def check_group(self, group: str, ours: dict[str, Tensor]) -> None:
        """Assert that `ours` are all outputs of a group, within their tolerances."""
        assert ours.keys() == self.outputs(group), ours.keys() ^ self.outputs(group)
        for name, value in ours.items():
            self.check(f"{group}/{name}", value)

    def check(self, name: str, ours: Tensor, atol: float | None = None) -> None:
        """As for any file; images of bytes may differ by one in one of a thousand numbers."""
        expected = self.tensors[f"out/{name}"]
        if expected.dtype != torch.uint8:
            super().check(name, ours, atol)
            return
        apart = (ours.detach().reshape(expected.shape).int() - expected.int()).abs()
        assert int(apart.max()) <= 1 and float((apart > 0).float().mean()) <= 1e-3, name


@pytest.fixture(scope="session")
def golden() -> Golden:
    """IRIS's."""
    return opened("iris", Golden)


@pytest.fixture(scope="session")
def delta_golden() -> Golden:
    """Delta-IRIS's."""
    return opened("delta_iris", Golden)


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
