"""The exceptions, importable beside the contracts that raise them."""

from worldflux.errors import (
    CapabilityError,
    ConfigError,
    ContractError,
    EnvError,
    PluginLoadError,
    StateError,
    StorageError,
    UnknownIdError,
    WorldFluxError,
)

__all__ = [
    "CapabilityError",
    "ConfigError",
    "ContractError",
    "EnvError",
    "PluginLoadError",
    "StateError",
    "StorageError",
    "UnknownIdError",
    "WorldFluxError",
]
