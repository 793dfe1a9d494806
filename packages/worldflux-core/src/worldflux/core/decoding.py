"""How a model's decoder is asked: one leading axis, the keys that are wanted, and `"obs"`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from worldflux.core.conditions import repeated_conditions
from worldflux.core.interfaces import forward_arguments
from worldflux.core.observations import BARE_KEY as OBS
from worldflux.core.output import ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import CapabilityError, ContractError, did_you_mean

if TYPE_CHECKING:
    from worldflux.core.model import WorldModel

HEADS = ("reward", "continue", "value")
"""Predictions that may be asked of any model; where they are missing, the caller does without."""


def decode(
    model: WorldModel,
    state: State,
    conditions: ConditionPayload | None,
    keys: Collection[str] | None,
    rand: Rand | None,
) -> ModelOutput:
    """`WorldModel.decode`: predictions (B, ...) or (B, T, ...) from a State, all if None."""
    if model.decoder_module is None:
        raise CapabilityError(f"{type(model).__name__} has no decoder_module: it cannot decode.")
    if conditions is not None:
        conditions.validate(api_version=model.api_version)
    alias = model.obs_alias()
    wanted = keys
    if keys is not None and alias is not None and OBS in keys:
        wanted = [key for key in {*keys, alias} if key != OBS]
    output = _decoded(model, state, conditions, wanted, rand)
    _require_known(model, wanted or (), output)
    if alias in output.predictions and (keys is None or OBS in keys):
        output.predictions.setdefault(OBS, output.predictions[alias])
        if keys is not None and alias not in keys:
            del output.predictions[alias]
    output.state = state
    output.prediction_spec = output.prediction_spec or model.prediction_spec()
    return output


def _require_known(model: WorldModel, keys: Collection[str], output: ModelOutput) -> None:
    """Raise where a key was asked for that is neither predicted nor a head that may lack."""
    missing = [key for key in keys if key not in output.predictions and key not in HEADS]
    if not missing:  # planners decode all the time
        return
    known = {**model.prediction_spec().tensors, **output.predictions}
    for key in missing:
        if key not in known:
            raise ContractError(
                f"decode is asked for {key!r}, which {type(model).__name__} does not predict. It "
                f"predicts: {', '.join(map(repr, known)) or 'nothing'}.{did_you_mean(key, known)}"
            )


def _decoded(
    model: WorldModel,
    state: State,
    conditions: ConditionPayload | None,
    keys: Collection[str] | None,
    rand: Rand | None,
) -> ModelOutput:
    """What the decoder makes of the State's rows: B, or B * T where it has two leading axes."""
    lead, rows = _lead(model, state), state
    if len(lead) == 2:
        rows, conditions = state.flat(), repeated_conditions(conditions, *lead)
    given = {"conditions": conditions, "rand": rand}
    decoder = model.slot("decoder_module", "decode")
    taken = forward_arguments(decoder)
    passed = {k: v for k, v in given.items() if v is not None and k in taken}
    output = decoder(rows, keys, **passed)
    if not isinstance(output, ModelOutput):
        output = ModelOutput(predictions=dict(output))
    return output.unflat(lead) if len(lead) == 2 else output


def _lead(model: WorldModel, state: State) -> tuple[int, ...]:
    """The leading axes of a State: (B,), or (B, T) of a sequence."""
    for name, spec in model.features.items():
        if name in state:
            shape = tuple(state[name].shape)
            return shape[: len(shape) - len(spec.shape)]
    return (state.batch_size,) if state.tensors else ()
