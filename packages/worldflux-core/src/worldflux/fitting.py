"""Which environments a family can learn in, found by trying."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from worldflux.errors import WorldFluxError
from worldflux.spaces import Specs, action_specs, observation_specs

logger = logging.getLogger(__name__)


def fitting(
    env_ids: Iterable[str], make: Callable[[str], Any], build: Callable[[Specs, Specs], Any]
) -> Iterator[str]:
    """Those of `env_ids` for whose spaces `build(obs_spec, action_spec)` succeeds.

    An environment that `make` cannot make is logged; nothing is allocated by what is built.
    """
    for env_id in env_ids:
        try:
            env = make(env_id)
        except WorldFluxError as error:
            logger.info("%s is left out: %s", env_id, error)
            continue
        try:
            spaces = observation_specs(env.observation_space), action_specs(env.action_space)
        finally:
            env.close()
        try:
            with torch.device("meta"):
                build(*spaces)
        except WorldFluxError as error:
            logger.info("%s does not fit: %s", env_id, error)
            continue
        yield env_id
