"""Which environments a family can learn in, found by trying."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from worldflux.errors import WorldFluxError
from worldflux.factory import create_agent, get_model_spec, make_env
from worldflux.spaces import action_specs, observation_specs

logger = logging.getLogger(__name__)


def fitting(model_id: str, env_ids: Iterable[str], options: Mapping[str, Any]) -> Iterator[str]:
    """Those of `env_ids` whose spaces the family takes; one that cannot be made is logged."""
    get_model_spec(model_id)  # a misspelt one is an error of its own
    for env_id in env_ids:
        try:
            env = make_env(env_id, **options)
        except WorldFluxError as error:
            logger.info("%s is left out: %s", env_id, error)
            continue
        try:
            spaces = observation_specs(env.observation_space), action_specs(env.action_space)
        finally:
            env.close()
        if fits(model_id, *spaces):
            yield env_id


def fits(model_id: str, obs_spec: Mapping[str, Any], action_spec: Mapping[str, Any]) -> bool:
    """Whether the family can be built for these spaces; nothing is allocated."""
    try:
        with torch.device("meta"):
            create_agent(model_id, obs_spec=obs_spec, action_spec=action_spec)
    except WorldFluxError as error:
        logger.info("%s does not fit: %s", model_id, error)
        return False
    return True
