"""Files of inputs, weights and outputs of published implementations, by name and tolerance."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

FOLDER = Path(os.environ.get("WORLDFLUX_GOLDEN", "../shared/golden"))


class GoldenFile:
    """One file of the form that the page beside it describes."""

    def __init__(self, path: Path) -> None:
        with safe_open(str(path), "pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        self.config: dict[str, Any] = json.loads(metadata["config"])
        self.atol: dict[str, float] = json.loads(metadata["atol"])
        self.rtol = float(metadata["rtol"])
        self.checked: set[str] = set()
        """Names of the outputs that were compared, with `out/`."""

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below `prefix/`, without it."""
        start = f"{prefix}/"
        found = {k: v for k, v in self.tensors.items() if k.startswith(start)}
        return {name.removeprefix(start): value for name, value in found.items()}

    def float_weights(self) -> dict[str, Tensor]:
        """The reference's named weights, in float32."""
        found = self.group("w")
        return {k: v.float() if v.is_floating_point() else v for k, v in found.items()}

    def all_outputs(self) -> set[str]:
        """The names of all outputs, with `out/`."""
        return {name for name in self.tensors if name.startswith("out/")}

    def check(self, name: str, ours: Tensor, atol: float | None = None) -> None:
        """Assert that `ours` is output `name`, within its tolerance."""
        expected, ours = self.tensors[f"out/{name}"], ours.detach()
        assert ours.numel() == expected.numel(), (name, ours.shape, expected.shape)
        ours = ours.reshape(expected.shape)
        self.checked.add(f"out/{name}")
        if not expected.is_floating_point():
            assert torch.equal(ours.to(expected.dtype), expected), name
            return
        bound = self.bound(name) if atol is None else atol
        worst = (ours.double() - expected.double()).abs() - self.rtol * expected.double().abs()
        assert float(worst.max()) <= bound, f"{name}: {float(worst.max()):.3g} > {bound:.3g}"

    def bound(self, name: str) -> float:
        """The absolute tolerance of an output: the file's, else 1e-5 of its largest number."""
        return self.atol.get(f"out/{name}", 1e-5 * float(self.tensors[f"out/{name}"].abs().max()))


File = TypeVar("File", bound=GoldenFile)


def opened(name: str, kind: type[File]) -> File:
    """The golden file `name`, or a skip that says where it was looked for."""
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden file at {path}: set WORLDFLUX_GOLDEN to its folder")
    return kind(path)
