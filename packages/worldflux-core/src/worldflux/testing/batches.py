"""Random batches that keep the time convention, for any spaces."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.columns import ACTION, FLAGS, REWARD, STORED, Columns, parts, step_columns
from worldflux.core.batch import Batch
from worldflux.specs import TensorSpec


def random_values(spec: TensorSpec, lead: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Values (lead, *shape) of `spec`: indices, uint8 pixels, or floats within [-1, 1]."""
    if spec.discrete:
        choices = torch.tensor(spec.counts).reshape(spec.shape)
        uniform = torch.rand(*lead, *spec.shape, generator=generator)
        return (uniform * choices).long()
    if spec.dtype == "uint8":
        shape = (*lead, *spec.shape)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return torch.rand(*lead, *spec.shape, generator=generator) * 2 - 1


def random_obs(
    obs_spec: Mapping[str, TensorSpec], lead: tuple[int, ...], generator: torch.Generator
) -> dict[str, Tensor]:
    """Random observations (lead, ...) by key."""
    return {key: random_values(spec, lead, generator) for key, spec in obs_spec.items()}


def random_batch(
    obs_spec: Mapping[str, TensorSpec],
    action_spec: Mapping[str, TensorSpec] | None = None,
    batch: int = 2,
    length: int = 6,
    *,
    boundary: bool = True,
    seed: int = 0,
) -> Batch:
    """A Batch (B, T) of noise; with `boundary`, row 0 has an episode ending in its middle.

    Without an action spec it has neither actions nor rewards.
    """
    columns = step_columns(obs_spec, action_spec)
    return random_steps(columns, batch, length, boundary=boundary, seed=seed)


def random_steps(
    columns: Columns, batch: int = 2, length: int = 6, *, boundary: bool = True, seed: int = 0
) -> Batch:
    """As `random_batch`, of the given columns; what is stored is left out."""
    generator = torch.Generator().manual_seed(seed)
    lead = (batch, length)
    first, last, terminal = (torch.zeros(lead, dtype=torch.bool) for _ in FLAGS)
    first[:, 0] = True
    middle = length // 2
    if boundary and length > 2:
        last[0, middle - 1] = terminal[0, middle - 1] = True
        first[0, middle] = True
    found: dict[str, Tensor] = dict(zip(FLAGS, (first, last, terminal), strict=True))
    if ACTION in columns:
        found[ACTION] = random_values(columns[ACTION], lead, generator)
        found[ACTION][last] = 0
    if REWARD in columns:
        found[REWARD] = torch.randn(lead, generator=generator).masked_fill(first, 0.0)
    for name, spec in columns.items():
        if name not in found and not name.startswith(STORED):
            found[name] = random_values(spec, lead, generator)
    return Batch(**parts(found))
