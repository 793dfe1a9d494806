"""Every tensor of the published I-JEPA's golden file, through our production path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.specs import TensorSpec
from worldflux_jepa.ijepa import reference
from worldflux_jepa.ijepa.agent import IJEPALearner
from worldflux_jepa.ijepa.config import IJEPAConfig, LearnerConfig, MaskConfig, ModelConfig
from worldflux_jepa.ijepa.losses import targets
from worldflux_jepa.ijepa.masks import TRIES, Masks, block_size, draw_masks
from worldflux_jepa.ijepa.world_model import IJEPAModel
from worldflux_jepa.vit import mask_major, sincos, sincos_2d

Golden = Any
LAST = 2  # the masks in the file are those of the collator's last call
PUBLISHED = {"target": ((0.15, 0.2), (0.75, 1.5)), "context": ((0.85, 1.0), (1.0, 1.0))}


@pytest.fixture(scope="module")
def golden(golden_of: Callable[[str], Golden]) -> Golden:
    return golden_of("ijepa")


def mask_config(golden: Golden) -> MaskConfig:
    c = golden.config["collator"]
    return MaskConfig(
        targets=c["npred"], contexts=c["nenc"], target_scale=tuple(c["pred_mask_scale"]),
        context_scale=tuple(c["enc_mask_scale"]), aspect=tuple(c["aspect_ratio"]),
        min_keep=c["min_keep"], overlap=c["allow_overlap"],
    )  # fmt: skip


def config(golden: Golden) -> IJEPAConfig:
    s = golden.config["schedules"]
    agent = LearnerConfig(
        batch=3, start_lr=s["start_lr"], lr=s["ref_lr"], final_lr=s["final_lr"],
        warmup=s["warmup_epochs"] / s["epochs"], weight_decay=s["wd"],
        final_weight_decay=s["final_wd"], momentum=tuple(s["ema"]), stretch=s["ipe_scale"],
    )  # fmt: skip
    sizes = golden.config
    base = IJEPAConfig(model=ModelConfig(mask=mask_config(golden)), agent=agent)
    return reference.inferred_config(
        reference.split(golden.float_weights()), base, heads=sizes["encoder"]["num_heads"],
        predictor_heads=sizes["predictor"]["num_heads"],
    )  # fmt: skip


def learner(golden: Golden) -> IJEPALearner:
    image = TensorSpec(tuple(golden["in/images"].shape[1:]))
    made = IJEPALearner(config(golden), {"image": image})
    reference.load_weights(made.world_model, reference.split(golden.float_weights()))
    return made


@pytest.fixture
def model(golden: Golden) -> IJEPAModel:
    return learner(golden).world_model


def forced(golden: Golden, call: int, rows: int) -> dict[str, Tensor]:
    """The published collator's draws of a call, by the names that ours asks for."""
    masks, grid = mask_config(golden), (golden.config["encoder"]["grid"],) * 2
    sizes = golden["in/collator/uniforms"][call]
    draws = iter(golden[f"in/collator/call{call}/corner_draws"].tolist())
    target = block_size(float(sizes[0]), grid, masks.target_scale, masks.aspect)
    context = block_size(float(sizes[1]), grid, masks.context_scale, (1.0, 1.0))

    def place(corner: list[int], size: tuple[int, int]) -> list[float]:
        return [(c + 0.5) / (g - s) for c, g, s in zip(corner, grid, size, strict=True)]

    def cells(corner: list[int], size: tuple[int, int]) -> set[tuple[int, int]]:
        return {(corner[0] + y, corner[1] + x) for y in range(size[0]) for x in range(size[1])}

    hidden = torch.zeros(rows, masks.targets, 2)
    seen = torch.zeros(rows, masks.contexts, TRIES, 2)
    for row in range(rows):
        taken: set[tuple[int, int]] = set()
        for n in range(masks.targets):
            corner = next(draws)
            hidden[row, n] = torch.tensor(place(corner, target))
            taken |= cells(corner, target)
        for n in range(masks.contexts):
            for attempt in range(TRIES):
                corner = next(draws)
                seen[row, n, attempt] = torch.tensor(place(corner, context))
                left = cells(corner, context) - (set() if masks.overlap else taken)
                if len(left) > masks.min_keep:
                    break
    assert next(draws, None) is None
    return {"mask/size": sizes, "mask/targets": hidden, "mask/contexts": seen}


def drawn(golden: Golden, call: int, rows: int) -> Masks:
    rand = Rand(draws=forced(golden, call, rows)).under("mask/")
    grid = (golden.config["encoder"]["grid"],) * 2
    return draw_masks(mask_config(golden), grid, rows, rand)


def test_position_tables(golden: Golden) -> None:
    for name, table in golden.group("out/pos").items():
        sizes = {part[0]: int(part[1:]) for part in name.split("_")[1:] if part != "cls"}
        if name.startswith("1d"):
            ours = sincos(torch.arange(sizes["n"]), sizes["d"]).float()
        else:
            ours = sincos_2d(sizes["g"], sizes["g"], sizes["d"])
        if name.endswith("_cls"):
            ours = torch.cat([torch.zeros(1, sizes["d"]), ours])
        assert ours.shape == table.shape
        golden.check(f"pos/{name}", ours)


def test_mask_sizes(golden: Golden) -> None:
    masks, grid = mask_config(golden), (golden.config["encoder"]["grid"],) * 2
    uniforms = golden["in/collator/uniforms"].tolist()
    pred = [block_size(u, grid, masks.target_scale, masks.aspect) for u, _ in uniforms]
    enc = [block_size(u, grid, masks.context_scale, (1.0, 1.0)) for _, u in uniforms]
    golden.check("collator/pred_size", torch.tensor(pred))
    golden.check("collator/enc_size", torch.tensor(enc))
    seeds = range(len(golden["out/collator224/pred_size"]))
    draws = [torch.rand(2, generator=torch.Generator().manual_seed(s)).tolist() for s in seeds]
    for i, (which, name) in enumerate((("target", "pred"), ("context", "enc"))):
        sizes = [block_size(draw[i], (16, 16), *PUBLISHED[which]) for draw in draws]
        golden.check(f"collator224/{name}_size", torch.tensor(sizes))


def test_mask_places(golden: Golden) -> None:
    calls = sorted({k.split("/")[0] for k in golden.group("out/collator") if k.startswith("call")})
    for name in calls:
        rows = golden[f"out/collator/{name}/masks_enc"].shape[1]
        found = drawn(golden, int(name.removeprefix("call")), rows)
        golden.check(f"collator/{name}/masks_enc", found.keep.transpose(0, 1))
        golden.check(f"collator/{name}/masks_pred", found.hidden.transpose(0, 1))


def test_encoder(golden: Golden, model: IJEPAModel) -> None:
    images, encoder = {"image": golden["in/images"]}, model.observation_encoder
    encoder.blocks[0].attn.continued, kept = _kept(encoder.blocks[0].attn.continued)
    golden.check("encoder/patch_embed", encoder.patch_embed(golden["in/images"]))
    golden.check("encoder/full", model.encode(images)["rep"])
    golden.check("encoder/attn0", kept[0])
    golden.check("target_full", model.target(images)["rep"])


def _kept(function: Any) -> tuple[Any, list[Tensor]]:
    """`function`, and a list of the first of what it returns each time."""
    found: list[Tensor] = []

    def call(*args: Any, **options: Any) -> Any:
        result = function(*args, **options)
        found.append(result[0])
        return result

    return call, found


def test_prediction(golden: Golden, model: IJEPAModel) -> None:
    images = {"image": golden["in/images"]}
    keep, hidden = (golden[f"in/masks_{n}"].transpose(0, 1) for n in ("enc", "pred"))
    context = model.observation_encoder(images, keep=mask_major(keep))["rep"]
    golden.check("context", context)
    golden.check("prediction", model.guess(images, keep, hidden))
    wanted = targets(model.target(images)["rep"], hidden, keep.shape[1])
    golden.check("target", wanted)


def batch(golden: Golden) -> Batch:
    images = golden["in/images"]
    first = torch.ones(len(images), 1, dtype=torch.bool)
    return Batch({"image": images[:, None]}, first, first, torch.zeros_like(first))


def test_loss_and_gradients(golden: Golden, model: IJEPAModel) -> None:
    draws = forced(golden, LAST, len(golden["in/images"]))
    loss = model.loss(batch(golden), rand=Rand(draws=draws)).loss
    golden.check("loss", loss)
    loss.backward()
    parts = {"encoder": model.observation_encoder, "predictor": model.predictor}
    for name, part in parts.items():
        norms = {n: p.grad.norm() for n, p in part.named_parameters() if p.requires_grad}
        theirs = golden.config["grad_keys"][f"loss_{name}"]
        bare = {k.removeprefix(f"{name}."): k for k in theirs}
        ours = reference.renamed(dict.fromkeys(bare, torch.zeros(())), reference.PREDICTOR)
        found = torch.stack([norms[key] for key in ours])
        golden.check(f"loss_{name}/grad_norms", found)
    assert not any(p.requires_grad for p in model.target.parameters())


def test_schedules(golden: Golden) -> None:
    own, total = learner(golden), len(golden["out/sched/lr"])
    own.total = {"encoder": total}
    names = {"lr": "encoder.lr", "wd": "encoder.weight_decay", "ema": "momentum"}
    for theirs, ours in names.items():
        values = []
        for step in range(total):
            own.steps["encoder"] = step
            values.append(own.scheduled(ours))
        golden.check(f"sched/{theirs}", torch.tensor(values))


def test_updates(golden: Golden) -> None:
    own, rows = learner(golden), len(golden["in/images"])
    own.total = {"encoder": len(golden["out/sched/lr"])}
    losses = []
    for _ in golden["out/update/losses"]:
        rand = Rand(draws=forced(golden, LAST, rows))
        losses.append(own.update(batch(golden), "encoder", rand=rand).metrics["loss"])
        rand.check_used()
    golden.check("update/losses", torch.stack(losses), atol=1e-4)
    model = own.world_model
    parts = {"encoder.": model.observation_encoder, "predictor.": model.predictor,
             "target_encoder.": model.target}  # fmt: skip
    for name in golden.group("out/update"):
        start = next((part for part in parts if name.startswith(part)), None)
        if start is None:
            continue
        bare = name.removeprefix(start)
        [ours] = reference.renamed({bare: torch.zeros(())}, reference.PREDICTOR)
        golden.check(f"update/{name}", parts[start].state_dict()[ours], atol=1e-4)


def test_nothing_is_left_out(golden: Golden) -> None:
    assert golden.all_outputs() == golden.checked, golden.all_outputs() - golden.checked
