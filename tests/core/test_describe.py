"""What objects say of themselves in a console and a notebook: few lines, names, shapes, device."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import worldflux
from worldflux.config import Config
from worldflux.core.batch import Batch
from worldflux.core.output import LossOutput, ModelOutput, UpdateResult
from worldflux.core.payloads import ActionSequence, WorldModelInput
from worldflux.core.source import Segments
from worldflux.core.state import State
from worldflux.core.trajectory import Trajectory
from worldflux.describe import WIDTH
from worldflux.runs import Run
from worldflux.training import Phase


def trajectory(T: int = 15, B: int = 4) -> Trajectory:
    steps = [State({"deter": torch.randn(B, 512), "prior": torch.randn(B, 8)}) for _ in range(T)]
    first = State({"deter": torch.randn(B, 512), "posterior": torch.randn(B, 8)}, {"note": "x"})
    return Trajectory([first, *steps], torch.randn(T, B, 6), rewards=torch.randn(T, B))


def batch(B: int = 16, T: int = 64, context: int = 0) -> Batch:
    flags = torch.zeros(B, T, dtype=torch.bool)
    obs = {"image": torch.zeros(B, T, 3, 8, 8, dtype=torch.uint8), "state": torch.zeros(B, T, 5)}
    return Batch(obs, flags, flags, flags, action=torch.zeros(B, T, 2), context=context)


def test_a_trajectory_of_fifteen_steps_is_a_few_lines():
    assert repr(trajectory()).splitlines() == [
        "Trajectory(T=15, B=4, cpu)",
        "  states[0..15].deter  (4, 512) float32",
        "  states[0].posterior  (4, 8) float32",
        "  states[0].meta       {'note': 'x'}",
        "  states[15].prior     (4, 8) float32",
        "  actions              (15, 4, 6) float32",
        "  rewards              (15, 4) float32",
    ]


def test_a_state_says_names_shapes_types_and_device():
    state = State({"z": torch.zeros(2, 3), "id": torch.zeros(2, dtype=torch.int64)}, {"t": 7})
    assert repr(state).splitlines() == [
        "State(cpu)", "  z     (2, 3) float32", "  id    (2,) int64", "  meta  {'t': 7}",
    ]  # fmt: skip
    assert repr(State({"z": torch.zeros(2, 3, device="meta")})).startswith("State(meta)")
    assert repr(State()) == "State()"


def test_a_closed_state_says_so():
    attached = State.from_shared_memory(State({"z": torch.ones(2)}).to_shared_memory())
    attached.close_shared_memory(unlink=True)
    assert "closed" in repr(attached)


def test_a_batch_says_its_sizes_and_only_what_it_has():
    assert repr(batch()).splitlines() == [
        "Batch(B=16, T=64, cpu)",
        "  obs.image    (16, 64, 3, 8, 8) uint8",
        "  obs.state    (16, 64, 5) float32",
        "  is_first     (16, 64) bool",
        "  is_last      (16, 64) bool",
        "  is_terminal  (16, 64) bool",
        "  action       (16, 64, 2) float32",
    ]
    assert repr(batch(context=5)).startswith("Batch(B=16, T=64, context=5, cpu)")
    assert repr(batch().transitions()).startswith("Transitions(B=16, T=63, cpu)")


def test_outputs_say_single_numbers():
    state = State({"z": torch.zeros(2, 3)})
    output = ModelOutput({"reward": torch.zeros(2)}, state, aux={"logits": torch.zeros(2, 255)})
    assert repr(output).splitlines() == [
        "ModelOutput(cpu)",
        "  predictions.reward  (2,) float32",
        "  state.z             (2, 3) float32",
        "  aux.logits          (2, 255) float32",
    ]
    loss = LossOutput(torch.tensor(1.25), {"image": torch.tensor(0.5)}, {"norm": 3.0})
    assert repr(loss).splitlines() == [
        "LossOutput(cpu)", "  loss              1.25 float32", "  components.image  0.5 float32",
        "  metrics.norm      3.0",
    ]  # fmt: skip
    assert "metrics.loss" in repr(UpdateResult({"loss": torch.tensor(2.0)}))
    on_meta = LossOutput(torch.zeros((), device="meta"))
    assert repr(on_meta) == "LossOutput(meta)\n  loss  float32"


def test_segments_say_their_phase_and_sources():
    numbers = np.arange(3)
    phase = Phase("model", updates_per_step=1.0, batch=3, length=4)
    shown = repr(Segments.of(phase, 7, "replay", numbers, numbers, numbers, numbers))
    assert shown.startswith("Segments(phase 'model', update 7, B=3)")
    assert "3 of replay" in shown and "start    (3,) int64" in shown


def test_payloads_say_their_shapes():
    actions = ActionSequence.of(torch.zeros(3, 2, 1))
    assert "payload.tensor  (3, 2, 1) float32" in repr(actions)
    assert "observations.image" in repr(WorldModelInput({"image": torch.zeros(1, 3, 8, 8)}))


def test_wrong_contents_are_shown_not_raised():
    shown = repr(State({"z": 3, "name": "x" * 10_000, "t": torch.zeros(2)}))  # type: ignore[dict-item]
    assert "z " in shown and len(shown) < 300
    assert repr(Batch({}, torch.zeros(3), torch.zeros(3), torch.zeros(3))).startswith("Batch(cpu)")
    torch.vmap(lambda x: repr(LossOutput(x)) and x)(torch.zeros(3))  # it has no value there


def test_hundreds_of_tensors_are_cut():
    shown = repr(State({f"layer{i}": torch.zeros(1) for i in range(500)}))
    assert len(shown.splitlines()) < 50 and "and 460 more" in shown


class Inner(Config):
    lr: float = 1e-4
    """Step size."""
    sizes_of: tuple[int, ...] = tuple(range(40))


class Outer(Config):
    name: str = "<b>"
    agent: Inner = Inner()


def test_a_configuration_has_a_paragraph_per_room():
    shown = repr(Outer())
    assert shown.splitlines()[0] == "Outer" and str(Outer()) == shown
    assert "name='<b>'" in shown and "agent" in shown and "lr=0.0001" in shown
    assert all(len(line) <= WIDTH for line in shown.splitlines())


def test_notebooks_get_tables_of_the_same_rows():
    html = batch()._repr_html_()
    assert "<caption>Batch(B=16, T=64, cpu)</caption>" in html
    assert re.search(r"obs\.image</th><td[^>]*>\(16, 64, 3, 8, 8\) uint8</td>", html)
    keys = Outer()._repr_html_()
    assert "&lt;b&gt;" in keys and "<b>" not in keys and "Step size." in keys and "agent.lr" in keys


@pytest.fixture
def run(tmp_path) -> Run:
    made = Run.create(tmp_path / "run")
    made = Run(made.path, {"id": "ring", "env": {"id": "wf/catch"}})
    with made.new_checkpoint(500) as folder:
        (folder / "x").write_text("x")
    made.append_metrics({"step": 250, "loss": 1.0})
    made.append_metrics({"step": 500, "eval/return": 0.75})
    return made


def test_a_run_says_what_it_is_and_how_far_it_got(run):
    rows = dict(Run(run.path).described()[1])  # as opened: what its checkpoint says
    assert rows == {
        "id": "ring", "env": "wf/catch", "checkpoints": "1, the newest at 500", "step": "500",
        "eval/return": "0.75",
    }  # fmt: skip
    assert "wf/catch" in run._repr_html_() and str(run.path) in repr(run)


def test_a_run_of_which_nothing_is_there_is_shown(tmp_path):
    assert "none yet" in repr(Run(tmp_path / "absent"))


def test_a_model_says_which_spaces_were_assumed(tiny_family):
    with torch.random.fork_rng(devices=[]):
        bare = repr(worldflux.create_world_model("tiny"))
        half = repr(worldflux.create_agent("tiny", action_dim=3).world_model)
        whole = repr(worldflux.create_world_model("tiny", obs_shape=(4,), action_dim=3))
    assert bare.count("assumed: none was given") == 2 and "action 'action': TensorSpec" in bare
    assert half.count("assumed") == 1 and "obs 'image'" in half.splitlines()[1]
    assert "assumed" not in whole and "shape=(3,)" in whole
