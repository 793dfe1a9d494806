"""V-JEPA's model: an encoder of clips, and what guesses its slow copy's hidden tubelets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.observations import Observation
from worldflux.core.output import LossOutput
from worldflux.core.payloads import WorldModelInput
from worldflux.core.rand import Rand
from worldflux.core.spec import StateSpec
from worldflux.core.state import State
from worldflux.distributed import mean
from worldflux.nn.slow import slow_copy
from worldflux.specs import TensorSpec
from worldflux_jepa.collapse import spread
from worldflux_jepa.pixels import image_key
from worldflux_jepa.vit import gathered, sincos_3d
from worldflux_jepa.vjepa.config import VJEPAConfig
from worldflux_jepa.vjepa.masks import ClipMasks, draw_clip_masks
from worldflux_jepa.vjepa.networks import ClipPredictor, ClipViT


class VJEPAModel(WorldModel):
    """Clips to a vector for each tubelet; it has no actions and no dynamics."""

    composable_support = frozenset({"observation_encoder"})
    input_support = frozenset({"context"})

    def __init__(
        self,
        config: VJEPAConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        """Actions of the data are not used. `CapabilityError` where there is no image."""
        self.stride = config.model.stride
        super().__init__(config, obs_spec, None)
        own = self.own = config.model
        self.key = image_key(obs_spec, "V-JEPA")
        spec = obs_spec[self.key]
        patch = own.encoder.patch_for(spec.shape[1])
        self.grid = own.frames // own.tubelet, spec.shape[1] // patch, spec.shape[2] // patch
        count = self.grid[0] * self.grid[1] * self.grid[2]
        kept = torch.zeros(1, 2, dtype=torch.int64)
        self.fill(
            "observation_encoder",
            lambda: ClipViT(own, self.key, spec),
            expects={"rep": (count, None), "kept": (2, None)},
            trial=lambda part: {
                "rep": part(self._zeros())["rep"],
                "kept": part(self._zeros(), keep=kept)["rep"],
            },
        )
        self.width = self.features["rep"].shape[-1]
        self.count = count
        table = sincos_3d(*self.grid, own.predictor.width)
        self.predictor = ClipPredictor(
            own.predictor, self.width, own.encoder.heads, table, len(own.masks)
        )
        self.target = slow_copy(self.slot("observation_encoder"))

    def _zeros(self) -> dict[str, Tensor]:
        spec = self.obs_spec[self.key]
        shape = (1, self.own.frames, *spec.shape)
        return {self.key: torch.zeros(shape, dtype=getattr(torch, spec.dtype))}

    def state_spec(self) -> StateSpec:
        return StateSpec({"rep": TensorSpec((self.count, self.width))})

    def encode(
        self, obs: Observation, deterministic: bool = False, *, rand: Rand | None = None
    ) -> State:
        """The clip that ends in an observation (B, C, Y, X) as a State.

        `WorldModelInput.context` holds the frames before it (B, T, C, Y, X), the newest last; of
        those that a clip lacks, the first one there is stands for all.
        """
        frame = self.observations(obs)[self.key][:, None]
        if isinstance(obs, WorldModelInput) and self.key in obs.context:
            frame = torch.cat([obs.context[self.key].to(frame), frame], 1)
        return self.slot("observation_encoder", "encode")({self.key: self._whole(frame)})

    def _whole(self, frames: Tensor) -> Tensor:
        """The last frames (B, T, C, Y, X) as a clip, the first repeated where there are too few."""
        frames = frames[:, -self.own.frames :]
        missing = self.own.frames - frames.shape[1]
        return torch.cat([frames[:, :1].expand(-1, missing, -1, -1, -1), frames], 1)

    def masks(self, rows: int, rand: Rand | None = None) -> list[ClipMasks]:
        """Masks of `rows` clips, one for each kind; `rand` is asked under "mask<kind>/"."""
        rand = rand or Rand()
        return [
            draw_clip_masks(kind, self.grid, rows, rand.under(f"mask{i}/"))
            for i, kind in enumerate(self.own.masks)
        ]

    def clips(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The whole clips (N, T, C, Y, X) of sequences, and whether each lies in one episode (N,).

        What is left over at a sequence's end is not used; a shorter one is filled up.
        """
        video, first = batch.obs[self.key], batch.is_first
        if video.shape[1] < self.own.frames:
            inside = ~first[:, 1:].any(1)
            return self._whole(video), inside
        count = video.shape[1] // self.own.frames
        cut = (count, self.own.frames)
        video = video[:, : count * self.own.frames].unflatten(1, cut).flatten(0, 1)
        first = first[:, : count * self.own.frames].unflatten(1, cut).flatten(0, 1)
        return video, ~first[:, 1:].any(1)

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """Errors of guessed tubelets' tokens, the mean over kinds of masks.

        Masks are those in `batch.extra`, where a learner drew them, or drawn here.
        """
        video, inside = self.clips(batch)
        drawn = self.drawn(batch) or self.masks(len(video), rand)
        with torch.no_grad():
            whole = self.target({self.key: video})["rep"]
            wanted = F.layer_norm(whole, (self.width,))
        parts = {}
        for kind, mask in enumerate(drawn):
            keep, hidden = mask.keep.to(video.device), mask.hidden.to(video.device)
            seen: State = self.slot("observation_encoder", "loss")(
                {self.key: video}, keep=keep[:, 0]
            )
            guess = self.predictor(seen["rep"], keep, hidden, kind)
            apart = (guess - gathered(wanted, hidden[:, 0])).abs().pow(self.own.exponent)
            parts[f"masks{kind}"] = mean(apart.mean((1, 2)) / self.own.exponent, inside)
        loss = torch.stack(list(parts.values())).mean()
        return LossOutput(loss, parts, dict(spread(whole.mean(1))))

    def drawn(self, batch: Batch) -> list[ClipMasks]:
        """The masks that a learner put beside its batch; none where there are none."""
        found = []
        for kind in range(len(self.own.masks)):
            if f"keep{kind}" not in batch.extra:
                return []
            keep, hidden = batch.extra[f"keep{kind}"], batch.extra[f"hidden{kind}"]
            found.append(ClipMasks(keep, hidden))
        return found
