"""What V-JEPA must and must not do, each as a property that can fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.payloads import WorldModelInput
from worldflux.core.rand import Rand
from worldflux.errors import CapabilityError, ContractError
from worldflux.specs import TensorSpec
from worldflux_jepa.vit import sincos_3d
from worldflux_jepa.vjepa.agent import VJEPALearner
from worldflux_jepa.vjepa.config import PRESETS, ClipMaskConfig
from worldflux_jepa.vjepa.masks import check_possible, draw_clip_masks
from worldflux_jepa.vjepa.world_model import VJEPAModel

IMAGE = {"image": TensorSpec((3, 16, 16), "uint8", low=0, high=255)}
SMALL = PRESETS["tiny"].with_(
    **{
        "model.encoder.width": 24, "model.encoder.depth": 1, "model.encoder.patch": 4,
        "model.predictor.width": 24, "model.predictor.depth": 1, "agent.batch": 4,
    }
)  # fmt: skip
ENCODERS = {"large": 303_885_312, "huge": 631_648_000, "giant": 1_012_173_952}


def learner(**changes: Any) -> VJEPALearner:
    made = VJEPALearner(SMALL.with_(**changes), IMAGE)
    made.total = {"encoder": 100}
    return made


def video(rows: int, frames: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, frames, 3, 16, 16), generator=generator).to(torch.uint8)


def batch(rows: int = 4, frames: int = 4, seed: int = 0) -> Batch:
    none = torch.zeros(rows, frames, dtype=torch.bool)
    first = none.clone()
    first[:, 0] = True
    return Batch({"image": video(rows, frames, seed)}, first, none, none)


@pytest.mark.parametrize(("preset", "count"), ENCODERS.items())
def test_published_sizes(preset: str, count: int) -> None:
    spec = {"image": TensorSpec((3, 224, 224), "uint8", low=0, high=255)}
    with torch.device("meta"):
        encoder = VJEPAModel(PRESETS[preset], spec).observation_encoder
    assert encoder.grid == (8, 14, 14)
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == count


def test_positions_of_tubelets() -> None:
    table = sincos_3d(2, 3, 4, 96)
    assert table.shape == (24, 96) and len(table.unique(dim=0)) == 24
    assert torch.equal(table[:12, 32:], table[12:, 32:]), "space is the same in every frame"
    assert torch.equal(table[0, :32], table[11, :32]), "time is the same all over a frame"


@pytest.mark.parametrize("kind", SMALL.model.masks)
def test_seen_and_guessed_are_apart_and_blocks_last_all_the_time(kind: ClipMaskConfig) -> None:
    for seed in range(10):
        found = draw_clip_masks(kind, (2, 4, 4), 8, Rand.seeded(seed))
        for keep, hidden in zip(found.keep[:, 0], found.hidden[:, 0], strict=True):
            assert not set(keep.tolist()) & set(hidden.tolist())
    one = ClipMaskConfig(blocks=1, scale=(0.25, 0.25))
    hidden = draw_clip_masks(one, (3, 4, 4), 5, Rand.seeded(0)).hidden[:, 0]
    places = hidden.unflatten(1, (3, -1)) % 16
    assert torch.equal(places[:, 0], places[:, 2]), "hidden in every frame"


def test_masks_that_cannot_be_are_an_error() -> None:
    nothing = ClipMaskConfig(blocks=1, scale=(0.01, 0.02))
    with pytest.raises(ContractError, match=r"masks\[0\] hides nothing of a 2x4x4 grid"):
        check_possible((nothing,), (2, 4, 4))
    everything = ClipMaskConfig(blocks=1, scale=(1.0, 1.0), aspect=(1.0, 1.0))
    with pytest.raises(ContractError, match=r"masks\[0\] hides all"):
        check_possible((everything,), (2, 4, 4))
    crowded = ClipMaskConfig(blocks=60, scale=(0.5, 0.5))
    with pytest.raises(ContractError, match="hid all of a 2x4x4 grid of tubelets in 20 rounds"):
        draw_clip_masks(crowded, (2, 4, 4), 4, Rand.seeded(0))
    with pytest.raises(ContractError, match="hides nothing"):
        learner(**{"model.masks": [{"blocks": 1, "scale": [0.01, 0.02]}]})


def test_hidden_pixels_never_reach_the_guess() -> None:
    model = learner().world_model
    mask = model.masks(2, Rand.seeded(0))[0]
    seen = torch.zeros(2, model.count, dtype=torch.bool).scatter(1, mask.keep[:, 0], True)
    wide = seen.reshape(2, 2, 1, 4, 4).repeat_interleave(2, 1)
    pixels = wide.repeat_interleave(4, 3).repeat_interleave(4, 4)
    guesses = []
    for clip in (video(2), torch.where(pixels, video(2), video(2, seed=1)), video(2, seed=1)):
        encoded = model.observation_encoder({"image": clip}, keep=mask.keep[:, 0])["rep"]
        guesses.append(model.predictor(encoded, mask.keep, mask.hidden, 0))
    assert torch.equal(guesses[0], guesses[1]) and not torch.equal(guesses[0], guesses[2])


def test_each_kind_of_masks_has_its_token() -> None:
    own = learner()
    mask, model = own.world_model.masks(2, Rand.seeded(0))[0], own.world_model
    torch.nn.init.normal_(model.predictor.mask_tokens)
    z = model.observation_encoder({"image": video(2)}, keep=mask.keep[:, 0])["rep"]
    found = [model.predictor(z, mask.keep, mask.hidden, kind) for kind in (0, 1)]
    assert not torch.allclose(*found)


def test_the_target_follows_and_is_published() -> None:
    own = learner(**{"agent.momentum": (0.5, 0.5)})
    found = own.update(batch(), "encoder", rand=Rand.seeded(0)).metrics
    assert {"loss/masks0", "loss/masks1", "rep/std", "rep/rank"} <= found.keys()
    model, obs = own.world_model, {"image": video(2)[:, 0]}
    assert all(p.grad is None for p in model.target.parameters())
    fast = model.encode(obs)["rep"]
    with torch.no_grad(), own.as_published():
        assert torch.equal(model.encode(obs)["rep"], model.target(obs)["rep"])
        assert not torch.equal(model.encode(obs)["rep"], fast)


def test_clips_across_episodes_do_not_count() -> None:
    model = learner().world_model
    two = batch(2, 8)
    two.is_first[:, 6] = True
    clips, inside = model.clips(two)
    assert clips.shape[:2] == (4, 4) and inside.tolist() == [True, False, True, False]
    losses = []
    for seed in (0, 1):
        other = two.obs["image"].clone()
        other[:, 4:] = video(2, 4, seed)
        changed = Batch({"image": other}, two.is_first, two.is_last, two.is_terminal)
        losses.append(model.loss(changed, rand=Rand.seeded(0)).loss)
    torch.testing.assert_close(*losses)


def test_a_context_makes_the_clip_and_what_lacks_is_filled() -> None:
    model, clip = learner().world_model, video(2)
    whole = WorldModelInput({"image": clip[:, -1]}, context={"image": clip[:, :-1]})
    torch.testing.assert_close(
        model.encode(whole)["rep"], model.observation_encoder({"image": clip})["rep"]
    )
    still = torch.cat([clip[:, 2:3], clip[:, 2:3], clip[:, 2:]], 1)
    short = WorldModelInput({"image": clip[:, -1]}, context={"image": clip[:, 2:3]})
    torch.testing.assert_close(
        model.encode(short)["rep"], model.observation_encoder({"image": still})["rep"]
    )


def test_evaluation_has_a_loss_and_a_rank() -> None:
    own, rng = learner(), np.random.default_rng(0)
    index = np.arange(12)
    episodes = [
        {"obs.image": rng.integers(0, 255, (12, 3, 16, 16)).astype(np.uint8),
         "is_first": index == 0, "is_last": index == 11, "is_terminal": np.zeros(12, bool)}
        for _ in range(4)
    ]  # fmt: skip
    found = own.evaluate(EpisodeSource(episodes, own.columns), Rand.seeded(0), limit=2)
    assert found.score is None and found.metrics["rank_me"] > 1 and found.metrics["loss"] > 0


def test_what_it_cannot_use() -> None:
    with pytest.raises(CapabilityError, match="V-JEPA sees one image"):
        VJEPALearner(SMALL, {"state": TensorSpec((5,))})
    with pytest.raises(CapabilityError, match="at least 1x2x2 are needed"):
        VJEPAModel(SMALL.with_(**{"model.encoder.patch": 16}), IMAGE)
