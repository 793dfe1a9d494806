"""Whether a run's `config.yaml` is still the configuration that its checkpoints were made with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from worldflux.errors import ConfigError
from worldflux.runs import Run
from worldflux_train.config import RunConfig, untouched
from worldflux_train.nested import flat

FREE = frozenset({"train.steps", "train.device"})
"""Keys that options of the commands change too: how long and where, not what is learnt."""
_MOST_SAID = 5


def require_unchanged(run: Run, config: RunConfig) -> None:
    """Raise `ConfigError` naming each key of `config.yaml` that differs from the checkpoints'.

    A key that the checkpoints do not have yet counts as its default: an older WorldFlux trained so.
    """
    saved = run.saved_config()
    if saved is None:
        return
    differing = list(differences(saved, plain(config), defaults(config.id)))
    if differing:
        more = len(differing) - _MOST_SAID
        rest = f"\n  and {more} more" if more > 0 else ""
        raise ConfigError(
            f"{run.config_path} is not the configuration that {run.path} was trained with:\n  "
            + "\n  ".join(differing[:_MOST_SAID])
            + f"{rest}\nUndo the change, or go on with it: --changed-config."
        )


def plain(config: RunConfig) -> dict[str, Any]:
    """A run's configuration as it comes back from JSON."""
    found: dict[str, Any] = json.loads(json.dumps(config.to_dict(), default=str))
    return found


def defaults(model_id: str) -> dict[str, Any]:
    """Every key of a model's runs that nobody has set, as it comes back from JSON."""
    found: dict[str, Any] = json.loads(json.dumps(untouched(model_id), default=str))
    return found


def differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[str]:
    """`key: before, now` for each dotted key that differs; the keys in `FREE` may.

    A key of `now` that `saved` lacks is compared with `defaults`.
    """
    before, after = dict(flat(saved)), dict(flat(now))
    before |= {key: old for key, old in flat(defaults) if key in after and key not in before}
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, "nothing"), after.get(key, "nothing")
        if key not in FREE and old != new:
            yield f"{key}: {old!r:.80} in the checkpoint, {new!r:.80} now"
