"""A world whose state is a point (cos, sin) on a ring; actions turn it."""

from collections.abc import Collection, Mapping
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux import Batch, ConditionPayload, LossOutput, State, TensorSpec, WorldModel
from worldflux.core.actions import VectorActions
from worldflux.core.interfaces import SLOTS, Decoder, DynamicsModel, ObservationEncoder
from worldflux.core.rand import Rand
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux_ring.config import RingConfig
from worldflux_ring.plugin import ABLE

Specs = Mapping[str, TensorSpec]


def mlp(inputs: int, units: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, units), nn.SiLU(), nn.Linear(units, outputs))


def unit(obs: Tensor) -> Tensor:
    """Images as numbers in [0, 1], everything else as it is."""
    return obs / 255 if obs.dtype == torch.uint8 else obs.float()


class Encoder(ObservationEncoder):
    def __init__(self, obs_spec: Specs, units: int) -> None:
        super().__init__()
        self.keys = list(obs_spec)
        self.net = mlp(sum(prod(spec.shape) for spec in obs_spec.values()), units, 2)

    def forward(self, obs: Mapping[str, Tensor]) -> State:
        x = torch.cat([unit(obs[key]).flatten(1) for key in self.keys], -1)  # (B, D)
        return State({"point": F.normalize(self.net(x), dim=-1)})  # (B, 2)


class Turn(DynamicsModel):
    def __init__(self, features: Specs, units: int) -> None:
        super().__init__()
        self.angle = mlp(features["action"].size, units, 1)

    def transition(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        angle = self.angle(action)  # (B, A) -> (B, 1)
        x, y = state["point"].split(1, -1)
        turned = (x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos())
        return State({"point": torch.cat(turned, -1)})  # (B, 2)


class Heads(Decoder):
    def __init__(self, predictions: Specs, units: int) -> None:
        super().__init__()
        self.shapes = {key: spec.shape for key, spec in predictions.items()}
        self.nets = nn.ModuleDict({k: mlp(2, units, prod(s)) for k, s in self.shapes.items()})

    def forward(
        self,
        state: State,
        keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> dict[str, Tensor]:
        asked = [key for key in self.shapes if keys is None or key in keys]
        point = state["point"]
        return {key: self.nets[key](point).reshape(-1, *self.shapes[key]) for key in asked}


class RingModel(WorldModel):
    """Encodes to the ring, turns by a learned angle, decodes observations and reward."""

    capabilities = frozenset(ABLE)
    composable_support = frozenset(SLOTS)

    def __init__(self, config: RingConfig, obs_spec: Specs, action_spec: Specs) -> None:
        super().__init__(config, obs_spec, action_spec)
        units, point = config.model.units, {"point": (2,)}
        self.fill("observation_encoder", lambda: Encoder(obs_spec, units), expects=point)
        self.fill("action_conditioner", lambda: VectorActions(next(iter(action_spec.values()))))
        self.fill("dynamics_model", lambda: Turn(self.features, units), expects=point)
        self.fill("decoder_module", lambda: Heads(self.prediction_spec().tensors, units))

    def state_spec(self) -> StateSpec:
        return StateSpec({"point": TensorSpec((2,), low=-1.0, high=1.0)})

    def prediction_spec(self) -> PredictionSpec:
        floats = {key: TensorSpec(spec.shape) for key, spec in self.obs_spec.items()}
        return PredictionSpec({**floats, "reward": TensorSpec(())})

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """Imagine a Batch (B, T) from its first step, and compare until an episode ends."""
        start = self.encode({key: value[:, 0] for key, value in batch.obs.items()})
        imagined = self.rollout(start, batch.require("action")[:, :-1].transpose(0, 1), decode=True)
        found = {key: value[1:] for key, value in (imagined.observations or {}).items()}
        found["reward"] = imagined.require("rewards")  # all (T-1, B, ...)
        wanted = {key: unit(value)[:, 1:].transpose(0, 1) for key, value in batch.obs.items()}
        wanted["reward"] = batch.require("reward")[:, 1:].T
        same = (~batch.is_first[:, 1:]).cumprod(1).bool().T  # (T-1, B), still the same episode
        parts = {key: F.mse_loss(found[key][same], wanted[key][same]) for key in found}
        return LossOutput(loss=torch.stack([*parts.values()]).sum(), components=parts)
