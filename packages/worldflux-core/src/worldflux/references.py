"""Objects by `"module:Name"`."""

from __future__ import annotations

import pkgutil
import traceback
from typing import Any

from worldflux.errors import PluginLoadError


def load_class(reference: Any) -> Any:
    """The object behind a spec's `"module:Class"`; `PluginLoadError` if its code is broken.

    A spec of this process alone (`worldflux.register`) may hold the object itself.
    """
    if not isinstance(reference, str):
        return reference
    try:
        return pkgutil.resolve_name(reference)
    except Exception as error:
        raise PluginLoadError(
            f"{reference} cannot be loaded: {type(error).__name__}: {error}\n"
            + "".join(traceback.format_exception(error)).rstrip()
        ) from error
