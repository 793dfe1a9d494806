"""Every exception WorldFlux raises on purpose: one tree, so that callers can catch it whole."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WorldFluxError(Exception):
    """Root of everything WorldFlux raises on purpose."""


class ConfigError(WorldFluxError, ValueError):
    """A configuration key, value or preset that does not exist or is out of range."""


class UnknownIdError(WorldFluxError, LookupError):
    """An id that names no installed model family, environment backend, planner or command."""


class PluginLoadError(WorldFluxError, RuntimeError):
    """A plugin that is installed but cannot be used; carries its traceback in the text."""


class StateError(WorldFluxError, ValueError):
    """A `State` whose tensors disagree, or a serialised one that cannot be read."""


class ContractError(WorldFluxError, ValueError):
    """Data that breaks a contract: the shapes and keys of batches, payloads or trajectories."""


class CapabilityError(WorldFluxError, RuntimeError):
    """A model was asked for something it does not advertise."""


class StorageError(WorldFluxError, OSError):
    """A file or folder of ours that is missing, damaged or of a different version."""


class EnvError(WorldFluxError, RuntimeError):
    """An environment that cannot be made, died, or broke the environment contract."""


class DivergenceError(WorldFluxError, ArithmeticError):
    """Training produced a loss, gradient or weight that is not finite."""


# What others call the same: no spelling distance leads from one to the other.
_OTHER_WORDS = {
    "learning_rate": ("lr", "model_lr"),
    "batch_size": ("batch",),
    "batch": ("batch_size",),
    "batch_length": ("length",),
    "seq_len": ("length", "horizon"),
    "sequence_length": ("length", "horizon"),
    "num_envs": ("envs",),
    "n_envs": ("envs",),
    "buffer_size": ("replay_capacity",),
    "replay_size": ("replay_capacity",),
    "total_timesteps": ("steps",),
    "num_steps": ("steps",),
    "gamma": ("discount", "horizon"),
    "utd": ("updates_per_step", "train_ratio"),
}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known name nearest to `name`, or an empty string."""
    found = nearest(name, known)
    return "" if found is None else f" Did you mean {found!r}?"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that means or is spelled about the same as `name`."""
    names = list(known)
    for other in _OTHER_WORDS.get(name, ()):
        if other in names:
            return other
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.5)), None)
