"""What a model predicts one step ahead in the line world, beside what followed.

A model without dynamics is asked for the step that it is shown instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.sequence import actions_of
from worldflux.core.state import CACHE, State
from worldflux.testing.line_world import line_world

_ROWS, _LENGTH = 64, 12
_INNER = slice(3, _LENGTH - 1)  # steps with an earlier and a later one that could be predicted


@dataclass(frozen=True, eq=False)
class Prediction:
    """One head after `observe` ... `observe`, `transition`: predicted and true, all (N,).

    `earlier` and `later` are the true values one step before and after.
    """

    name: str
    predicted: Tensor
    true: Tensor
    earlier: Tensor
    later: Tensor

    @property
    def ratio(self) -> float:
        """Error as a share of the smaller of the constant's and the shifted predictor's."""
        constant = self.true.var(correction=0)
        shifted = ((self.earlier - self.true) ** 2).mean()
        return float(((self.predicted - self.true) ** 2).mean() / torch.minimum(constant, shifted))


@torch.no_grad()
def predictions(model: WorldModel, seed: int = 10**6) -> Iterator[Prediction]:
    """The heads' predictions on sequences that nobody trained on; else a read-out of the State."""
    batch = line_world(model.obs_spec, model.action_spec, _ROWS, _LENGTH, seed, model.stride)
    lag = 0 if model.dynamics_model is None else 1
    ahead = _ahead(model, batch) if lag else _seen(model, batch)
    heads = [] if model.decoder_module is None else [model.decode(s).predictions for s in ahead]
    named = {
        name: torch.stack([found[name].float() for found in heads], 1)
        for name in (heads[0] if heads else ())
        if name not in model.constant_predictions
    }
    truths = _truths(model, batch)
    if not truths.keys() & named.keys() - {"continue"}:
        position = batch.obs["state"][..., 0] if "state" in batch.obs else _position(batch)
        named["position"], truths["position"] = _read_out(ahead, position[:, lag:]), position
    for name in named.keys() & truths.keys():
        yield _prediction(name, named[name], truths[name], _within_episode(batch), lag)


def _prediction(name: str, ahead: Tensor, truth: Tensor, valid: Tensor, lag: int) -> Prediction:
    """`ahead[:, t]` is predicted at step t for step t + lag; all (B, T, ...)."""
    steps = _INNER
    parts = (
        ahead[:, steps.start - lag : steps.stop - lag],
        truth[:, steps],
        truth[:, steps.start - 1 : steps.stop - 1],
        truth[:, steps.start + 1 : steps.stop + 1],
    )
    return Prediction(name, *(part[valid[:, steps]].flatten() for part in parts))


def _ahead(model: WorldModel, batch: Batch) -> list[State]:
    """For every step t but the last, the State predicted for t + 1 from what was seen up to t."""
    state: State | None = None
    action = actions_of(model, batch)
    ahead = []
    for t in range(_LENGTH - 1):
        obs = {key: value[:, t] for key, value in batch.obs.items()}
        if state is None:
            state = model.encode(obs, deterministic=True)
        else:
            first = batch.is_first[:, t]
            state = model.observe(state, action[:, t - 1], obs, first, deterministic=True)
        ahead.append(model.transition(state, action[:, t], deterministic=True))
    return ahead


def _seen(model: WorldModel, batch: Batch) -> list[State]:
    """For every step, the State that a model without dynamics has of it."""
    every = ({key: value[:, t] for key, value in batch.obs.items()} for t in range(_LENGTH))
    return [model.encode(obs, deterministic=True) for obs in every]


def _truths(model: WorldModel, batch: Batch) -> dict[str, Tensor]:
    truths = {"continue": (~batch.is_terminal).float()}
    if batch.reward is not None:
        truths["reward"] = batch.reward
    for key, spec in model.obs_spec.items():
        truths[key] = batch.obs[key].float() / (255.0 if spec.image else 1.0)
    return truths


def _within_episode(batch: Batch) -> Tensor:
    """Steps (B, T) whose two predecessors belong to the same episode."""
    first = batch.is_first.clone()
    first[:, 1:] |= batch.is_first[:, :-1]
    return ~first


def _position(batch: Batch) -> Tensor:
    """The brightest column (B, T) of the images' upper half, in [-1, 1]."""
    image = batch.obs["image"]
    return image[..., 0, 0, :].float().argmax(-1) / (image.shape[-1] - 1) * 2 - 1


def _read_out(ahead: list[State], position: Tensor) -> Tensor:
    """The next position (B, T - 1), read linearly from the States; fitted on half of the rows."""
    rows = position.shape[0]
    tensors = [
        torch.stack([state[key].reshape(rows, -1).double() for state in ahead], 1)
        for key in ahead[0].tensors
        if ahead[0][key].is_floating_point() and not key.startswith(CACHE)
    ]
    inputs = torch.cat([*tensors, torch.ones(rows, len(ahead), 1).double()], -1)
    seen, target = inputs[: rows // 2].flatten(0, 1), position[: rows // 2].flatten().double()
    ridge = 1e-3 * len(seen) * torch.eye(seen.shape[1]).double()
    weights = torch.linalg.solve(seen.T @ seen + ridge, seen.T @ target)
    return (inputs @ weights).float()
