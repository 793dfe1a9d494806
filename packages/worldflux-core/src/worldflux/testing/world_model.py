"""The conformance checks of a world model. Each is a function, named in the error it raises."""

from __future__ import annotations

import asyncio
import copy
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.rand import Rand
from worldflux.core.state import CACHE, State
from worldflux.errors import CapabilityError
from worldflux.specs import Capability
from worldflux.testing.batches import batch_for, other_actions, random_actions, random_obs
from worldflux.testing.boundaries import check_loss_respects_episodes
from worldflux.testing.conditions import check_conditions_matter, random_conditions
from worldflux.testing.inputs import check_inputs_matter, check_rows_are_independent, randomise
from worldflux.testing.running import run_checks
from worldflux.testing.sequences import (
    check_sequence_equals_steps,
    check_sequence_is_causal,
    check_transition_leaves_its_state_alone,
)
from worldflux.testing.slots import PerturbedSlot
from worldflux.testing.wrong_inputs import check_refuses_wrong_inputs, check_takes_arrays

Make = Callable[[], WorldModel]
_STEPS = 4
_CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def check_world_model(make: Make) -> list[str]:
    """Run every check that applies on models from `make()`; return their names.

    Raises `AssertionError` naming the first check that fails. `make` builds a small model; it is
    called once per check, with torch's global generator forked and fixed.
    """
    return run_checks(make, CHECKS, _applies)


def _applies(check: Callable[[WorldModel], None], model: WorldModel) -> bool:
    """Whether the model has what `check` is about: a model is driven by what it has."""
    dynamics = model.dynamics_model is not None
    acts = bool(model.action_spec) and not model.supports(Capability.UNCONDITIONAL)
    needs: dict[Callable[[WorldModel], None], bool] = {
        check_transition_keeps_shapes: dynamics,
        check_transition_leaves_its_state_alone: dynamics,
        check_rollout_equals_steps: dynamics,
        check_rollout_is_causal: dynamics and acts,
        check_reset_touches_only_its_rows: model.recurrent,
        check_sequence_equals_steps: model.recurrent,
        check_decode: model.decoder_module is not None,
        check_async_twins: dynamics,
        check_score: dynamics and model.supports(Capability.PLANNING) and model.supports_reward,
        check_conditions_matter: bool(model.condition_spec),
        check_loss_respects_episodes: not model.loss_spans_batch and model.stride == 1,
    }
    return needs.get(check, True)


def _obs(model: WorldModel, rows: int = 3, seed: int = 1) -> dict[str, Tensor]:
    return random_obs(model.obs_spec, (rows,), Rand.seeded(seed))


def _actions(model: WorldModel, *lead: int, seed: int = 2) -> Tensor:
    return random_actions(model.action, lead, Rand.seeded(seed))


def _start(model: WorldModel, rows: int = 3) -> State:
    with torch.no_grad():
        return model.encode(_obs(model, rows), deterministic=True)


def _same(left: State, right: State, what: str) -> None:
    assert left.tensors.keys() == right.tensors.keys(), f"{what}: keys differ"
    for key, value in left.tensors.items():
        torch.testing.assert_close(
            value, right.tensors[key], **_CLOSE, msg=f"{what}: {key} differs"
        )


def check_loss_trains_everything(model: WorldModel) -> None:
    """The loss is a finite scalar and its gradient reaches every trainable parameter."""
    output = model.loss(batch_for(model, batch=3, length=8))
    assert output.loss.ndim == 0, f"loss has shape {tuple(output.loss.shape)}, expected a scalar"
    assert bool(torch.isfinite(output.loss)), f"loss is {output.loss.item()}"
    for name, value in output.components.items():
        assert value.ndim == 0, f"component {name!r} has shape {tuple(value.shape)}"
    output.loss.backward()  # type: ignore[no-untyped-call]
    missed = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missed, f"no gradient reaches {missed[:3]}"


def check_state_contract(model: WorldModel) -> None:
    """States fit `state_spec`, and survive serialisation."""
    state = _start(model)
    model.validate_state_contract(state)
    assert model.state_spec().tensors, "state_spec is empty: declare the State's tensors"
    _same(State.deserialize(state.serialize()), state, "deserialised state")


def check_transition_keeps_shapes(model: WorldModel) -> None:
    """A transition gives a State of the declared keys, with the shapes they had."""
    state = _start(model)
    following = model.transition(state, _actions(model, 3), random_conditions(model, 3))
    for key in model.state_spec().tensors:
        value = state[key]
        assert key in following, f"transition lost {key!r}"
        assert following[key].shape == value.shape, f"transition changed the shape of {key!r}"


@torch.no_grad()
def check_rollout_equals_steps(model: WorldModel) -> None:
    """`rollout` of H actions equals H single transitions."""
    start, actions = _start(model), _actions(model, _STEPS, 3)
    given = random_conditions(model, 3)
    trajectory = model.rollout(start, actions, given, deterministic=True)
    assert len(trajectory.states) == _STEPS + 1, f"{len(trajectory.states)} states"
    state = start
    for t in range(_STEPS):
        state = model.transition(state, actions[t], given, deterministic=True)
        last = t + 1 == _STEPS  # caches are kept there alone
        expected = state if last else state.without_caches()
        _same(trajectory.states[t + 1], expected, f"step {t + 1}")
    if model.action is None and model.supports(Capability.UNCONDITIONAL):
        without = model.rollout(start, None, given, horizon=_STEPS, deterministic=True)
        _same(without.states[-1], state, "rollout without actions (None)")


@torch.no_grad()
def check_rollout_is_causal(model: WorldModel) -> None:
    """Another action at step t leaves all states up to t alone and changes a later one."""
    start, actions = _start(model), _actions(model, _STEPS, 3)
    other = actions.clone()
    other[2] = other_actions(model.required_action(), other[2])
    first = model.rollout(start, actions, deterministic=True)
    second = model.rollout(start, other, deterministic=True)
    for t in range(3):
        _same(first.states[t], second.states[t], f"action 2 changed state {t}")
    changed = [
        not torch.equal(first.states[3][key], second.states[3][key])
        for key in model.state_spec().tensors
        if not key.startswith(CACHE)  # kept in a rollout's last State only
    ]
    assert any(changed), "the action at step 2 changed nothing in state 3: it is ignored"


@torch.no_grad()
def check_reset_touches_only_its_rows(model: WorldModel) -> None:
    """`is_first` makes its row forget state and action, and leaves the other rows alone."""
    state = model.transition(_start(model), _actions(model, 3), deterministic=True)
    obs, action = _obs(model, seed=5), _actions(model, 3, seed=6)
    none, first = torch.zeros(3, dtype=torch.bool), torch.tensor([True, False, False])
    kept = model.observe(state, action, obs, none, deterministic=True)
    reset = model.observe(state, action, obs, first, deterministic=True)
    fresh = model.encode(obs, deterministic=True)
    for key in kept.tensors:
        torch.testing.assert_close(
            reset[key][1:], kept[key][1:], **_CLOSE, msg=f"{key}: a reset changed other rows"
        )
        torch.testing.assert_close(
            reset[key][:1], fresh[key][:1], **_CLOSE, msg=f"{key}: a reset row kept its history"
        )


@torch.no_grad()
def check_decode(model: WorldModel) -> None:
    """Predictions have a row per state, continue is a probability, `keys` limits the work."""
    state = _start(model)
    output = model.decode(state)
    for key, value in output.predictions.items():
        assert value.shape[0] == 3, f"prediction {key!r} has shape {tuple(value.shape)}"
    if "continue" in output.predictions:
        probability = output.predictions["continue"]
        inside = bool(((probability >= 0) & (probability <= 1)).all())
        assert inside, "predictions['continue'] is not a probability: put logits into aux"
    wanted = next(iter(output.predictions))
    only = model.decode(state, keys=(wanted,)).predictions
    assert set(only) == {wanted}, f"decode(keys=[{wanted!r}]) gave {sorted(only)}"
    torch.testing.assert_close(only[wanted], output.predictions[wanted], **_CLOSE)


@torch.no_grad()
def check_generators_decide(model: WorldModel) -> None:
    """The same seed of `rand` gives the same states; the global generator is not consumed."""
    obs, action = _obs(model), _actions(model, 3)
    before = torch.random.get_rng_state()
    runs = []
    for _ in range(2):
        rand = Rand.seeded(7)
        state = model.encode(obs, rand=rand)
        if model.dynamics_model is not None:
            state = model.transition(state, action, rand=rand)
        runs.append(state)
    _same(runs[0], runs[1], "same seed")
    untouched = torch.equal(before, torch.random.get_rng_state())
    assert untouched, "sampling consumed torch's global generator: draw from `rand`"


def check_async_twins(model: WorldModel) -> None:
    """The async twins return what the sync methods return."""
    state, actions = _start(model), _actions(model, _STEPS, 3)
    with torch.no_grad():
        expected = model.rollout(state, actions, deterministic=True)
        actual = asyncio.run(model.async_rollout(state, actions, deterministic=True))
    _same(actual.states[-1], expected.states[-1], "async_rollout")


def check_capabilities(model: WorldModel) -> None:
    """Advertised predictions are there, and what is not advertised is refused."""
    names = {
        Capability.REWARD_PRED: "reward",
        Capability.CONTINUE_PRED: "continue",
        Capability.VALUE_PRED: "value",
    }
    if model.decoder_module is not None:
        with torch.no_grad():
            predictions = model.decode(_start(model)).predictions
        for capability, key in names.items():
            if model.supports(capability):
                assert key in predictions, f"advertises {capability!s} but predicts no {key!r}"
    for capability in Capability:
        if not model.supports(capability):
            try:
                model.require(capability)
            except CapabilityError:
                continue
            raise AssertionError(f"require({capability!s}) passed though it is not supported")


@torch.no_grad()
def check_score(model: WorldModel) -> None:
    """`score` rates candidates (B, N, H, A) as (B, N), each by its own actions."""
    from worldflux.planning import default_score

    score = getattr(type(model), "score", default_score)
    state = _start(model, rows=2)
    assert model.action is not None, "it advertises PLANNING but takes no actions"
    candidates = _actions(model, 2, 3, _STEPS)
    scores = score(model, state, candidates)
    assert scores.shape == (2, 3), f"score has shape {tuple(scores.shape)}, expected (2, 3)"
    torch.testing.assert_close(
        score(model, state, candidates[:, 1:2])[:, 0],
        scores[:, 1],
        **_CLOSE,
        msg="a candidate's score depends on the other candidates",
    )


def check_slots_take_effect(model: WorldModel) -> None:
    """A perturbed slot changes the loss, its gradients and the rollout."""
    assert model.composable_support, "composable_support is empty: declare replaceable slots"
    batch = batch_for(model, batch=2, length=6)
    for name in sorted(model.composable_support):
        assert getattr(model, name) is not None, f"declares slot {name!r} but leaves it empty"
        idle = _unchanged(model, name, batch)
        if idle:  # what begins closed (a gate at zero) may open: randomised weights decide
            randomised = copy.deepcopy(model)
            randomise(randomised)
            idle = _unchanged(randomised, name, batch)
        assert not idle, f"replacing {name!r} does not change the {idle[0]}"


def _unchanged(model: WorldModel, name: str, batch: Batch) -> list[str]:
    """What stays as it is when slot `name` is perturbed, though it should not."""
    plain, slot = _fingerprints(model, batch), getattr(model, name)
    setattr(model, name, PerturbedSlot(slot))
    changed = _fingerprints(model, batch)
    setattr(model, name, slot)
    idle = []
    for what, value in plain.items():
        if name == "rollout_executor" and what != "rollout":
            continue  # it serves imagination: `check_agent` requires the update to change
        if name == "observation_encoder" and what == "rollout" and model.starts_anew:
            continue
        if torch.allclose(value, changed[what], rtol=1e-6, atol=0):
            idle.append(what)
    return idle


def _fingerprints(model: WorldModel, batch: Batch) -> dict[str, Tensor]:
    """Loss, gradient norm and a rollout's sum, with fixed randomness."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model.zero_grad()
        loss = model.loss(batch).loss
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    found = {"loss": loss.detach(), "gradients": torch.stack(gradients).norm()}
    if model.dynamics_model is not None:
        found["rollout"] = _rollout_sum(model)
    return found


@torch.no_grad()
def _rollout_sum(model: WorldModel) -> Tensor:
    actions = _actions(model, _STEPS, 3)
    trajectory = model.rollout(_start(model), actions, deterministic=True, decode=True)
    predicted = [trajectory.rewards, trajectory.values, trajectory.continues]
    predicted += list((trajectory.observations or {}).values())
    parts = [v.double().sum() for s in trajectory.states[1:] for v in s.tensors.values()]
    parts += [x.double().sum() for x in predicted if x is not None]
    return torch.stack(parts).abs().sum()


def check_builds_on_meta(model: WorldModel) -> None:
    """The class builds on the meta device: no device, dtype or data in constructors."""
    try:
        with torch.device("meta"):
            twin = type(model)(model.config, model.obs_spec, model.action_spec)
    except (NotImplementedError, RuntimeError, TypeError) as error:
        raise AssertionError(f"the constructor needs real data: {error}") from error
    assert all(parameter.is_meta for parameter in twin.parameters()), (
        "the constructor places parameters on a device of its own choice"
    )


def check_pretrained_round_trip(model: WorldModel) -> None:
    """Weights, configuration and fingerprint survive `save_pretrained`."""
    from worldflux.hub import load_into

    with tempfile.TemporaryDirectory() as folder:
        path = model.save_pretrained(f"{folder}/model")
        twin = type(model)(model.config, model.obs_spec, model.action_spec)
        load_into(twin, path)
    assert twin.contract_fingerprint() == model.contract_fingerprint()
    for (name, left), right in zip(
        model.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), f"{name} changed in the round trip"


CHECKS: tuple[Callable[[WorldModel], None], ...] = (
    check_builds_on_meta,
    check_state_contract,
    check_transition_keeps_shapes,
    check_transition_leaves_its_state_alone,
    check_sequence_is_causal,
    check_inputs_matter,
    check_refuses_wrong_inputs,
    check_takes_arrays,
    check_conditions_matter,
    check_rollout_equals_steps,
    check_rollout_is_causal,
    check_rows_are_independent,
    check_reset_touches_only_its_rows,
    check_sequence_equals_steps,
    check_decode,
    check_generators_decide,
    check_async_twins,
    check_capabilities,
    check_score,
    check_loss_trains_everything,
    check_loss_respects_episodes,
    check_slots_take_effect,
    check_pretrained_round_trip,
)
