"""Whether every model of a comparison can learn in its environments, before any is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from worldflux.errors import WorldFluxError
from worldflux_train.assembly import make_agent, make_envs
from worldflux_train.comparison.entries import Entry
from worldflux_train.stepping import Stepper


def require_fit(entries: Sequence[Entry]) -> None:
    """Make every environment once and every model without weights; errors name both.

    Options of an environment are the same for all models, so that one speaks for all.
    """
    steppers: dict[str, Stepper] = {}
    for entry in {(entry.place.env, entry.label): entry for entry in entries}.values():
        if entry.place.env not in steppers:
            steppers[entry.place.env] = _closed_stepper(entry)
        _require_fit(entry, steppers[entry.place.env])


def _closed_stepper(entry: Entry) -> Stepper:
    """Its spaces are what is asked for."""
    envs = make_envs(entry.config, 1)
    try:
        return Stepper(envs, [0])
    finally:
        envs.close()


def _require_fit(entry: Entry, stepper: Stepper) -> None:
    meta = torch.device("meta")
    try:
        with meta:
            make_agent(entry.config, stepper.obs_spec, stepper.action_spec, meta)
    except WorldFluxError as error:
        text = f"{entry.label} cannot learn in {entry.config.env_id}: {error}"
        raise type(error)(text) from error
