"""The base of our wrappers: what each remembers from step to step is declared, so runs resume."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from worldflux_envs import resume


class Layer(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A wrapper that takes part in the environment state interface (`worldflux_envs.resume`)."""

    # Names of the attributes that differ from step to step.
    state_attributes: tuple[str, ...] = ()

    def __init__(self, env: gymnasium.Env[Any, Any], **arguments: Any) -> None:
        RecordConstructorArgs.__init__(self, **arguments)
        gymnasium.Wrapper.__init__(self, env)

    def get_state(self) -> dict[str, Any] | None:
        """Everything the next step depends on, as JSON values; None where a part cannot say."""
        return resume.get_state(self)

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `get_state` gave; call `reset(seed=...)` first."""
        resume.set_state(self, state)
