"""The five sets of TinyWorlds: recorded games as one HDF5 file each, from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from worldflux.atomic import make_folder
from worldflux.errors import ConfigError, StorageError, did_you_mean

REPOSITORY = "AlmondGod/tinyworlds"
FILES = {
    "pico_doom": "picodoom_frames.h5",
    "pong": "pong_frames.h5",
    "zelda": "zelda_frames.h5",
    "pole_position": "pole_position_frames.h5",
    "sonic": "sonic_frames.h5",
}
Fetch = Callable[..., Any]


def fetch_tinyworlds(name: str, folder: str | Path, fetch: Fetch | None = None) -> Path:
    """The file of the game `name`, in a folder of that name below `folder`.

    It is downloaded unless it is there; `fetch` is called as `huggingface_hub.hf_hub_download`.
    """
    key = name.lower()
    if key not in FILES:
        raise ConfigError(
            f"TinyWorlds has no game {name!r}.{did_you_mean(key, FILES)} Games: {', '.join(FILES)}."
        )
    own = Path(folder) / key
    if not (own / FILES[key]).is_file():
        make_folder(own)
        _download(FILES[key], own, fetch)
    return own / FILES[key]


def _download(file: str, folder: Path, fetch: Fetch | None) -> None:
    own = _hub() if fetch is None else fetch
    try:
        own(REPOSITORY, file, repo_type="dataset", local_dir=folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise StorageError(
            f"{file} could not be downloaded from the dataset {REPOSITORY}: {error}. Put the file "
            f"into {folder} by other means."
        ) from error


def _hub() -> Fetch:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise StorageError(
            "Downloading needs huggingface_hub: pip install 'worldflux-train[data]'"
        ) from error
    found: Fetch = hf_hub_download
    return found
