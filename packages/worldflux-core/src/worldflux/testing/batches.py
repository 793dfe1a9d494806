"""Random batches that keep the time convention, for any spaces."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.columns import ACTION, FLAGS, REWARD, STORED, Columns, parts, step_columns
from worldflux.core.actions import no_actions
from worldflux.core.agent import Agent
from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.observations import image_or_first
from worldflux.core.rand import Rand, normal, randint, uniform
from worldflux.specs import Capability, TensorSpec


def random_values(
    spec: TensorSpec, lead: tuple[int, ...], rand: Rand, name: str = "values"
) -> Tensor:
    """Values (lead, *shape) of `spec`: indices, uint8 pixels, or floats within [-1, 1]."""
    shape = (*lead, *spec.shape)
    if spec.discrete:
        choices = torch.tensor(spec.counts).reshape(spec.shape)
        return (rand.draw(name, shape, uniform) * choices).long()
    if spec.dtype == "uint8":
        return rand.draw(name, shape, randint(256)).to(torch.uint8)
    return rand.draw(name, shape, uniform) * 2 - 1


def random_actions(spec: TensorSpec | None, lead: tuple[int, ...], rand: Rand) -> Tensor:
    """Random actions (lead, ...) of a space; of no size (lead, 0) where there are no actions."""
    return no_actions(None, lead) if spec is None else random_values(spec, lead, rand)


def other_actions(spec: TensorSpec, action: Tensor) -> Tensor:
    """Actions that differ from `action` (..., *shape) in every number, within the space."""
    if spec.discrete:
        return (action + 1) % torch.tensor(spec.counts).reshape(spec.shape)
    return torch.where(action > 0, action - 0.9, action + 0.9)


def random_obs(
    obs_spec: Mapping[str, TensorSpec], lead: tuple[int, ...], rand: Rand
) -> dict[str, Tensor]:
    """Random observations (lead, ...) by key."""
    return {key: random_values(spec, lead, rand, key) for key, spec in obs_spec.items()}


def random_batch(
    obs_spec: Mapping[str, TensorSpec],
    action_spec: Mapping[str, TensorSpec] | None = None,
    batch: int = 2,
    length: int = 6,
    *,
    boundary: bool = True,
    seed: int = 0,
    stride: int = 1,
) -> Batch:
    """A Batch (B, T) of noise; with `boundary`, row 0 has an episode ending in its middle.

    Without an action spec it has neither actions nor rewards. Under a `stride` k actions are
    blocks (B, T, k, ...), and no row has a boundary: see `Phase.stride`.
    """
    columns = step_columns(obs_spec, action_spec)
    return random_steps(columns, batch, length, boundary=boundary, seed=seed, stride=stride)


def acting_obs(agent: Agent, rows: int = 3, seed: int = 1) -> dict[str, Tensor]:
    """Random observations (B, ...) to act on, with a goal where the model plans toward one."""
    rand, spaces = Rand.seeded(seed), dict(agent.obs_spec)
    key = image_or_first(spaces)
    if key is not None and agent.world_model.supports(Capability.GOAL_CONDITIONED):
        spaces.setdefault("goal", spaces[key])
    return random_obs(spaces, (rows,), rand)


def batch_for(
    model: WorldModel, batch: int = 2, length: int = 6, *, boundary: bool = True, seed: int = 0
) -> Batch:
    """A random Batch (B, T) of the model's spaces, stride and what it is conditioned on."""
    columns = step_columns(model.obs_spec, model.action_spec, extra=model.condition_spec)
    return random_steps(columns, batch, length, boundary=boundary, seed=seed, stride=model.stride)


def random_steps(
    columns: Columns,
    batch: int = 2,
    length: int = 6,
    *,
    boundary: bool = True,
    seed: int = 0,
    stride: int = 1,
) -> Batch:
    """As `random_batch`, of the given columns; what is stored is left out."""
    rand = Rand.seeded(seed)
    lead = (batch, length)
    first, last, terminal = (torch.zeros(lead, dtype=torch.bool) for _ in FLAGS)
    first[:, 0] = True
    middle = length // 2
    if boundary and length > 2 and stride == 1:
        last[0, middle - 1] = terminal[0, middle - 1] = True
        first[0, middle] = True
    found: dict[str, Tensor] = dict(zip(FLAGS, (first, last, terminal), strict=True))
    if ACTION in columns:
        found[ACTION] = random_values(columns[ACTION].block(stride), lead, rand, ACTION)
        found[ACTION][last] = 0
    if REWARD in columns:
        found[REWARD] = rand.draw(REWARD, lead, normal).masked_fill(first, 0.0)
    for name, spec in columns.items():
        if name not in found and not name.startswith(STORED):
            found[name] = random_values(spec, lead, rand, name)
    return Batch(**parts(found))
