"""Where the values of a step stand in files of arrays, and what common layouts call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveInt

from worldflux.config import Config
from worldflux.errors import StorageError

Arrays = Mapping[str, Any]
"""The arrays of a file by name; names of groups are joined with /."""


class Fields(Config):
    """Names of arrays by what they hold; the keys of `data.options.fields` and of its YAML file."""

    layout: Literal["flat", "groups", "file", "videos", "frames"] = "flat"
    """flat: all episodes one after another; groups: one below the other in a group each; file: a
    file for each; videos: one array (N, T, ...) of frames; frames: one episode (T, ...) of them."""
    episodes: str = ""
    """Of groups: the name of what holds them; "" is the file itself."""
    obs: dict[str, str] = Field(default_factory=dict)
    """Observations: key -> name."""
    next_obs: dict[str, str] = Field(default_factory=dict)
    """What followed each step: key -> name; only the last one of an episode is read."""
    action: str | None = None
    """Actions: row t was taken at observation t."""
    reward: str | None = None
    """Rewards: row t came after action t."""
    terminal: str | None = None
    """Whether the episode ended by itself after action t."""
    timeout: str | None = None
    """Whether it was cut off after action t (flat layouts)."""
    extra: dict[str, str] = Field(default_factory=dict)
    """Further columns: key -> name."""
    choices: PositiveInt | None = None
    """Number of different actions, where they are whole numbers; None: as many as there are."""
    low: float | tuple[float, ...] | None = None
    """Lowest action in the file: scaled to -1. None: actions lie within [-1, 1] already."""
    high: float | tuple[float, ...] | None = None
    """Highest action in the file: scaled to 1."""


def known_layout(arrays: Arrays) -> Fields | None:
    """The layout of a file whose names are those of a format that many use."""
    names = set(arrays)
    for key in ("videos", "frames"):
        if key in names:
            extra = {"action": "actions"} if "actions" in names else {}
            return Fields(layout=key, obs={"image": key}, **extra)  # type: ignore[arg-type]
    if any(name.startswith("data/demo_") for name in names):
        return _robomimic(names)
    if any(name.startswith("episode_") and "/observations" in name for name in names):
        return _minari(names)
    if {"observations", "actions"} <= names:
        return _d4rl(names)
    if "action" in names and ("obs" in names or "observation" in names or "image" in names):
        return _plain(names)
    return None


def _robomimic(names: set[str]) -> Fields:
    """`data/demo_*/{obs/<key>, next_obs/<key>, actions, rewards, dones}`."""
    first = min(name.split("/")[1] for name in names if name.startswith("data/demo_"))
    inner = {name.removeprefix(f"data/{first}/") for name in names if f"/{first}/" in f"/{name}"}
    return Fields(
        layout="groups", episodes="data", obs=_below("obs", inner),
        next_obs=_below("next_obs", inner), action="actions",
        reward="rewards" if "rewards" in inner else None,
        terminal="dones" if "dones" in inner else None,
    )  # fmt: skip


def _minari(names: set[str]) -> Fields:
    """`episode_*/{observations[/<key>], actions, rewards, terminations, truncations}`."""
    first = min(name.split("/")[0] for name in names if name.startswith("episode_"))
    inner = {name.removeprefix(f"{first}/") for name in names if name.startswith(f"{first}/")}
    obs = {"state": "observations"} if "observations" in inner else _below("observations", inner)
    return Fields(
        layout="groups", obs=obs, action="actions", reward="rewards", terminal="terminations"
    )


def _d4rl(names: set[str]) -> Fields:
    """Flat `observations, actions, rewards, terminals, timeouts`, perhaps `next_observations`."""
    following = {"state": "next_observations"} if "next_observations" in names else {}
    return Fields(
        obs={"state": "observations"}, next_obs=following, action="actions",
        reward="rewards" if "rewards" in names else None,
        terminal="terminals" if "terminals" in names else None,
        timeout="timeouts" if "timeouts" in names else None,
    )  # fmt: skip


def _plain(names: set[str]) -> Fields:
    """A file for each episode with `obs` (or `observation`, `image`), `action` and `reward`."""
    vector: list[str] = [name for name in ("obs", "observation") if name in names]
    obs: dict[str, str] = {"state": vector[0]} if vector else {}
    obs |= {"image": "image"} if "image" in names else {}
    return Fields(
        layout="file", obs=obs, action="action", reward="reward" if "reward" in names else None,
        terminal="terminal" if "terminal" in names else None,
    )  # fmt: skip


def _below(group: str, names: set[str]) -> dict[str, str]:
    """Key -> name of what lies in a group; keys have no /."""
    found = sorted(name for name in names if name.startswith(f"{group}/"))
    return {name.removeprefix(f"{group}/").replace("/", "_"): name for name in found}


def named(arrays: Arrays, name: str) -> Any:
    """The array of that name; `StorageError` names those that are there."""
    if name not in arrays:
        known = ", ".join(sorted(arrays)[:12])
        raise StorageError(f"it has no {name!r}; it has: {known}. See data.options.fields.")
    return arrays[name]
