"""Where dreams begin: real observations, or states the model imagines by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldflux.core.actions import no_actions
from worldflux.core.model import WorldModel
from worldflux.core.rand import Rand, randint
from worldflux.core.state import State
from worldflux.errors import EnvError, StorageError
from worldflux.nn.device import device_of

Starts = str | Path | Mapping[str, Any] | None
_RESETS = 64


class StartStates:
    """Start states of dreams.

    `source` is None (imagined: the prior of a first step), observations (M, ...) by key, a folder
    of recorded episodes, or an environment whose resets are used: its id, or a mapping of "id" and
    its options.
    """

    def __init__(self, model: WorldModel, source: Starts = None) -> None:
        self.model = model
        self.observations = _observations(model, source)
        if self.observations is None and not model.recurrent:
            raise EnvError(
                f"{type(model).__name__} cannot imagine a first state: it has no initial one. Give "
                "starts=: observations, a folder of episodes, or an environment id."
            )

    def sample(self, count: int, rand: Rand) -> State:
        """Start states (count, ...)."""
        model, device = self.model, device_of(self.model)
        if self.observations is None:
            nothing = no_actions(model.action, (count,), device)
            return model.transition(model.initial(count, device), nothing, rand=rand)
        total = len(next(iter(self.observations.values())))
        rows = rand.draw("start", (count,), randint(total))
        picked = {key: value[rows].to(device) for key, value in self.observations.items()}
        return model.encode(picked, rand=rand)


def _observations(model: WorldModel, source: Starts) -> dict[str, Tensor] | None:
    if source is None:
        return None
    found = _found(model, source)
    missing = [key for key in model.obs_spec if key not in found]
    if missing:
        raise EnvError(
            f"The start observations lack {missing[0]!r}, which the model sees; they have: "
            f"{', '.join(found)}."
        )
    return found


def _found(model: WorldModel, source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """The observations (M, ...) by key that `source` stands for."""
    if isinstance(source, Mapping):
        if "id" in source:
            return _resets(**source)
        return {key: torch.as_tensor(value) for key, value in source.items()}
    if Path(source).is_dir():
        return _recorded(model, Path(source))
    if isinstance(source, str) and "/" in source:
        return _resets(source)
    raise EnvError(f"starts={str(source)!r} is neither a folder of episodes nor an environment id.")


def _recorded(model: WorldModel, folder: Path) -> dict[str, Tensor]:
    """The first observation of every recorded episode."""
    from worldflux.episodes import Episodes

    episodes = Episodes(folder)
    if not len(episodes):
        raise StorageError(f"{folder} holds no finished episode to start from.")
    return {
        key: torch.stack([torch.as_tensor(episode[f"obs.{key}"][0].copy()) for episode in episodes])
        for key in model.obs_spec
    }


def _resets(id: str, **options: Any) -> dict[str, Tensor]:
    from worldflux import make_env

    env = make_env(id, **options)
    try:
        found = [env.reset(seed=seed)[0] for seed in range(_RESETS)]
    finally:
        env.close()
    return {key: torch.stack([torch.as_tensor(obs[key]) for obs in found]) for key in found[0]}
