"""What I-JEPA must and must not do: its known mistakes, each as a property that can fail."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from worldflux.columns import step_columns
from worldflux.core.batch import Batch
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.rand import Rand
from worldflux.errors import CapabilityError, ContractError, StorageError
from worldflux.factory import get_model_spec
from worldflux.specs import TensorSpec
from worldflux_jepa import probing
from worldflux_jepa.collapse import CollapseWatch, spread
from worldflux_jepa.ijepa import reference
from worldflux_jepa.ijepa.agent import IJEPALearner
from worldflux_jepa.ijepa.config import PRESETS, IJEPAConfig, MaskConfig
from worldflux_jepa.ijepa.losses import targets
from worldflux_jepa.ijepa.masks import check_possible, draw_masks
from worldflux_jepa.ijepa.world_model import IJEPAModel
from worldflux_jepa.vit import mask_major

IMAGE = {"image": TensorSpec((3, 32, 32), "uint8", low=0, high=255)}
SMALL = PRESETS["mini"].with_(
    **{"model.encoder.depth": 1, "model.encoder.width": 24, "model.predictor.width": 24,
       "model.predictor.depth": 1, "model.encoder.grid": 8, "model.mask.min_keep": 4,
       "agent.batch": 8}
)  # fmt: skip
ENCODERS = {
    "tiny": 5_524_032, "small": 21_664_896, "base": 85_797_120, "large": 303_299_584,
    "huge": 630_762_240, "giant": 1_011_368_576,
}  # fmt: skip


def images(rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, 3, 32, 32), generator=generator).to(torch.uint8)


def batch(rows: int = 8, seed: int = 0) -> Batch:
    first = torch.ones(rows, 1, dtype=torch.bool)
    return Batch({"image": images(rows, seed)[:, None]}, first, first, torch.zeros_like(first))


def learner(**changes: Any) -> IJEPALearner:
    made = IJEPALearner(SMALL.with_(**changes), IMAGE)
    made.total = {"encoder": 100}
    return made


@pytest.mark.parametrize(("preset", "count"), ENCODERS.items())
def test_published_sizes(preset: str, count: int) -> None:
    spec = {"image": TensorSpec((3, 224, 224), "uint8", low=0, high=255)}
    with torch.device("meta"):
        model = IJEPAModel(PRESETS[preset], spec)
    assert sum(p.numel() for p in model.observation_encoder.parameters()) == count


def test_published_presets_crop_images_as_published() -> None:
    spec = get_model_spec("ijepa")
    crop = {"random_resized_crop": {"size": 224, "scale": [0.3, 1.0]}}
    assert spec.defaults_of("huge") == {"data.augment": [crop]}
    assert not spec.defaults_of("mini"), "its images stay as small as they are"


@pytest.mark.parametrize("contexts", [1, 2])
def test_contexts_and_targets_are_apart(contexts: int) -> None:
    config = MaskConfig(min_keep=4, contexts=contexts)
    for seed in range(20):
        found = draw_masks(config, (8, 8), 16, Rand.seeded(seed))
        assert found.keep.shape[1] == contexts and found.hidden.shape[:2] == (16, 4)
        for keep, hidden in zip(found.keep, found.hidden, strict=True):
            assert not set(keep.flatten().tolist()) & set(hidden.flatten().tolist())
            assert all(len(set(block.tolist())) == keep.shape[1] > 4 for block in keep)
            assert all(len(set(block.tolist())) == hidden.shape[1] > 4 for block in hidden)


def test_masks_of_one_image_do_not_depend_on_its_neighbours() -> None:
    config, many = MaskConfig(min_keep=4), 3
    draws = Rand.seeded(0).asked(lambda rand: draw_masks(config, (8, 8), many, rand))
    whole = draw_masks(config, (8, 8), many, Rand(draws=draws))
    alone = {name: x if name == "size" else x[1:2] for name, x in draws.items()}
    own = draw_masks(config, (8, 8), 1, Rand(draws=alone))
    assert torch.equal(own.hidden[0], whole.hidden[1])


def test_random_masks_share_the_patches_out() -> None:
    found = draw_masks(MaskConfig(kind="random"), (7, 5), 4, Rand.seeded(0))
    both = torch.cat([found.keep, found.hidden], -1)[:, 0].sort(1).values
    assert torch.equal(both, torch.arange(35).expand(4, 35))
    assert 0.4 <= found.hidden.shape[-1] / 35 <= 0.66


@pytest.mark.parametrize(
    ("config", "grid", "text"),
    [
        (MaskConfig(), (4, 4), "target block of a 4x4 grid has at most 2x1 patches"),
        (MaskConfig(min_keep=60, target_scale=(0.9, 0.95)), (8, 8), "more than mask.min_keep=60"),
        (MaskConfig(kind="random", hidden=(0.5, 1.5)), (8, 8), "leaves none to see"),
    ],
)
def test_impossible_sizes_are_an_error(
    config: MaskConfig, grid: tuple[int, int], text: str
) -> None:
    with pytest.raises(ContractError, match=text):
        check_possible(config, grid)


def test_a_context_that_is_never_left_is_an_error_and_no_loop() -> None:
    full = MaskConfig(targets=40, min_keep=8, context_scale=(0.2, 0.25), target_scale=(0.3, 0.4))
    with pytest.raises(ContractError, match="No context of more than"):
        draw_masks(full, (8, 8), 4, Rand.seeded(0))


def test_the_learner_says_so_before_the_first_update() -> None:
    with pytest.raises(ContractError, match=r"of a 8x8 grid .* more than mask.min_keep=30"):
        learner(**{"model.mask.min_keep": 30})


def test_hidden_pixels_never_reach_the_guess() -> None:
    """Masked tokens are dropped before the encoder: no attention, no position, no batch norm."""
    model = learner().world_model
    masks = model.masks(2, Rand.seeded(3))
    one = images(2)
    seen = torch.zeros(2, 64, dtype=torch.bool).scatter(1, masks.keep[:, 0], True)
    pixels = seen.reshape(2, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    other = torch.where(pixels, one, images(2, seed=1))
    guesses = [model.guess({"image": x}, masks.keep, masks.hidden) for x in (one, other)]
    assert torch.equal(*guesses)
    assert not torch.equal(guesses[0], model.guess({"image": images(2, 1)}, *vars(masks).values()))


def test_dropped_tokens_cost_nothing() -> None:
    model = learner().world_model
    seen: list[int] = []
    model.observation_encoder.blocks[0].register_forward_hook(
        lambda module, given, out: seen.append(given[0].shape[1])
    )
    block = model.observation_encoder.blocks[0]
    keep = model.masks(2, Rand.seeded(0)).keep
    inputs = block.norm1.register_forward_hook(lambda m, given, out: seen.append(out.shape[1]))
    model.observation_encoder({"image": images(2)}, keep=mask_major(keep))
    inputs.remove()
    assert set(seen) == {keep.shape[2]} and keep.shape[2] < 64


def test_the_target_takes_no_gradient_and_follows_slowly() -> None:
    own = learner()
    model = own.world_model
    before = {k: v.clone() for k, v in model.target.state_dict().items()}
    momentum = own.scheduled("momentum")
    own.update(batch(), "encoder", rand=Rand.seeded(0))
    assert all(p.grad is None and not p.requires_grad for p in model.target.parameters())
    for name, value in model.target.state_dict().items():
        fast = model.observation_encoder.state_dict()[name]
        torch.testing.assert_close(value, momentum * before[name] + (1 - momentum) * fast)
    loss = model.loss(batch(), rand=Rand.seeded(0)).loss
    wanted = torch.autograd.grad(loss, next(iter(model.predictor.parameters())))
    assert wanted[0].abs().max() > 0


def test_targets_are_normalised() -> None:
    """Without it the encoder could make the loss small by making its features small."""
    tokens, hidden = 0.1 * torch.randn(2, 64, 24) + 5, torch.arange(12).reshape(1, 2, 6)
    found = targets(tokens, hidden.expand(2, 2, 6), 1)
    assert found.shape == (4, 6, 24)
    torch.testing.assert_close(found.mean(-1), torch.zeros(4, 6), atol=1e-4, rtol=0)
    model = learner().world_model
    loss = model.loss(batch(), rand=Rand.seeded(0)).loss
    with torch.no_grad():
        model.target.norm.weight.mul_(100)
    again = model.loss(batch(), rand=Rand.seeded(0)).loss
    torch.testing.assert_close(loss, again, atol=1e-3, rtol=0)


def test_weight_decay_spares_biases_and_vectors() -> None:
    own = learner()
    groups = own.optimizers["encoder"].param_groups
    spared = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    named = dict(own.world_model.predictor.named_parameters())
    assert id(named["norm.weight"]) in spared and id(named["proj.bias"]) in spared
    assert id(named["proj.weight"]) not in spared and id(named["mask_token"]) not in spared
    own.update(batch(), "encoder", rand=Rand.seeded(0))
    assert [group["weight_decay"] > 0 for group in groups] == [True, False]


def test_published_is_the_slow_encoder() -> None:
    own = learner(**{"agent.momentum": (0.5, 0.5)})
    own.update(batch(), "encoder", rand=Rand.seeded(0))
    model, obs = own.world_model, {"image": images(2)}
    with torch.no_grad(), own.as_published():
        assert torch.equal(model.encode(obs)["rep"], model.target(obs)["rep"])
    assert not torch.equal(model.encode(obs)["rep"], model.target(obs)["rep"])


def test_accumulated_updates_are_the_same() -> None:
    """Masks are drawn for the whole batch, in `update`."""
    found = []
    for parts in (1, 2):
        torch.manual_seed(0)
        own = learner()
        own.accumulate = parts
        found.append(own.update(batch(), "encoder", rand=Rand.seeded(0)).metrics["loss"])
    torch.testing.assert_close(*found)


def test_vectors_are_refused() -> None:
    with pytest.raises(CapabilityError, match=r"I-JEPA sees one image .* state \(5,\)"):
        IJEPALearner(SMALL, {"state": TensorSpec((5,))})


def test_an_image_of_one_patch_is_refused() -> None:
    with pytest.raises(CapabilityError, match="at least 2x2 are needed"):
        IJEPAModel(SMALL.with_(**{"model.encoder.patch": 32}), IMAGE)


def test_a_published_file_is_read(tmp_path: Path) -> None:
    model = IJEPAModel(PRESETS["mini"].with_(**{"model.predictor.heads": 3}), IMAGE)
    names = {ours: theirs for theirs, ours in reference.PREDICTOR.items()}
    parts = {
        "encoder": model.observation_encoder.state_dict(),
        "predictor": reference.renamed(model.predictor.state_dict(), names),
        "target_encoder": model.target.state_dict(),
    }
    file = {part: {f"module.{k}": v for k, v in x.items()} for part, x in parts.items()}
    torch.save({**file, "epoch": 3, "opt": {}}, tmp_path / "jepa.pth.tar")
    weights = reference.read_checkpoint(tmp_path / "jepa.pth.tar")
    read = reference.world_model(weights, heads=3)
    obs = {"image": images(2)}
    assert torch.equal(read.encode(obs)["rep"], model.encode(obs)["rep"])
    with pytest.raises(StorageError, match="give `heads`"):
        reference.world_model(weights)
    broken = {**weights, "encoder": {**weights["encoder"], "extra": torch.zeros(1)}}
    with pytest.raises(StorageError, match="only the checkpoint has 'extra'"):
        reference.load_weights(read, broken)
    torch.save({"encoder": {}}, tmp_path / "other.pth")
    with pytest.raises(StorageError, match="has no predictor, target_encoder"):
        reference.read_checkpoint(tmp_path / "other.pth")


def labelled(count: int) -> EpisodeSource:
    """Images whose brightness tells their label."""
    rng, episodes = np.random.default_rng(0), []
    for n in range(count):
        low = 160 * (n % 2)
        picture = rng.integers(low, low + 90, (1, 3, 32, 32)).astype(np.uint8)
        flags = {"is_first": True, "is_last": True, "is_terminal": False}
        episode = {"obs.image": picture, "extra.label": np.array([n % 2])}
        episodes.append(episode | {k: np.array([v]) for k, v in flags.items()})
    columns = step_columns(IMAGE, extra={"label": TensorSpec((), "int64", n=2)})
    return EpisodeSource(episodes, columns)


def test_evaluation_probes_labels_and_draws_features() -> None:
    own = learner(**{"agent.classes": 2})
    assert own.config == SMALL.with_(**{"agent.classes": 2})
    source = labelled(60)
    assert IJEPAConfig().completed(source.columns).agent.classes == 2
    found = own.eval().evaluate(source, limit=10)
    assert found.score is not None and found.score > 0.9
    assert found.metrics["nearest_neighbours"] > 0.9 and found.metrics["rank_me"] > 1
    assert found.pictures["features"].shape == (192, 768, 3)
    bare = learner().evaluate(EpisodeSource(source.episodes, step_columns(IMAGE)), limit=1)
    assert bare.score is None and "rank_me" in bare.metrics


def test_a_probe_of_noise_is_chance_and_of_the_label_is_sure() -> None:
    labels = torch.randint(4, (400,))
    noise = torch.randn(400, 8)
    told = noise + 5 * torch.nn.functional.one_hot(labels, 8)
    for features, low, high in ((noise, 0.0, 0.4), (told, 0.95, 1.0)):
        for probe in (probing.linear_probe, probing.nearest):
            scores = probe(features[::2], labels[::2], features[1::2], 4)
            assert low <= probing.accuracy(scores, labels[1::2]) <= high


def test_rank_me_counts_directions() -> None:
    assert probing.rank_me(torch.eye(6)) == pytest.approx(6, abs=0.01)
    assert probing.rank_me(torch.ones(20, 6)) == pytest.approx(1, abs=0.01)


def test_collapse_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    watch, healthy = CollapseWatch(), spread(torch.randn(64, 16))
    assert 10 < healthy["rep/rank"] <= 16 and 0.9 < healthy["rep/std"] < 1.1
    line = spread(torch.randn(64, 1) * torch.ones(16))
    assert line["rep/rank"] == pytest.approx(1, abs=1e-3)
    with caplog.at_level(logging.WARNING):
        for update, found in ((50, healthy), (100, spread(torch.ones(64, 16))), (150, line)):
            watch.look(update, found)
        assert [r.getMessage()[:11] for r in caplog.records] == ["update 100:"]
        assert "nearly the same representation" in caplog.text
        watch.look(200, healthy)
    assert "apart again" in caplog.text


def test_an_update_reports_variance_and_rank() -> None:
    found = learner().update(batch(), "encoder", rand=Rand.seeded(0)).metrics
    assert {"rep/std", "rep/rank", "loss/patches"} <= found.keys()
