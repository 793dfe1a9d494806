"""Every tensor of the V-JEPA 2-AC predictor's golden file, through our production path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldflux.core.batch import Batch
from worldflux.core.interfaces import ObservationEncoder
from worldflux.core.state import State
from worldflux.factory import create_world_model
from worldflux.specs import TensorSpec
from worldflux_jepa.jepa_wm import reference
from worldflux_jepa.jepa_wm.predictor import Predictor
from worldflux_jepa.jepa_wm.world_model import JEPAWorldModel
from worldflux_jepa.rope import Turn, angles, block_causal, places, rotated, tables

Golden = Any


@pytest.fixture(scope="module")
def golden(golden_of: Callable[[str], Golden]) -> Golden:
    return golden_of("vjepa2_ac")


class GivenTokens(ObservationEncoder):
    """The file's stand-in for a frozen encoder: tokens come as they are."""

    def __init__(self, model: Any, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.none = tuple(grid), nn.Parameter(torch.zeros(1))

    def forward(self, obs: dict[str, Tensor]) -> State:
        return State({"rep": obs["tokens"], "proprio": obs["state"]})


@pytest.fixture
def model(golden: Golden) -> JEPAWorldModel:
    c, p = golden.config, golden.config["predictor"]
    sizes = reference.inferred_config(golden.float_weights(), p["num_heads"])
    made = create_world_model(
        "jepa-wm:vjepa2-ac",
        obs_spec={
            "tokens": TensorSpec((c["tokens_per_frame"], p["embed_dim"])),
            "state": TensorSpec((p["action_embed_dim"],)),
        },
        action_spec={"action": TensorSpec((p["action_embed_dim"],), low=-1.0, high=1.0)},
        slots={"observation_encoder": {"class": GivenTokens, "grid": tuple(c["grid"])}},
        **{
            "model.predictor.width": sizes.width,
            "model.predictor.depth": sizes.depth,
            "model.predictor.heads": sizes.heads,
            "model.predictor.mlp_ratio": sizes.mlp_ratio,
            "model.predictor.extrinsics": sizes.extrinsics,
            "model.normalise": c["normalize_reps"],
            "model.rollout": c["auto_steps"],
            "model.exponent": c["loss_exp"],
            "model.window": p["num_frames"],
        },
    )
    assert isinstance(made, JEPAWorldModel)
    reference.load_weights(made.dynamics_model.predictor, golden.float_weights())
    return made


def test_masks(golden: Golden) -> None:
    frames, per = golden.config["grid_depth"], golden.config["tokens_per_frame"] + 2
    golden.check("mask/predictor", block_causal(frames, per))
    for name in golden.group("out/mask"):
        if name != "predictor":
            t, h, w, add = (int(part.strip("thwad")) for part in name.split("_"))
            golden.check(f"mask/{name}", block_causal(t, h * w + add))


def turned(x: Tensor, position: Tensor) -> Tensor:
    """x (..., N, D), all of it turned by `position` (N,)."""
    return rotated(x, tables(angles(position, x.shape[-1], x.dtype)))


def test_rope(golden: Golden) -> None:
    for name in {key.split("_")[0] for key in golden.group("in/rope")}:
        x, position = golden[f"in/rope/{name}_x"], golden[f"in/rope/{name}_pos"]
        golden.check(f"rope/{name}_out", turned(x, position))
        units = torch.eye(x.shape[-1])[None].expand(len(position), -1, -1)
        found = [turned(unit, position[i].expand(len(unit))) for i, unit in enumerate(units)]
        golden.check(f"rope/{name}_matrix", torch.stack(found))
    at = places(golden.config["grid_depth"], tuple(golden.config["grid"]), 0)
    for name, value in (("frame", at.frame), ("height", at.row), ("width", at.column)):
        golden.check(f"rope/{name}_pos", value.float())


@pytest.mark.parametrize("width", [5, 7, 16, 64])
def test_a_third_of_the_features_turns_with_each_axis(width: int) -> None:
    at = places(3, (2, 4), 2, 1, 16)  # two tokens of a frame are no patches
    x, part = torch.randn(2, 3, len(at.frame), width), 2 * (width // 3 // 2)
    time, row, column, rest = x.split([part, part, part, width - 3 * part], -1)
    patch = at.patch[:, None]
    slow = [turned(time, at.frame), torch.where(patch, turned(row, at.row), row),
            torch.where(patch, turned(column, at.column), column), rest]  # fmt: skip
    torch.testing.assert_close(Turn(at)(x), torch.cat(slow, -1))


def frames_of(golden: Golden, name: str) -> Tensor:
    """Tokens (B, T * N, D) of the file as frames (B, T, N, D)."""
    return golden[name].unflatten(1, (-1, golden.config["tokens_per_frame"]))


def test_forward(golden: Golden, model: JEPAWorldModel) -> None:
    predictor, grid = model.dynamics_model.predictor, tuple(golden.config["grid"])
    x, actions, states = frames_of(golden, "in/x"), golden["in/actions"], golden["in/states"]
    kept: list[Tensor] = []
    first = predictor.blocks[0].continued
    predictor.blocks[0].continued = lambda *a: (lambda found: kept.append(found[0]) or found)(
        first(*a)
    )
    golden.check("forward", predictor(x, actions, states, grid)[0].flatten(1, 2))
    golden.check("block0", kept[0])
    for count, name in ((1, "forward_1frame"), (2, "forward_2frames")):
        found = predictor(x[:, :count], actions[:, :count], states[:, :count], grid)[0]
        golden.check(name, found.flatten(1, 2))


def test_forward_on_other_grids_and_with_poses(golden: Golden, model: JEPAWorldModel) -> None:
    height, width = golden.config["grid"]
    x, predictor = golden["in/x_nonsquare"], model.dynamics_model.predictor
    frames = x.unflatten(1, (golden["in/actions_nonsquare"].shape[1], -1))
    grid = (height, frames.shape[2] // height)
    assert grid[1] != width
    found = predictor(frames, golden["in/actions_nonsquare"], golden["in/states_nonsquare"], grid)
    golden.check("forward_nonsquare", found[0].flatten(1, 2))
    config = predictor.config.with_(use_extrinsics=True)
    size = golden.config["predictor"]
    posed = Predictor(config, size["embed_dim"], size["action_embed_dim"], size["action_embed_dim"])
    reference.load_weights(posed, golden.float_weights())
    found = posed(
        frames_of(golden, "in/x"), golden["in/actions"], golden["in/states"], (height, width),
        extrinsics=golden["in/extrinsics"],
    )  # fmt: skip
    golden.check("forward_extrinsics", found[0].flatten(1, 2))


def batch(golden: Golden) -> Batch:
    h, states = frames_of(golden, "in/train/h"), golden["in/train/states"]
    none = torch.zeros(h.shape[:2], dtype=torch.bool)
    action = torch.cat([golden["in/train/actions"], golden["in/train/actions"][:, :1] * 0], 1)
    return Batch({"tokens": h, "state": states}, none, none, none, action=action)


def test_training(golden: Golden, model: JEPAWorldModel) -> None:
    given, dynamics = batch(golden), model.dynamics_model
    golden.check("train/h_norm", dynamics.tokens(given.obs["tokens"]).flatten(1, 2))
    said: list[Tensor] = []
    sequence = dynamics.sequence
    dynamics.sequence = lambda *a: (lambda found: said.append(found[0]) or found)(sequence(*a))
    found = model.loss(given)
    golden.check("train/z_tf", said[0].flatten(1, 2))
    rolled = [said[0][:, :1], *[later[:, -1:] for later in said[1:]]]
    golden.check("train/z_ar", torch.cat(rolled, 1).flatten(1, 2))
    golden.check("train/loss_tf", found.components["teacher"])
    golden.check("train/loss_ar", found.components["rollout"])
    golden.check("train/loss", found.loss)
    found.loss.backward()
    own, norms = dict(dynamics.predictor.named_parameters()), []
    for name in golden.config["grad_keys"]["train"]:
        [ours] = reference.renamed({name: torch.zeros(())}, reference.NAMES)
        gradient = own[ours].grad
        norms.append(torch.zeros(()) if gradient is None else gradient.norm())
    golden.check("train/grad_norms", torch.stack(norms))


def test_nothing_is_left_out(golden: Golden) -> None:
    assert golden.all_outputs() == golden.checked, golden.all_outputs() - golden.checked
