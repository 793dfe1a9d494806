"""Backend `dm-env`: any `dm_env.Environment`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from worldflux.errors import EnvError
from worldflux.specs import EnvSpec

if TYPE_CHECKING:
    import gymnasium

hookimpl = pluggy.HookimplMarker("worldflux")


@hookimpl
def worldflux_envs() -> Iterable[EnvSpec]:
    """The `dm-env` backend."""
    return [
        EnvSpec(
            backend="dm-env",
            make=f"{__name__}:make",
            description="any dm_env.Environment: module:function that makes one, or an object",
            requires=("dm_env",),
            install="pip install dm_env",
            options={"...": "anything else goes to the function"},
        )
    ]


def make(task: Any, **options: Any) -> gymnasium.Env[Any, Any]:
    """`module:function` (or a function, or an environment) as a Gymnasium environment."""
    import dm_env

    from worldflux_envs.dm_any import as_gymnasium

    options = {key: value for key, value in options.items() if key != "render_mode"}
    if isinstance(task, str):
        module, colon, name = task.partition(":")
        if not colon:
            raise EnvError(f"dm-env/{task} names no function: write dm-env/module:function.")
        try:
            task = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise EnvError(f"dm-env/{task} cannot be imported: {error}.") from error
    environment = task if isinstance(task, dm_env.Environment) else task(**options)
    if not isinstance(environment, dm_env.Environment):
        raise EnvError(f"dm-env: {task!r} gave a {type(environment).__name__}, no dm_env one.")
    return as_gymnasium(environment)
