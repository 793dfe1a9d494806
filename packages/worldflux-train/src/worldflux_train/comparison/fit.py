"""Whether every model of a comparison can learn in its environment, before any is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from worldflux.errors import WorldFluxError
from worldflux_train.assembly import make_agent, make_envs
from worldflux_train.comparison.entries import Entry
from worldflux_train.stepping import Stepper


def require_fit(entries: Sequence[Entry]) -> None:
    """Make the environment once and every model without weights; errors name the model.

    Options of the environment are the same for all, so that one environment speaks for all.
    """
    envs = make_envs(entries[0].config, 1)
    try:
        stepper = Stepper(envs, [0])
    finally:
        envs.close()
    meta = torch.device("meta")
    for entry in {entry.label: entry for entry in entries}.values():
        try:
            with meta:
                make_agent(entry.config, stepper.obs_spec, stepper.action_spec, meta)
        except WorldFluxError as error:
            text = f"{entry.label} cannot learn in {entry.config.env_id}: {error}"
            raise type(error)(text) from error
