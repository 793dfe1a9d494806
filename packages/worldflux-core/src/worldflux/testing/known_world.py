"""The check that a family learns a known world: what its heads predict there has to come true.

The family trains on the line world for a bounded number of updates, as its training plan says.
Then it filters unseen sequences with `observe`, takes one `transition` with the action that was
taken, and its predictions are compared with what followed: they must have less than half of the
error of the best constant, and of the prediction shifted by one step. If they have not, the
likely mistake is looked for and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from worldflux.core.agent import Learner
from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.nn.modes import evaluating
from worldflux.specs import TensorSpec
from worldflux.testing.diagnosis import diagnosis
from worldflux.testing.line_world import CONTINUOUS, DISCRETE, IMAGE, VECTOR, line_world
from worldflux.testing.one_step_ahead import Prediction, predictions
from worldflux.testing.phases import as_sampled
from worldflux.training import Phase

_HALF = 0.5
_LOOK = 25  # updates between two looks at the predictions
_STEPS = 8
Specs = Mapping[str, TensorSpec]


def check_learns_known_world(learner: Learner, updates: int = 300, rows: int = 16) -> None:
    """Within `updates` of each phase, reward, continue and observation predictions come true."""
    learner.total = {**dict.fromkeys(learner.optimizers, updates), **learner.total}  # schedules
    for phase in learner.training_plan().phases:
        for step in range(updates):
            learner.update(world_batch(learner, phase, rows, seed=step), phase.name)
            if step % _LOOK == _LOOK - 1 and not _missed(learner.world_model)[0]:
                return
    missed, learnt = _missed(learner.world_model)
    if not missed:
        return
    worst = missed[0]
    raise AssertionError(
        f"the known world is not learnt: after {updates} updates the error of {worst.name!r} one "
        f"step ahead is {worst.ratio:.2f} of that of the better of a constant and the value one "
        f"step earlier (required: {_HALF}). {diagnosis(learner.world_model, missed, learnt)}"
    )


def _missed(model: WorldModel) -> tuple[list[Prediction], list[str]]:
    """Predictions that do not come true, the worst first, and the names of those that do."""
    with evaluating(model):
        found = list(predictions(model))
    missed = [prediction for prediction in found if not prediction.ratio < _HALF]
    learnt = [prediction.name for prediction in found if prediction.ratio < _HALF]
    return sorted(missed, key=lambda prediction: -prediction.ratio), learnt


def world_batch(learner: Learner, phase: Phase, rows: int, seed: int) -> Batch:
    """What `phase` would sample of the line world, with `rows` rows and few steps."""
    length = phase.context + min(phase.length, _STEPS)
    batch = _sequences(learner, rows, length, seed, phase)
    return as_sampled(learner, phase, batch)


def _sequences(learner: Learner, rows: int, length: int, seed: int, phase: Phase) -> Batch:
    """`rows` sequences of the line world; only such as lie in one episode, if a phase says so."""
    spaces, stride = (learner.obs_spec, learner.action_spec), phase.stride
    if phase.boundary != "within":
        return line_world(*spaces, rows, length, seed)
    batch = line_world(*spaces, 16 * rows, length, seed, stride)
    whole = (~batch.is_first[:, 1:].any(1)).nonzero()[:rows, 0]
    return batch.map(lambda tensor: tensor[whole])


def line_spaces(
    accepts: Callable[[Specs, Specs], bool], obs_spec: Specs | None = None
) -> tuple[Specs, Specs] | None:
    """The first spaces of the line world that a family accepts: those with actions first.

    Where `obs_spec` is given, the observations are those.
    """
    worlds: tuple[tuple[Specs, ...], ...] = ((CONTINUOUS, DISCRETE), ({},))
    observations = (VECTOR, IMAGE) if obs_spec is None else (obs_spec,)
    spaces = [(obs, action) for kind in worlds for obs in observations for action in kind]
    return next((pair for pair in spaces if accepts(*pair)), None)
