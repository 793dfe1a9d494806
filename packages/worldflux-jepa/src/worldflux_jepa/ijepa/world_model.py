"""I-JEPA's model: an encoder of images, and what guesses its slow copy's hidden tokens."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput
from worldflux.core.rand import Rand
from worldflux.core.spec import StateSpec
from worldflux.core.state import State
from worldflux.distributed import mean
from worldflux.nn.slow import slow_copy
from worldflux.specs import TensorSpec
from worldflux_jepa.collapse import spread
from worldflux_jepa.encoder import ViT
from worldflux_jepa.ijepa.config import IJEPAConfig
from worldflux_jepa.ijepa.losses import patch_error, targets
from worldflux_jepa.ijepa.masks import Masks, draw_masks
from worldflux_jepa.ijepa.networks import Predictor
from worldflux_jepa.pixels import image_key
from worldflux_jepa.vit import mask_major, sincos_2d

KEEP, HIDDEN = "keep", "hidden"
"""Further columns of a batch: the masks that its learner drew (B, T, masks, patches)."""


class IJEPAModel(WorldModel):
    """Images to a vector for each patch; it has no actions and no dynamics."""

    composable_support = frozenset({"observation_encoder"})

    def __init__(
        self,
        config: IJEPAConfig,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        """Actions of the data are not used. `CapabilityError` where there is no image."""
        super().__init__(config, obs_spec, None)
        self.key = image_key(obs_spec, "I-JEPA")
        height, width = obs_spec[self.key].shape[1:]
        own = config.model
        patch = own.encoder.patch_for(height)
        self.grid = height // patch, width // patch
        count = self.grid[0] * self.grid[1]
        kept = torch.zeros(1, 2, dtype=torch.int64)
        self.fill(
            "observation_encoder",
            lambda: ViT(own.encoder, self.key, obs_spec[self.key]),
            expects={"rep": (count, None), "kept": (2, None)},
            trial=lambda part: {
                "rep": part(self._zeros())["rep"],
                "kept": part(self._zeros(), keep=kept)["rep"],
            },
        )
        self.width = self.features["rep"].shape[-1]
        table = sincos_2d(*self.grid, own.predictor.width)
        self.predictor = Predictor(own.predictor, self.width, own.encoder.heads, table)
        self.target = slow_copy(self.slot("observation_encoder"))  # after fill: the caller's too

    def _zeros(self) -> dict[str, Tensor]:
        spec = self.obs_spec[self.key]
        return {self.key: torch.zeros(1, *spec.shape, dtype=getattr(torch, spec.dtype))}

    def state_spec(self) -> StateSpec:
        return StateSpec({"rep": TensorSpec((self.grid[0] * self.grid[1], self.width))})

    def masks(self, rows: int, rand: Rand | None = None) -> Masks:
        """Masks of `rows` images; `rand` is asked as `draw_masks` says, under "mask/"."""
        config = self.config
        assert isinstance(config, IJEPAConfig), type(config)
        return draw_masks(config.model.mask, self.grid, rows, (rand or Rand()).under("mask/"))

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        """Smooth L1 between guesses and the slow encoder's tokens of images (B, T, C, Y, X).

        Masks are those in `batch.extra`, where a learner drew them, or drawn here.
        """
        obs = {self.key: batch.obs[self.key].flatten(0, 1)}
        if KEEP in batch.extra:
            keep, hidden = (batch.extra[name].flatten(0, 1) for name in (KEEP, HIDDEN))
        else:
            drawn = self.masks(batch.is_first.numel(), rand)
            keep, hidden = (x.to(batch.is_first.device) for x in (drawn.keep, drawn.hidden))
        guess = self.guess(obs, keep, hidden)
        with torch.no_grad():
            whole = self.target(obs)["rep"]
        wanted = targets(whole, hidden, keep.shape[1])
        error = patch_error(guess, wanted).unflatten(0, (-1, len(whole))).mean(0)  # (B * T,)
        loss = mean(error, None if batch.mask is None else batch.mask.flatten())
        return LossOutput(loss, {"patches": loss}, {**spread(whole.mean(1))})

    def guess(self, obs: dict[str, Tensor], keep: Tensor, hidden: Tensor) -> Tensor:
        """Guesses (H * C * B, M, D) of hidden (B, H, M) from contexts keep (B, C, K)."""
        encoder = self.slot("observation_encoder", "loss")
        seen: State = encoder(obs, keep=mask_major(keep))
        return self.predictor(seen["rep"], keep, hidden)
