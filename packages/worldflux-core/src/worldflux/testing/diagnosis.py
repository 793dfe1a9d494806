"""What a family that did not learn the known world probably got wrong, in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.testing.batches import other_actions
from worldflux.testing.line_world import line_world
from worldflux.testing.one_step_ahead import Prediction

_FITS = 0.35
"""A prediction with less than this share of a wrong target's variance as error follows it."""
_NOTHING = 0.7
"""An error ratio from here on says nothing more than the mean."""


def diagnosis(model: WorldModel, missed: Sequence[Prediction], learnt: Sequence[str]) -> str:
    """The likely mistake, from all that was missed and the names of what came true.

    What a single prediction shows (a sign, a shift) is looked for in each of them, the worst first.
    A reward alone that is missed has a mistake of its own; with the observations the action has.
    """
    return (
        _zeroed_action(model)
        or _first(_flipped, missed)
        or (_first(_shifted, missed) if learnt else "")
        or _shifted_action(model, missed, learnt)
        or _late_reward(model, missed, learnt)
        or "Its own loss may know what `observe` and `transition` do not: look for a later "
        "observation in the State that the loss trains on. If it only learns slowly, give the "
        "family quicker settings in ModelSpec.check."
    )


def _first(look: Callable[[Prediction], str], missed: Sequence[Prediction]) -> str:
    """What `look` says of the first of the predictions that it says something of."""
    return next((said for said in map(look, missed) if said), "")


def _zeroed_action(model: WorldModel) -> str:
    if not model.action_spec:
        return ""
    spec = model.required_action()

    def changed(batch: Batch) -> Batch:
        return replace(batch, action=other_actions(spec, batch.require("action")))

    if _loss(model, changed) != _loss(model, lambda batch: batch):
        return ""
    return "The action is zeroed or left out in `loss`: other actions give the same loss."


def _shifted_action(model: WorldModel, missed: Sequence[Prediction], learnt: Sequence[str]) -> str:
    """Nothing that an action moves is learnt, and it is not for want of time."""
    moved = {"reward", "position", *model.obs_spec}
    ratios = [prediction.ratio for prediction in missed if prediction.name in moved]
    if not model.action_spec or moved & {*learnt} or not ratios or max(ratios) < _NOTHING:
        return ""
    return (
        "Nothing that follows from the action is learnt: the action is off by one in `loss`. "
        "action[t] leads from obs[t] to obs[t + 1]."
    )


def _late_reward(model: WorldModel, missed: Sequence[Prediction], learnt: Sequence[str]) -> str:
    """The observations are learnt, of the reward nothing is."""
    nothing = any(p.name == "reward" and p.ratio >= _NOTHING for p in missed)
    others = {p.name for p in missed} & {"position", *model.obs_spec}
    if not nothing or others or not learnt:
        return ""
    return (
        "Observations are learnt, the reward is not: it is off by one in `loss`. reward[t] arrived "
        "together with obs[t], so it belongs to the State of step t."
    )


@torch.no_grad()
def _loss(model: WorldModel, changed: Callable[[Batch], Batch]) -> float:
    batch = line_world(model.obs_spec, model.action_spec, 8, 4, seed=3, stride=model.stride)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return float(model.loss(changed(batch)).loss)


def _shifted(missed: Prediction) -> str:
    for target, when in ((missed.earlier, "earlier"), (missed.later, "later")):
        if _follows(missed.predicted, target):
            return (
                f"It follows the {missed.name} of one step {when}: the {missed.name} is off by one "
                f"in `loss`. {missed.name}[t] arrived together with obs[t]."
            )
    return ""


def _flipped(missed: Prediction) -> str:
    if missed.name == "continue" and _follows(missed.predicted, 1 - missed.true):
        return (
            "The continue target is flipped in `loss`: it is 1 where the episode goes on "
            "(~is_terminal)."
        )
    if _follows(missed.predicted, -missed.true):
        return f"The {missed.name} has the wrong sign in `loss`."
    return ""


def _follows(predicted: Tensor, target: Tensor) -> bool:
    return float(((predicted - target) ** 2).mean()) < _FITS * float(target.var(correction=0))
