"""Golden files of the JEPA families: tensors, tolerances and configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from golden_file import GoldenFile, opened
from torch import Tensor


class Golden(GoldenFile):
    """One file of the form that the `.md` beside it describes."""

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def check(self, name: str, ours: Tensor, atol: float | None = None) -> None:
        """As for any file, of the same shape."""
        expected = self.tensors[f"out/{name}"]
        assert ours.shape == expected.shape, (name, ours.shape, expected.shape)
        super().check(name, ours, atol)


@pytest.fixture(scope="session")
def golden_of() -> Callable[[str], Golden]:
    """Golden files by family, or a skip that says where they were looked for."""

    @cache
    def read(family: str) -> Golden:
        return opened(family, Golden)

    return read


@pytest.fixture(autouse=True)
def _forked_rng() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
