"""What goes into a model or an agent is checked once, and told in one sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from worldflux import State
from worldflux.core.misshapen import misshapen
from worldflux.core.seam import Seam
from worldflux.core.values import fitting
from worldflux.errors import ContractError
from worldflux.specs import TensorSpec
from worldflux.testing.batches import random_batch
from worldflux.testing.dummies import TinyAgent, TinyConfig, TinyModel
from worldflux.testing.wrong_inputs import (
    check_act_refuses_wrong_inputs,
    check_refuses_wrong_inputs,
    check_takes_arrays,
)

OBS = {"state": TensorSpec((5,))}
ACTION = {"action": TensorSpec((2,), low=-1.0, high=1.0)}
IMAGE = TensorSpec((3, 8, 9), "uint8")


@pytest.fixture
def model() -> TinyModel:
    return TinyModel(TinyConfig(), OBS, ACTION)


@pytest.mark.parametrize(
    ("shape", "lead", "sentence"),
    [
        ((8, 9, 3), ("B",), "put channels first and add a batch axis, x.permute(2, 0, 1)[None]."),
        ((4, 8, 9, 3), ("B",), "put channels first, x.permute(0, 3, 1, 2)."),
        ((4, 6, 8, 9, 3), (4, 6), "put channels first, x.permute(0, 1, 4, 2, 3)."),
        ((4, 3, 7, 9), ("B",), "resize it to 8x9, or build the model for (7, 9) pixels."),
        ((3, 8, 9), ("B",), "add a batch axis, x[None]."),
        ((4, 6, 3, 8, 9), ("B",), "it has a time axis (B, T, ...), give one step, x[:, t]."),
        ((6, 4, 3, 8, 9), (4, 6), "put the batch axis first, x.transpose(0, 1)."),
        ((6, 3, 8, 9), (4, 6), "it lacks an axis of (4, 6), a single row is x[None]."),
        ((5, 3, 8, 9), (4,), "give as many rows as the rest has."),
        ((2, 2), ("B",), "pass (3, 8, 9) for each row, or build the model for these observations."),
    ],
)
def test_the_sentence_says_what_to_do(shape: Any, lead: Any, sentence: str) -> None:
    text = misshapen("x", shape, IMAGE, lead)
    assert text.startswith(f"x has shape {shape}, expected (B, ") and "C, Y, X) = (" in text
    assert text.endswith(sentence)


def test_a_number_for_each_step_loses_its_last_axis() -> None:
    text = misshapen("batch.reward", (4, 6, 1), TensorSpec(()), (4, 6))
    assert text == (
        "batch.reward has shape (4, 6, 1), expected (B, T) = (4, 6): drop the last axis, "
        "batch.reward[..., 0]."
    )


def test_every_operation_refuses_and_takes_arrays(model: TinyModel) -> None:
    check_refuses_wrong_inputs(model)
    check_takes_arrays(model)
    check_act_refuses_wrong_inputs(TinyAgent(TinyConfig(), OBS, ACTION))


def test_sentences_of_states_actions_and_flags(model: TinyModel) -> None:
    state, action = model.encode(torch.zeros(3, 5)), torch.zeros(3, 2)
    with pytest.raises(ContractError, match=r"add a batch axis, state.map\(lambda x: x\[None\]\)"):
        model.transition(state.map(lambda tensor: tensor[0]), action)
    with pytest.raises(ContractError, match=r"time axis \(B, T, ...\), give one step, state.at"):
        model.transition(state.map(lambda tensor: tensor[:, None]), action)
    with pytest.raises(ContractError, match=r"action has shape \(3, 4\), expected \(B, A\) = \(3,"):
        model.update(state, torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(ContractError, match="has 2 rows, expected B = 3, as many as came with it"):
        model.update(state, action, torch.zeros(2, 5))
    ragged = state.with_({"stoch": state["stoch"][:2]})
    with pytest.raises(ContractError, match="the tensors before it begin with \\(3,\\)"):
        model.decode(ragged)
    with pytest.raises(ContractError, match="state is a dict, expected a State"):
        model.decode(dict(state.tensors))  # type: ignore[arg-type]
    agent = TinyAgent(TinyConfig(), OBS, ACTION)
    first = torch.ones(3, dtype=torch.bool)
    _, memory = agent.act({"state": torch.zeros(3, 5)}, None, first)
    with pytest.raises(ContractError, match="state has 3 rows, the observation 2"):
        agent.act({"state": torch.zeros(2, 5)}, memory, first[:2])
    batch = random_batch(OBS, ACTION)
    assert batch.action is not None
    with pytest.raises(ContractError, match=r"batch.action has shape \(2, 6, 1\)"):
        agent.update(replace(batch, action=batch.action[..., :1]), "all")


def test_types_and_ranges_are_told() -> None:
    obs = {"image": IMAGE, "state": TensorSpec((2,))}
    model = TinyModel(TinyConfig(), obs, {"action": TensorSpec((), "int64", n=3)})
    image, place = torch.full((2, 3, 8, 9), 200, dtype=torch.uint8), torch.ones(2, 2)
    state = model.encode({"image": image, "state": place}, deterministic=True)
    for other in (place.long(), place.double()):
        again = model.encode({"image": image, "state": other}, deterministic=True)
        assert torch.equal(again["stoch"], state["stoch"])
    model.encode({"image": image / 255, "state": place})
    with pytest.raises(ContractError, match=r"type int64, expected uint8 in 0..255 or floats"):
        model.encode({"image": image.long(), "state": place})
    with pytest.raises(ContractError, match=r"floats up to 200, expected 0..1 .*divide by 255"):
        model.encode({"image": image.float(), "state": place})
    with pytest.raises(ContractError, match=r"action has choice -1, expected 0..2: there are 3"):
        model.transition(state, torch.tensor([0, -1]))
    with pytest.raises(ContractError, match=r"asked for 'rewards', .*Did you mean 'reward'"):
        model.decode(state, keys=("rewards",))
    batch = random_batch(model.obs_spec, model.action_spec)
    assert batch.action is not None
    with pytest.raises(ContractError, match=r"batch.action has choice 3, expected 0..2"):
        model.loss(replace(batch, action=torch.full_like(batch.action, 3)))


def test_choices_are_told_part_by_part() -> None:
    several = TensorSpec((2,), "int64", n=(3, 5))
    fitting("obs['x']", torch.tensor([[2, 4]]), several, 1)
    with pytest.raises(ContractError, match=r"obs\['x'\] has choice 3, expected 0..2"):
        fitting("obs['x']", torch.tensor([[3, 4]]), several, 1)


def test_arguments_by_name_are_checked_too(model: TinyModel) -> None:
    with pytest.raises(ContractError, match="add a batch axis"):
        model.encode(obs=torch.zeros(5))
    state = model.encode(obs=np.zeros((1, 5)))
    after = model.transition(action=np.zeros((1, 2), np.float32), state=state)
    assert isinstance(after, State)


class Unchecked(TinyModel):
    """Its own transition is entered past the seam."""

    entries = {}

    def transition(self, state: State, action: Any, *args: Any, **options: Any) -> State:
        return self.slot("dynamics_model").transition(state, action, rand=options.get("rand"))


def test_a_model_past_the_seam_is_found() -> None:
    with pytest.raises(AssertionError, match=r"(?s)transition .* ends in .* without the checks of"):
        check_refuses_wrong_inputs(Unchecked(TinyConfig(), OBS, ACTION))


class Silent(TinyModel):
    entries = {}

    def encode(self, obs: Any, *args: Any, **options: Any) -> State:
        return super().encode(torch.zeros(3, 5), *args, **options)


def test_a_model_that_takes_anything_is_found() -> None:
    with pytest.raises(AssertionError, match="encode of an observation .* taken without a word"):
        check_refuses_wrong_inputs(Silent(TinyConfig(), OBS, ACTION))


def test_a_method_keeps_its_name_and_signature() -> None:
    import inspect

    assert issubclass(TinyModel, Seam) and TinyModel.loss.__name__ == "loss"
    assert "batch" in inspect.signature(TinyModel.loss).parameters


def test_a_model_that_takes_the_codes_of_choices_is_given_them() -> None:
    model = TinyModel(TinyConfig(), OBS, {"action": TensorSpec((), "int64", n=3)})
    model.action_conditioner = None
    state, code = model.initial(2), torch.randn(2, 4)
    with pytest.raises(ContractError, match="action has shape"):
        model.transition(state, code)
    model.action_code = TensorSpec((4,))
    model.dynamics_model.transition = lambda state, action, **_: state.with_({"took": action})
    assert torch.equal(model.transition(state, code)["took"], code)
    with pytest.raises(ContractError, match="action has shape"):
        model.transition(state, torch.randn(2, 5))
    path = model.rollout(state, code.expand(3, -1, -1))
    assert torch.equal(path.states[-1]["took"], code)
