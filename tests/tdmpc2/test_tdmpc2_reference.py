"""Reading checkpoints in the formats of the published implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux.errors import StorageError
from worldflux.specs import TensorSpec
from worldflux_tdmpc2 import reference
from worldflux_tdmpc2.config import PRESETS, ModelConfig, Task, TDMPC2Config
from worldflux_tdmpc2.world_model import TDMPC2WorldModel

SMALL = {"model.latent_dim": 16, "model.enc_dim": 12, "model.mlp_dim": 20, "model.enc_layers": 3}
THEIRS = {ours: theirs for theirs, ours in reference._NAMES.items()}
PARTS = ("weight", "bias", "ln.weight", "ln.bias")


def a_model(image: bool = False, **overrides: Any) -> TDMPC2WorldModel:
    config = TDMPC2Config().with_(**SMALL, **overrides)
    obs = {"state": TensorSpec((5,))}
    if image:
        obs = {"image": TensorSpec((9, 64, 64), "uint8")}
    if config.model.tasks:
        obs["task"] = TensorSpec((), "int64", n=len(config.model.tasks))
    model = TDMPC2WorldModel(config, obs, {"action": TensorSpec((2,), low=-1.0, high=1.0)})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def published(model: TDMPC2WorldModel) -> dict[str, Any]:
    """A state dict as the current official code would save it."""
    found: dict[str, Any] = {"log_std_min": torch.tensor(-10.0), "log_std_dif": torch.tensor(12.0)}
    pixels = model.sizes.image is not None
    for name, value in model.named_parameters():
        if pixels and name.startswith("observation_encoder.net."):
            index, _, part = name.removeprefix("observation_encoder.net.").partition(".")
            found[f"_encoder.rgb.{int(index) + 2}.{part}"] = value.detach()
            continue
        prefix = next(ours for ours in THEIRS if name.startswith(ours))
        theirs = THEIRS[prefix] + name.removeprefix(prefix)
        found[theirs] = value.detach()
        if theirs.startswith("_Qs."):
            found[theirs.replace("_Qs.", "_detach_Qs_")] = value.detach()
    for prefix in ("_Qs.", "_detach_Qs_", "_target_Qs_"):
        found[f"{prefix}params.__batch_size"] = torch.Size([model.q.members])
        found[f"{prefix}params.__device"] = torch.device("cpu")
    if model.config.model.tasks:
        found["_action_masks"] = model.masks
    return found


def older(weights: dict[str, Any]) -> dict[str, Any]:
    """The same in the format that numbers the ensemble's tensors."""
    found = {}
    for name, value in weights.items():
        if "__" in name or name.startswith(("_detach", "log_std")):
            continue
        for prefix, old in (
            ("_Qs.params.", "_Qs.params."),
            ("_target_Qs_params.", "_target_Qs.params."),
        ):
            if name.startswith(prefix):
                layer, _, part = name.removeprefix(prefix).partition(".")
                name = f"{old}{4 * int(layer) + PARTS.index(part)}"
                break
        found[name] = value
    return found


def same_weights(ours: TDMPC2WorldModel, theirs: TDMPC2WorldModel) -> None:
    assert dict(ours.named_parameters()).keys() == dict(theirs.named_parameters()).keys()
    for (name, left), right in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(left, right), name


TASKS = (Task(name="task0", action_dim=1), Task(name="task1", action_dim=2))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("image", "overrides"),
    [
        (False, {}),
        (True, {}),
        (False, {"model.episodic": True, "model.num_q": 3}),
        (False, {"model.tasks": TASKS, "model.task_dim": 4}),
    ],
)
def test_checkpoints_of_both_formats_are_read(
    tmp_path: Path, image: bool, overrides: Any, old: bool
) -> None:
    model = a_model(image, **overrides)
    weights = older(published(model)) if old else published(model)
    path = tmp_path / "step.pt"
    torch.save({"model": weights}, path)
    loaded = reference.world_model(reference.read_checkpoint(path))
    same_weights(loaded, model)
    sizes = ("latent_dim", "mlp_dim", "num_q", "bins", "episodic", "tasks")
    for name in sizes + (() if image else ("enc_dim", "enc_layers")):
        assert getattr(loaded.config.model, name) == getattr(model.config.model, name), name


def test_bare_weights_and_a_base_configuration_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(published(a_model()), path)
    base = ModelConfig(episode_length=200)
    loaded = reference.world_model(reference.read_checkpoint(path), base)
    assert loaded.config.model.episode_length == 200
    assert loaded.config.model.mlp_dim == 20


class Intruder:
    """An object that must never be rebuilt from a file."""


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"model": Intruder()}, "is no readable TD-MPC2 checkpoint"),
        ([1, 2], "holds a list, expected named weights"),
    ],
)
def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, content: Any, text: str) -> None:
    path = tmp_path / "odd.pt"
    torch.save(content, path)
    with pytest.raises(StorageError, match=text):
        reference.read_checkpoint(path)


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="none.pt is no readable TD-MPC2 checkpoint"):
        reference.read_checkpoint(tmp_path / "none.pt")
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(StorageError, match="is no readable TD-MPC2 checkpoint"):
        reference.read_checkpoint(tmp_path / "damaged.pt")


def _without(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key != name}


def test_weights_that_do_not_fit_are_refused() -> None:
    model = a_model()
    weights = {k: v for k, v in published(model).items() if isinstance(v, Tensor)}
    with pytest.raises(StorageError, match="'_decoder.0.weight' is no parameter of TD-MPC2"):
        reference.converted({**weights, "_decoder.0.weight": torch.zeros(1)})
    with pytest.raises(StorageError, match="Only the model has 'policy.net.1.bias'"):
        reference.load_weights(model, _without(weights, "_pi.1.bias"))
    extra = {**weights, "_termination.0.bias": torch.zeros(20)}
    with pytest.raises(StorageError, match="Only the checkpoint has 'decoder_module.termination"):
        reference.load_weights(model, extra)
    other = TDMPC2WorldModel(PRESETS["1m"], model.obs_spec, model.action_spec)
    with pytest.raises(
        StorageError, match=r"in the checkpoint and .* in the model: choose the pre"
    ):
        reference.load_weights(other.requires_grad_(False), _as_shallow(weights))


def _as_shallow(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder one layer shallower, as the presets 1m and 5m have it."""
    middle = "_encoder.state.1."
    kept = {k: v for k, v in weights.items() if not k.startswith(middle)}
    return {k.replace("_encoder.state.2.", middle): v for k, v in kept.items()}


def test_tasks_without_masks_have_to_be_given() -> None:
    model = a_model(**{"model.tasks": TASKS, "model.task_dim": 4})
    weights = {k: v for k, v in published(model).items() if isinstance(v, Tensor)}
    del weights["_action_masks"]
    with pytest.raises(
        StorageError, match="checkpoint of 2 tasks does not hold their action masks"
    ):
        reference.world_model(weights)
    given = reference.world_model(weights, ModelConfig(tasks=TASKS))
    assert given.config.model.tasks == TASKS
    same_weights(given, model)
