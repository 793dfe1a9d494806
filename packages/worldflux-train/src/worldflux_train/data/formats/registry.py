"""The formats that are there: ours, and those of plugins; the one that fits is found by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigError, PluginLoadError, StorageError, did_you_mean
from worldflux.factory import load_class
from worldflux.plugins import plugins
from worldflux_train.data.formats.base import DataFormat

BUILT_IN = {
    "episodes": "worldflux_train.data.formats.store:EpisodeStore",
    "cifar": "worldflux_train.data.formats.cifar:Cifar",
    "hdf5": "worldflux_train.data.formats.hdf5:Hdf5",
    "npz": "worldflux_train.data.formats.npz:Npz",
    "lerobot": "worldflux_train.data.formats.lerobot:LeRobot",
    "video": "worldflux_train.data.formats.video:VideoSet",
    "frames": "worldflux_train.data.formats.frames:FrameFolders",
    "images": "worldflux_train.data.formats.images:ImageSet",
    "npy": "worldflux_train.data.formats.npz:Npy",
}
HOOK = "worldflux_dataset_formats"


def formats() -> dict[str, str]:
    """Every format by name, as "module:Class"; a plugin's own may not take the name of another."""
    found = dict(BUILT_IN)
    manager = plugins()
    for plugin in manager.working("worldflux.plugins"):
        for name, where in manager.ask(plugin, HOOK):
            if name in found:
                raise PluginLoadError(
                    f"{plugin} brings a data format {name!r}, which is there already "
                    f"({found[name]}). It needs another name."
                )
            found[name] = where
    return found


def format_class(name: str) -> type[DataFormat]:
    """The class of the format called `name`."""
    known = formats()
    if name not in known:
        raise ConfigError(
            f"There is no data format {name!r}.{did_you_mean(name, known)} "
            f"Formats: {', '.join(known)}."
        )
    found = load_class(known[name])
    if not (isinstance(found, type) and issubclass(found, DataFormat)):
        raise PluginLoadError(
            f"The data format {name!r} is {known[name]}, which is no subclass of "
            "worldflux_train.data.formats.DataFormat."
        )
    return found


def find_format(path: Path) -> str:
    """The name of the format that `path` is in, by what is in it."""
    if not path.exists():
        raise StorageError(f"There is no {path}.")
    found = _found(path)
    if found is not None:
        return found
    raise StorageError(
        f"{path} is in no known format (looked for: {', '.join(formats())}).{_inside(path)} Give "
        "data.format where the data is there but is not recognised."
    )


def _found(path: Path) -> str | None:
    return next((name for name in formats() if format_class(name).finds(path)), None)


def _inside(path: Path) -> str:
    """What lies in a folder, for those who gave the one above."""
    if not path.is_dir():
        return ""
    names = sorted(entry.name for entry in path.iterdir())
    folders = [name for name in names if (path / name).is_dir()]
    known = [f"{name} ({kind})" for name in folders[:20] if (kind := _found(path / name))]
    if known:
        return f" Below it: {', '.join(known)}."
    return f" It holds {', '.join(names[:6]) or 'nothing'}{', ...' if len(names) > 6 else ''}."


def open_recorded(
    path: str | Path, name: str | None = None, options: Mapping[str, Any] | None = None
) -> DataFormat:
    """The data in `path`; `name` is its format (None: found), `options` are `data.options.*`."""
    path = Path(path)
    chosen = find_format(path) if name is None else name
    kind = format_class(chosen)
    if not path.exists():
        raise StorageError(f"There is no {path}.")
    try:
        settings = kind.Options(**(options or {}))
    except ConfigError as error:
        said = str(error).replace(kind.Options.__name__, f"data.options ({chosen})")
        raise ConfigError(said) from None
    return kind(path, settings)
