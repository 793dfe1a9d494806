"""From raw pictures, videos, arrays and labels to what a model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worldflux
from worldflux.core.statistics import Statistics
from worldflux.errors import CapabilityError, ConfigError, ContractError, StorageError
from worldflux.operator import Operator, create_operator
from worldflux.specs import TensorSpec

IMAGE = {"image": TensorSpec((3, 8, 8), "uint8", low=0, high=255)}
CHOICE = {"action": TensorSpec((), "int64", n=3, labels=("NOOP", "LEFT", "RIGHT"))}


@pytest.fixture
def picture() -> Any:
    """(8, 12, 3): a bright middle between dark sides."""
    found = np.zeros((8, 12, 3), np.uint8)
    found[:, 2:10] = (200, 100, 0)
    return found


def test_pictures_of_any_kind_are_one_picture(picture: Any, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    operator, drawn = Operator(IMAGE), image.fromarray(picture)
    drawn.save(tmp_path / "a.png")
    kinds = [picture, picture.transpose(2, 0, 1), picture / 255, torch.from_numpy(picture), drawn,
             tmp_path / "a.png", str(tmp_path / "a.png"), picture.astype(np.int64)]  # fmt: skip
    for kind in kinds:
        found = operator(kind)["image"]
        assert found.shape == (1, 3, 8, 8) and found.dtype == torch.uint8
        assert (found[0, 0] == 200).all() and (found[0, 2] == 0).all()  # the sides are cut off
    assert operator(kinds)["image"].shape == (8, 3, 8, 8)
    stretched = Operator(IMAGE, fit="stretch")(picture)["image"]
    assert (stretched[0, 0, :, 0] == 0).all() and (stretched[0, 0, :, 4] == 200).all()


def test_scaling_is_by_area(picture: Any) -> None:
    small = Operator({"image": TensorSpec((1, 1, 1), "uint8")}, fit="stretch")(picture)["image"]
    grey = 0.299 * 200 + 0.587 * 100
    assert int(small) == pytest.approx(round(grey) * 8 / 12, abs=1)
    large = Operator({"image": TensorSpec((3, 16, 16), "uint8")})(picture[:, :, 0])["image"]
    assert large.shape == (1, 3, 16, 16) and (large[0, 0] == large[0, 2]).all()


def test_a_video_is_a_sequence(picture: Any, tmp_path: Path) -> None:
    frames = [picture] * 5
    assert Operator(IMAGE).video(frames)["image"].shape == (1, 5, 3, 8, 8)
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("av")
    first, *rest = [image.fromarray(picture // (k + 1)) for k in range(3)]
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest)
    assert Operator(IMAGE).video(tmp_path / "a.gif")["image"].shape[:2] == (1, 3)
    with pytest.raises(ContractError, match=r"a\.png is no video"):
        (tmp_path / "a.png").write_bytes(b"")
        Operator(IMAGE).video(tmp_path / "a.png")


def test_actions_by_label_and_within_their_space() -> None:
    operator = Operator(IMAGE, CHOICE)
    assert operator.action("LEFT").tolist() == [1]
    assert operator.action(["RIGHT", "NOOP"]).tolist() == [2, 0]
    assert operator.action(2).tolist() == [2]
    with pytest.raises(ContractError, match="There is no action 'LEFTT'. Did you mean 'LEFT'"):
        operator.action("LEFTT")
    with pytest.raises(ContractError, match="The action has 3, outside of its space"):
        operator.action([3])
    move = Operator(IMAGE, {"action": TensorSpec((2,), low=-1.0, high=1.0)})
    assert move.action([0.5, -1]).shape == (1, 2) and move.action([[0, 0]] * 4).shape == (4, 2)
    with pytest.raises(ContractError, match=r"The action has shape \(1, 3\), expected \(2,\)"):
        move.action([[1, 0, 0]])
    with pytest.raises(CapabilityError, match="This model has no actions"):
        Operator(IMAGE).action(0)


def test_vectors_are_standardised_by_their_statistics() -> None:
    numbers = {"mean": np.array([1.0, 2.0]), "std": np.array([2.0, 0.5])}
    statistics = Statistics(**numbers, low=np.zeros(2), high=np.ones(2), count=9)
    operator = Operator({"state": TensorSpec((2,))}, statistics={"state": statistics})
    torch.testing.assert_close(operator([3.0, 2.0])["state"], torch.tensor([[1.0, 0.0]]))
    with pytest.raises(ConfigError, match="statistics of 'stat', which is no observation. Did you"):
        Operator({"state": TensorSpec((2,))}, statistics={"stat": statistics})


def test_operators_of_ids_models_and_saved_folders(tmp_path: Path) -> None:
    model = worldflux.create_world_model("ring", obs_shape=(3, 16, 16), action_dim=1)
    model.save_pretrained(tmp_path / "saved")
    whole = np.zeros((20, 20, 3), np.uint8)
    for source in (model, tmp_path / "saved", str(tmp_path / "saved")):
        assert create_operator(source)(whole)["image"].shape == (1, 3, 16, 16)
    by_id = create_operator("ring", obs_shape=(3,), action_dim=2)
    obs = by_id({"state": [[1.0, 2.0, 3.0]] * 4})
    state = worldflux.create_world_model("ring", obs_shape=(3,), action_dim=2).encode(obs)
    assert state["point"].shape == (4, 2)
    with pytest.raises(ConfigError, match="A model has its own spaces"):
        create_operator(model, action_dim=2)


@pytest.mark.parametrize(
    ("raw", "kind", "text"),
    [
        ({"imag": 0}, ContractError, "observes no 'imag'. Did you mean 'image'"),
        ("no.png", StorageError, r"There is no picture no\.png"),
        (np.full((8, 8), 2.0), ContractError, "bytes are 0 to 255, other numbers 0 to 1. Scale it"),
        (np.zeros((5, 8, 9)), ContractError, "has neither 3 channels nor 1, 3 or 4"),
    ],
)
def test_what_is_no_input(raw: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        Operator(IMAGE)(raw)


def test_text_is_refused_where_a_family_reads_none() -> None:
    with pytest.raises(CapabilityError, match="no text: this family reads none"):
        Operator({"state": TensorSpec((2,))})({"state": "pick up the cup"})
    both = Operator({**IMAGE, "state": TensorSpec((2,))})
    with pytest.raises(ContractError, match="observes image, state: give a mapping of these, not"):
        both([0.0, 1.0])
    with pytest.raises(ContractError, match=r"'state' has shape \(1, 3\), expected \(2,"):
        both({"state": [[0, 0, 0]]})
