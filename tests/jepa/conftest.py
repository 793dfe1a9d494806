"""Golden files of the JEPA families: tensors, tolerances and configurations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

FOLDER = Path(os.environ.get("WORLDFLUX_GOLDEN", "../shared/golden"))


class Golden:
    """One file of the form that the `.md` beside it describes."""

    def __init__(self, path: Path) -> None:
        with safe_open(str(path), "pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        self.config: dict[str, Any] = json.loads(metadata["config"])
        self.atol: dict[str, float] = json.loads(metadata["atol"])
        self.rtol = float(metadata["rtol"])
        self.checked: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below `prefix/`, without it."""
        start = f"{prefix}/"
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}

    def weights(self) -> dict[str, Tensor]:
        """The reference's named weights."""
        return {k: v.float() if v.is_floating_point() else v for k, v in self.group("w").items()}

    def outputs(self) -> set[str]:
        """The names of all outputs."""
        return {name for name in self.tensors if name.startswith("out/")}

    def check(self, name: str, ours: Tensor, atol: float | None = None) -> None:
        """Assert that `ours` is output `name`, within its tolerance."""
        expected, ours = self.tensors[f"out/{name}"], ours.detach()
        self.checked.add(f"out/{name}")
        assert ours.shape == expected.shape, (name, ours.shape, expected.shape)
        if not expected.is_floating_point():
            assert torch.equal(ours.to(expected.dtype), expected), name
            return
        default = 1e-5 * float(expected.abs().max())
        bound = atol if atol is not None else self.atol.get(f"out/{name}", default)
        worst = (ours.double() - expected.double()).abs() - self.rtol * expected.double().abs()
        assert float(worst.max()) <= bound, f"{name}: {float(worst.max()):.3g} > {bound:.3g}"


@pytest.fixture(scope="session")
def golden_of() -> Callable[[str], Golden]:
    """Golden files by family, or a skip that says where they were looked for."""

    @cache
    def read(family: str) -> Golden:
        path = FOLDER / f"{family}.safetensors"
        if not path.is_file():
            pytest.skip(f"no golden file at {path}: set WORLDFLUX_GOLDEN to its folder")
        return Golden(path)

    return read


@pytest.fixture(autouse=True)
def _forked_rng() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
