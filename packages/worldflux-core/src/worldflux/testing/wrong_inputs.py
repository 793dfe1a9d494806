"""Checks that wrong things in end in one sentence, and that arrays do where tensors do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from worldflux.core.agent import Agent, Learner
from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import WorldFluxError
from worldflux.specs import TensorSpec
from worldflux.testing.batches import (
    acting_obs,
    batch_for,
    random_actions,
    random_obs,
    random_steps,
)

logger = logging.getLogger(__name__)
_ROWS, _LENGTH = 3, 4
Case = tuple[str, Callable[[], Any]]
"""What is wrong, and the call that is given it."""
_T = TypeVar("_T")


def check_refuses_wrong_inputs(model: WorldModel) -> None:
    """Wrong shapes, keys and types in end in one sentence, in every operation the model has."""
    for what, call in [*_encoding(model), *_stepping(model), *_learning(model)]:
        _refused(what, call)


def check_takes_arrays(model: WorldModel) -> None:
    """Numpy arrays do wherever tensors do."""
    obs = random_obs(model.obs_spec, (_ROWS,), Rand.seeded(0))
    with torch.no_grad():
        state = model.encode(obs, True, rand=Rand.seeded(1))
        again = model.encode(arrays(obs), True, rand=Rand.seeded(1))
        assert _equal(state, again), "encode gives another State for arrays than for tensors"
        if model.dynamics_model is not None and model.action is not None:
            action = random_actions(model.action, (_ROWS,), Rand.seeded(2))
            host = State(arrays(state.tensors))
            array: Any = action.numpy()
            after = model.transition(state, action, deterministic=True, rand=Rand.seeded(1))
            again = model.transition(host, array, deterministic=True, rand=Rand.seeded(1))
            assert _equal(after, again), "transition gives another State for arrays"
    batch = batch_for(model, _ROWS, _LENGTH)
    losses = [model.loss(given, rand=Rand.seeded(3)).loss for given in (batch, arrays(batch))]
    assert torch.equal(*losses), "loss is another for a batch of arrays than for one of tensors"


def check_act_refuses_wrong_inputs(learner: Learner) -> None:
    """What does not fit into `act` and `update` ends in one sentence; arrays are taken."""
    for what, call in _updating(learner):
        _refused(what, call)
    if not isinstance(learner, Agent):
        return
    for what, call in _acting(learner):
        _refused(what, call)
    obs, first = acting_obs(learner, _ROWS, 0), _firsts(_ROWS)
    asked: Any = ((obs, first), (arrays(obs), first.numpy()))
    actions = [
        learner.act(seen, None, flags, "eval", rand=Rand.seeded(1))[0].primary()
        for seen, flags in asked
    ]
    assert actions[0] is None or torch.equal(*actions), "act chooses other actions for arrays"  # type: ignore[arg-type]


def _refused(what: str, call: Callable[[], Any]) -> None:
    fault: Exception | None = None
    try:
        with torch.no_grad():
            call()
    except WorldFluxError as error:
        text = str(error)
        logger.debug("%s: %s", what, text)
        assert len(text) > 30 and "\n" not in text, f"{what}: {text!r} is no sentence"
        return
    except Exception as error:  # noqa: BLE001 - whatever came in place of a sentence
        fault = error
    assert fault is not None, f"{what} is taken without a word"
    raise AssertionError(
        f"{what} ends in {type(fault).__name__}: {fault!s:.100}. It is entered without the checks "
        "of worldflux.core.seam"
    ) from fault


def _encoding(model: WorldModel) -> Iterator[Case]:
    obs = random_obs(model.obs_spec, (_ROWS,), Rand.seeded(0))
    for what, wrong in _wrong_obs(model.obs_spec, obs):
        yield f"encode of {what}", partial(model.encode, wrong)
    yield "encode of text", lambda: model.encode("image")  # type: ignore[arg-type]


def _stepping(model: WorldModel) -> Iterator[Case]:
    obs = random_obs(model.obs_spec, (_ROWS,), Rand.seeded(0))
    with torch.no_grad():
        state = model.encode(obs, rand=Rand.seeded(1))
    row = state.map(lambda tensor: tensor[0])
    if model.decoder_module is not None:
        yield "decode of a key 'nothing'", lambda: model.decode(state, keys=("nothing",))
        yield "decode of a dict", lambda: model.decode(dict(state.tensors))  # type: ignore[arg-type]
        if model.state_shapes:
            yield "decode of a State without its batch axis", lambda: model.decode(row)
    if model.dynamics_model is None or model.action is None or model.stride != 1:
        return
    action = random_actions(model.action, (_ROWS,), Rand.seeded(2))
    yield "transition from a tensor", lambda: model.transition(action, action)  # type: ignore[arg-type]
    for what, wrong in _wrong_actions(action):
        yield f"transition with {what}", partial(model.transition, state, wrong)
        yield f"update with {what}", partial(model.update, state, wrong, obs)
    for what, other in _wrong_obs(model.obs_spec, obs):
        yield f"update with {what}", partial(model.update, state, action, other)
    plan = random_actions(model.action, (_ROWS, _LENGTH), Rand.seeded(2))
    yield "rollout along actions (B, T, ...)", lambda: model.rollout(state, plan)


def _learning(model: WorldModel) -> Iterator[Case]:
    batch = batch_for(model, _ROWS, _LENGTH)
    for what, wrong in _wrong_batches(batch):
        yield f"loss of {what}", partial(model.loss, wrong)


def _updating(learner: Learner) -> Iterator[Case]:
    first = learner.training_plan().phases[0]
    batch, phase = random_steps(learner.columns, _ROWS, _LENGTH, stride=first.stride), first.name
    for what, wrong in _wrong_batches(batch):
        yield f"update with {what}", partial(learner.update, wrong, phase)


def _acting(agent: Agent) -> Iterator[Case]:
    obs, first = acting_obs(agent, _ROWS, 0), _firsts(_ROWS)
    for what, wrong in _wrong_obs(agent.obs_spec, obs):
        yield f"act on {what}", partial(agent.act, wrong, None, first)
    yield "act with a flag too many", lambda: agent.act(obs, None, _firsts(_ROWS + 1))
    yield "act with flags that are no bool", lambda: agent.act(obs, None, first.float())
    yield "act with a list of flags", lambda: agent.act(obs, None, [True] * _ROWS)  # type: ignore[arg-type]
    yield "act in a mode 'test'", lambda: agent.act(obs, None, first, "test")  # type: ignore[arg-type]


def _wrong_obs(
    spaces: Mapping[str, TensorSpec], obs: Mapping[str, Tensor]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    key, spec = next(iter(spaces.items()))
    value = obs[key]
    yield "an observation without its batch axis", {**obs, key: value[0]}
    yield "an observation with a time axis", {**obs, key: value[:, None]}
    if spec.image:
        yield "an image with channels last", {**obs, key: value.permute(0, 2, 3, 1)}
        yield "an image of another size", {**obs, key: value[..., 1:, 1:]}
        yield "an image of int64", {**obs, key: value.long()}
        yield "an image of floats in 0..255", {**obs, key: value.float()}
    elif spec.shape:
        yield "an observation of another width", {**obs, key: torch.cat([value, value], -1)}
    yield "an observation under a wrong key", {f"{key}_": value}


def _wrong_actions(action: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "an action without its batch axis", action[0]
    yield "an action for other rows", action[1:]
    if action.ndim > 1:
        yield "an action of another width", torch.cat([action, action], -1)
    if not action.is_floating_point():
        yield "a choice that is not there", torch.full_like(action, 10_000)


def _wrong_batches(batch: Batch) -> Iterator[tuple[str, Any]]:
    yield "a dict", dict(batch.obs)
    turned = {key: value.transpose(0, 1) for key, value in batch.obs.items()}
    yield "a batch whose observations are (T, B, ...)", replace(batch, obs=turned)
    yield "a batch without observations", replace(batch, obs={})
    if batch.reward is not None:
        yield "a batch whose rewards are (B, T, 1)", replace(batch, reward=batch.reward[..., None])


def arrays(value: _T) -> _T:
    """A batch or mapping with every tensor as a numpy array."""
    if isinstance(value, Tensor):
        return value.numpy()  # type: ignore[return-value]
    if isinstance(value, Mapping):
        return {key: arrays(part) for key, part in value.items()}  # type: ignore[return-value]
    if isinstance(value, Batch):
        return replace(value, **{f.name: arrays(getattr(value, f.name)) for f in fields(value)})
    return value


def _equal(one: State, other: State) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(tensor, other[key]) for key, tensor in one.tensors.items()
    )


def _firsts(rows: int) -> Tensor:
    return torch.ones(rows, dtype=torch.bool)
