"""The parts of a run, built from its configuration through the registries."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from worldflux.columns import Columns
from worldflux.core.agent import Agent, Learner
from worldflux.errors import CapabilityError, ConfigError, WorldFluxError
from worldflux.factory import create_agent, get_env_spec, make_vec_env
from worldflux.specs import TensorSpec
from worldflux_train.config import RunConfig, TrainConfig
from worldflux_train.nested import flat
from worldflux_train.ranks import own, rank_seed
from worldflux_train.replay.replay import Replay
from worldflux_train.seeding import derived

logger = logging.getLogger(__name__)
MANY_ENVS = 100


def make_envs(config: RunConfig, count: int) -> Any:
    """`count` environments behind one VectorEnv."""
    if count >= MANY_ENVS:
        logger.info("making %s environments of %s: this takes a while", f"{count:,}", config.env_id)
    return make_vec_env(config.env_id, count, **config.env_options)


def make_evaluation_envs(config: RunConfig, count: int) -> Any:
    """`count` environments in the form agents are evaluated in."""
    return make_vec_env(config.env_id, count, **evaluation_options(config))


def evaluation_options(config: RunConfig) -> dict[str, Any]:
    """The run's options, over those its backend declares for evaluation (no life loss in Atari)."""
    return {**get_env_spec(config.env_id).evaluation, **config.env_options}


def make_agent(
    config: RunConfig,
    obs_spec: dict[str, TensorSpec],
    action_spec: dict[str, TensorSpec],
    device: torch.device,
) -> Learner:
    """The untrained learner; its initial weights follow from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived(config.train.seed, "weights"))
        with _too_large(config):
            agent: Learner = create_agent(
                config.id, obs_spec=obs_spec, action_spec=action_spec, config=config.family,
                slots=config.slots,
            )  # fmt: skip
    with _too_large(config):
        return agent.to(device)


# How torch says that a size is more than there is memory or than an index can count.
_ALLOCATION = (
    "allocate memory", "out of memory", "overflow", "allowed dimension", "too big", "too large",
)  # fmt: skip


@contextmanager
def _too_large(config: RunConfig) -> Iterator[None]:
    """An allocation that fails names the keys of the configuration that ask for most."""
    try:
        yield
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:
        if not _is_allocation(error):
            raise
        raise ConfigError(
            f"{config.id} does not fit into memory ({str(error).partition(chr(10))[0]}). The "
            "largest sizes of its configuration: "
            f"{', '.join(_largest(config.family.to_dict()))}. Lower them."
        ) from error


def _is_allocation(error: BaseException) -> bool:
    if isinstance(error, MemoryError | OverflowError):
        return True
    text = str(error).lower()
    return not isinstance(error, WorldFluxError) and any(sign in text for sign in _ALLOCATION)


def _largest(rooms: Mapping[str, Any], most: int = 3) -> list[str]:
    """The dotted keys with the largest whole numbers, such as `model.deter=8192`."""
    found = [
        (value, f"{key}={value}")
        for key, value in flat(rooms)
        if isinstance(value, int) and not isinstance(value, bool)
    ]
    return [text for _, text in sorted(found, reverse=True)[:most]]


def acting(learner: Learner, config: RunConfig) -> Agent:
    """`learner` as one that acts; `CapabilityError` where it does not."""
    if not isinstance(learner, Agent):
        raise CapabilityError(
            f"{config.id} is a {type(learner).__name__}, which does not act: it cannot be used in "
            "an environment. Train it on data (--data), without --env."
        )
    return learner


def make_replay(agent: Learner, config: TrainConfig, device: torch.device, folder: Path) -> Replay:
    """The empty replay; says how much memory it may come to take."""
    columns = agent.columns
    capacity = config.replay_capacity
    if config.replay_bytes is not None:
        capacity = Replay.steps_in(columns, config.replay_bytes)
    on_disk = config.replay_storage == "disk"
    _say_size(columns, capacity, on_disk)
    try:
        return Replay(
            columns,
            capacity=capacity,
            num_envs=config.envs,
            seed=rank_seed(config.seed, "replay"),
            online=config.replay_online,
            device=device,
            storage=config.replay_storage,
            folder=own(folder / "rows") if on_disk else None,
        )
    except (RuntimeError, MemoryError, OverflowError, ValueError) as error:
        if not _is_allocation(error):
            raise
        size = Replay.bytes_for(columns, capacity)
        raise ConfigError(
            f"A replay of {capacity:,} steps takes {size / 1e9:,.1f} GB, which cannot be had "
            f"({error}). Lower train.replay_capacity, or set train.replay_storage=disk."
        ) from error


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"train.device={name!r} is no torch device: use auto, cpu, cuda."
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"train.device={name!r}, but torch finds no CUDA device. Use auto or cpu: --device cpu "
            "in place of what a run's configuration says."
        )
    return device


def _say_size(columns: Columns, capacity: int, on_disk: bool) -> None:
    size = Replay.bytes_for(columns, capacity)
    logger.info("replay: %d steps, at most %.1f MB", capacity, size / 1e6)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > 0.8 * memory and not on_disk:
        logger.warning(
            "A full replay of %d steps takes %.1f GB, this machine has %.1f GB. Lower "
            "train.replay_capacity, or set train.replay_storage=disk.",
            capacity,
            size / 1e9,
            memory / 1e9,
        )
