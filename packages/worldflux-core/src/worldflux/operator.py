"""From raw pictures, videos, arrays and names of actions to the tensors that a model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from worldflux import spaces
from worldflux.core.statistics import Statistics
from worldflux.errors import CapabilityError, ConfigError, ContractError, did_you_mean
from worldflux.factory import get_model_spec
from worldflux.pictures import Fit, as_picture, frames_in, is_one_picture
from worldflux.specs import TensorSpec


class Operator:
    """Takes what people have and gives what a model of these spaces takes; batched, no weights.

    `operator({"image": "photo.png"})` gives observations by key, (B, ...); the key may be left out
    where there is one. A picture is a file, a PIL image or an array (Y, X), (Y, X, C) or (C, Y, X)
    of bytes or of numbers in [0, 1]; a list, or an array with one more axis, is a batch. Pictures
    are scaled to the model's size, after cutting to its shape (`fit="crop"`) or as they are
    (`"stretch"`). Vectors are standardised by `statistics` where there are some of their key.
    """

    def __init__(
        self,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
        *,
        statistics: Mapping[str, Statistics] | None = None,
        fit: Fit = "crop",
    ) -> None:
        self.obs_spec, self.action_spec = dict(obs_spec), dict(action_spec or {})
        self.statistics, self.fit = dict(statistics or {}), fit
        for key in self.statistics:
            if key not in self.obs_spec:
                raise ConfigError(
                    f"There are statistics of {key!r}, which is no observation."
                    f"{did_you_mean(key, self.obs_spec)} Observations: {', '.join(self.obs_spec)}."
                )

    def __call__(self, raw: Any) -> dict[str, Tensor]:
        """Observations by key, each (B, ...), of one example or of a batch."""
        given = raw if isinstance(raw, Mapping) else {self._only_key(raw): raw}
        for key in given:
            if key not in self.obs_spec:
                raise ContractError(
                    f"The model observes no {key!r}.{did_you_mean(str(key), self.obs_spec)} "
                    f"Observations: {', '.join(self.obs_spec)}."
                )
        return {key: self._observation(key, value) for key, value in given.items()}

    def video(self, raw: Any, key: str | None = None) -> dict[str, Tensor]:
        """A video as a sequence (1, T, C, Y, X): a file, or frames as for pictures."""
        name = key or self._image_key()
        frames = frames_in(raw) if isinstance(raw, str | Path) else raw
        return {name: self._observation(name, frames)[None]}

    def action(self, raw: Any) -> Tensor:
        """Actions (B, A), or indices (B,): numbers within the space, or labels of choices."""
        spec = next(iter(self.action_spec.values()), None)
        if spec is None:
            raise CapabilityError("This model has no actions.")
        if spec.labels is not None:
            raw = _indices(raw, spec.labels)
        values = torch.as_tensor(np.asarray(raw))
        values = values.to(torch.int64 if spec.discrete else torch.float32)
        values = values[None] if tuple(values.shape) == spec.shape else values
        _require_shape("action", values, spec)
        _require_bounds("action", values, spec)
        return values

    def _observation(self, key: str, raw: Any) -> Tensor:
        spec = self.obs_spec[key]
        if spec.image:
            one = is_one_picture(raw)
            pictures = [raw] if one else list(raw)
            return torch.stack([as_picture(each, spec.shape, self.fit) for each in pictures])
        words = [raw] if isinstance(raw, str) else raw
        if isinstance(words, Sequence) and any(isinstance(word, str) for word in words):
            raise CapabilityError(
                f"Observation {key!r} is {spec.dtype} {spec.shape}, no text: this family reads "
                "none."
            )
        values = torch.as_tensor(np.asarray(raw)).to(getattr(torch, spec.dtype))
        values = values[None] if tuple(values.shape) == spec.shape else values
        _require_shape(f"observation {key!r}", values, spec)
        if key in self.statistics:
            mean, std = (
                torch.as_tensor(np.asarray(x), dtype=values.dtype)
                for x in (self.statistics[key].mean, self.statistics[key].std)
            )
            return (values - mean) / std.clamp_min(1e-8)
        _require_bounds(f"observation {key!r}", values, spec)
        return values

    def _only_key(self, raw: Any) -> str:
        if len(self.obs_spec) != 1:
            raise ContractError(
                f"The model observes {', '.join(self.obs_spec)}: give a mapping of these, not a "
                f"{type(raw).__name__}."
            )
        return next(iter(self.obs_spec))

    def _image_key(self) -> str:
        keys = [key for key, spec in self.obs_spec.items() if spec.image]
        if len(keys) != 1:
            raise ContractError(
                f"The model observes {len(keys)} images ({', '.join(keys) or 'none'}): name one "
                "with key=..."
            )
        return keys[0]


def create_operator(
    source: Any,
    *,
    obs_spec: Mapping[str, TensorSpec] | None = None,
    action_spec: Mapping[str, TensorSpec] | None = None,
    obs_shape: Sequence[int] | None = None,
    action_dim: int | None = None,
    discrete: bool | None = None,
    statistics: Mapping[str, Statistics] | None = None,
    fit: Literal["crop", "stretch"] = "crop",
) -> Operator:
    """What turns raw inputs into a model's: `create_operator("runs/catch")`.

    `source` is a model or agent, a saved folder, run or hub id (its spaces are saved with it; no
    weights are read), or a family's id with the spaces as for `create_world_model`. `statistics`
    of the training data (`Source.statistics`) standardise vectors by key.
    """
    spaces_given = (obs_spec, action_spec, obs_shape, action_dim, discrete)
    if isinstance(source, str) and not Path(source).exists() and "/" not in source:
        get_model_spec(source)
        obs = spaces.resolve_obs_spec(obs_spec, obs_shape)
        action = spaces.resolve_action_spec(action_spec, action_dim, discrete)
        return Operator(obs, action, statistics=statistics, fit=fit)
    if any(given is not None for given in spaces_given):
        raise ConfigError("A model has its own spaces: give spaces with the id of a family only.")
    if isinstance(source, str | Path):
        from worldflux.hub import saved_specs

        return Operator(*saved_specs(source), statistics=statistics, fit=fit)
    return Operator(source.obs_spec, source.action_spec, statistics=statistics, fit=fit)


def _indices(raw: Any, labels: tuple[str, ...]) -> Any:
    names = [raw] if isinstance(raw, str) else raw
    if not (isinstance(names, Sequence) and all(isinstance(name, str) for name in names)):
        return raw
    for name in names:
        if name not in labels:
            raise ContractError(
                f"There is no action {name!r}.{did_you_mean(name, labels)} Actions: "
                f"{', '.join(labels)}."
            )
    return [labels.index(name) for name in names]


def _require_shape(what: str, values: Tensor, spec: TensorSpec) -> None:
    if tuple(values.shape[1:]) != spec.shape:
        raise ContractError(
            f"The {what} has shape {tuple(values.shape)}, expected {spec.shape}, or a batch of "
            "them."
        )


def _require_bounds(what: str, values: Tensor, spec: TensorSpec) -> None:
    if spec.n is not None:
        low: Any = 0
        high: Any = np.asarray(spec.n) - 1
    else:
        low = -np.inf if spec.low is None else np.asarray(spec.low)
        high = np.inf if spec.high is None else np.asarray(spec.high)
    outside = (values.numpy() < low) | (values.numpy() > high)
    if outside.any():
        raise ContractError(
            f"The {what} has {values.numpy()[outside][0]}, outside of its space: {spec.to_json()}."
        )
