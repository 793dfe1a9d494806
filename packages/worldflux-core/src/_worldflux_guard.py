"""Refuses to run beside the unrelated distribution that is called `worldflux` on the registry.

Both own the import name `worldflux` and overwrite each other's files, so this check lives outside
that package: `worldflux/__init__.py` and the `plugin.py` of every official family import it first,
and it works even where `worldflux/__init__.py` is no longer ours. It must stay import-light.
"""

from __future__ import annotations

import os
import sys

MESSAGE = (
    "The distribution 'worldflux' at {where} is not WorldFlux: it is an unrelated project that "
    "owns the same import name, and its files and ours overwrite each other. Remove it and "
    "restore ours:\n"
    "    pip uninstall worldflux\n"
    "    pip install --force-reinstall --no-deps worldflux-core"
)


def foreign_distribution() -> str | None:
    """Path of the metadata of an installed distribution named exactly `worldflux`, if any."""
    for folder in dict.fromkeys(sys.path):
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            stem, suffix = os.path.splitext(name.lower())
            if suffix in (".dist-info", ".egg-info") and stem.split("-")[0] == "worldflux":
                return os.path.join(os.path.abspath(folder), name)
    return None


def refuse_foreign() -> None:
    """Raise `ImportError` with the way out where the foreign distribution is installed."""
    where = foreign_distribution()
    if where is not None:
        raise ImportError(MESSAGE.format(where=where))


refuse_foreign()
