"""What a model imagines under the labels of the data: rollouts, and a generator's single images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldflux.core.rollout import AutoregressiveRollout
from worldflux.episodes import Episode
from worldflux.runs import Run
from worldflux.specs import Capability, TensorSpec
from worldflux.testing.dummies import TinyConfig, TinyModel
from worldflux_train.imagination_frames import frames_of
from worldflux_train.imagine import imagine
from worldflux_train.report import write_report

LABEL = "wf.data.label"
IMAGE = TensorSpec((3, 8, 8), "uint8", low=0, high=255)


def episode(rows: int, number: int, shape: tuple[int, ...] = (3,)) -> Episode:
    """Its label is its number."""
    step, random = np.arange(rows), np.random.default_rng(number)
    obs = random.normal(size=(rows, *shape)).astype(np.float32)
    return {
        "obs.state": obs, "action": random.integers(0, 2, rows),
        "reward": np.zeros(rows, np.float32), "extra.label": np.full(rows, number),
        "is_first": step == 0, "is_last": step == rows - 1, "is_terminal": step < 0,
    }  # fmt: skip


class Notes(AutoregressiveRollout):
    """Keeps the labels it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(
        self, model: Any, state: Any, actions: Any, conditions: Any = None, **o: Any
    ) -> Any:
        self.seen.append(conditions.extras[LABEL])
        return super().forward(model, state, actions, conditions, **o)


def test_each_start_is_imagined_under_its_own_label() -> None:
    model = TinyModel(TinyConfig(), {"state": TensorSpec((3,))}, {"action": TensorSpec((), n=2)})
    model.rollout_executor = notes = Notes()
    shown = [episode(30, 0), episode(20, 1), episode(20, 2)]
    imagine(model.eval(), shown, step=0, context=2, horizon=8, seed=0)
    seen = torch.cat(notes.seen).tolist()
    starts = [len(range(1, rows - 8, 2)) for rows in (30, 20, 20)]
    assert seen == [0] * starts[0] + [1] * starts[1] + [2] * starts[2]


class Painter(TinyModel):
    """A generator: an image is as bright as 50 times its label."""

    starts_anew = True
    capabilities = frozenset({Capability.OBS_DECODE, Capability.UNCONDITIONAL})

    def initial(self, batch_size: int, device: Any = None) -> Any:
        from worldflux import State

        return State({"x": torch.zeros(batch_size, 1)})

    def transition(self, state: Any, action: Any, conditions: Any = None, *a: Any, **k: Any) -> Any:
        return state.with_({"x": conditions.extras[LABEL][:, None] * 50.0})

    def decode(self, state: Any, *a: Any, **k: Any) -> Any:
        from worldflux.core.output import ModelOutput

        x = state["x"][:, :, None, None].expand(-1, 3, 8, 8) / 255
        return ModelOutput(predictions={"image": x})


def test_a_generator_draws_an_image_for_each_label(tmp_path: Path, site: Any) -> None:
    real = [
        {"obs.image": np.full((1, 3, 8, 8), 50 * n, np.uint8), "extra.label": np.array([n]),
         "is_first": np.ones(1, bool), "is_last": np.ones(1, bool),
         "is_terminal": np.zeros(1, bool)}
        for n in (0, 2, 3)
    ]  # fmt: skip
    model = Painter(TinyConfig(), {"image": IMAGE}, {"action": TensorSpec((), n=2)})
    found = imagine(model, real, step=7, context=5, horizon=45, seed=0)
    np.testing.assert_allclose(*found.images["image"], atol=1e-6)
    assert found.images["image"][0].shape == (3, 3, 8, 8) and found.error == {}
    assert len(frames_of(found)) == 3
    run = Run.create(tmp_path / "run")
    found.save(run)
    run.config_path.write_text("id: tiny\nenv: {}\ndata: {path: x}\n")
    assert "drawn for the label of each of 3 real ones" in write_report(run).read_text("utf-8")
