"""Random batches that keep the time convention, for any spaces."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

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
    action_spec: Mapping[str, TensorSpec],
    batch: int = 2,
    length: int = 6,
    *,
    boundary: bool = True,
    seed: int = 0,
) -> Batch:
    """A Batch (B, T) of noise; with `boundary`, row 0 has an episode ending in its middle."""
    generator = torch.Generator().manual_seed(seed)
    lead = (batch, length)
    flags = {name: torch.zeros(lead, dtype=torch.bool) for name in ("first", "last", "terminal")}
    flags["first"][:, 0] = True
    middle = length // 2
    if boundary and length > 2:
        flags["last"][0, middle - 1] = flags["terminal"][0, middle - 1] = True
        flags["first"][0, middle] = True
    action = random_values(next(iter(action_spec.values())), lead, generator)
    action[flags["last"]] = 0
    reward = torch.randn(lead, generator=generator).masked_fill(flags["first"], 0.0)
    return Batch(
        obs=random_obs(obs_spec, lead, generator),
        action=action,
        reward=reward,
        is_first=flags["first"],
        is_last=flags["last"],
        is_terminal=flags["terminal"],
    )
