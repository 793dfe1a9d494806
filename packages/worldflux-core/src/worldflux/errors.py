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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known name nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
