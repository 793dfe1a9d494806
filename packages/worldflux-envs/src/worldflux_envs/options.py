"""The options every backend understands, as text for `EnvSpec.options`; imports nothing."""

from __future__ import annotations

from typing import Any

CONTRACT: dict[str, str] = {
    "obs": "'state' (what the environment gives), 'pixels' (images only) or 'both'",
    "size": "image size, one number or (rows, columns); rendered images default to 64",
    "resize": "filter of the image size: 'area' or 'bilinear'",
    "gray": "images as grey (1, Y, X)",
    "frame_stack": "number of images stacked along the channels",
    "action_repeat": "number of steps each action is repeated for",
    "max_episode_steps": "truncate episodes after so many of the agent's steps",
    "rename": "other names of observations, {name: new name}",
    "seed": "seed of the first reset that is given none",
}
VECTOR: dict[str, str] = {
    "mode": "'auto' (by measured step cost), 'sync', 'async' or, where there is one, 'native'",
    "workers": "async: number of worker processes (default: one per core)",
    "timeout": "async: seconds after which a worker counts as hung",
}


def reads_only(task: str) -> None:
    """`EnvSpec.runs_code` of a backend whose ids are files or folders that are only read."""


def split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(those of the contract, the rest)."""
    contract = {key: value for key, value in options.items() if key in CONTRACT}
    return contract, {key: value for key, value in options.items() if key not in CONTRACT}


def known(backend: str, options: dict[str, Any]) -> None:
    """Refuse options that neither `backend` nor the contract takes."""
    from worldflux.errors import EnvError, did_you_mean

    for name in options:
        if name not in CONTRACT:
            raise EnvError(f"{backend} takes no option {name!r}.{did_you_mean(name, CONTRACT)}")
