"""Load and publish models and agents: a folder of weights, configuration and identity.

`saving.py` writes such a folder. Weights never bring code: a slot class named in a downloaded
folder is imported only if the caller trusts its module. What it asks for is built on the meta
device and compared with the weights it brings before any memory is taken for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, overload

from worldflux.config import Config
from worldflux.core.agent import Learner
from worldflux.core.model import WorldModel
from worldflux.errors import ConfigError, StorageError, UnknownIdError, WorldFluxError
from worldflux.factory import get_model_spec, load_class
from worldflux.runs import AGENT, Run
from worldflux.saved_folder import SavedFolder
from worldflux.slots import Part, built, read_slots
from worldflux.specs import TensorSpec
from worldflux.trust import Trust, names, require, slot_finding
from worldflux.weights import at_most, read_header, read_weights, require_numbers, require_same

Saved = WorldModel | Learner
SavedT = TypeVar("SavedT", bound=Saved)


@overload
def from_pretrained(
    source: str | Path,
    *,
    kind: Callable[..., SavedT],  # a class: as `type`, mypy refuses abstract ones
    revision: str | None = None,
    slots: Mapping[str, Any] | None = None,
    trust: Trust = (),
    **overrides: Any,
) -> SavedT: ...
@overload
def from_pretrained(
    source: str | Path,
    *,
    kind: None = None,
    revision: str | None = None,
    slots: Mapping[str, Any] | None = None,
    trust: Trust = (),
    **overrides: Any,
) -> Any: ...
def from_pretrained(
    source: str | Path,
    *,
    kind: Any = None,
    revision: str | None = None,
    slots: Mapping[str, Any] | None = None,
    trust: Trust = (),
    **overrides: Any,
) -> Any:
    """Load what `save_pretrained` wrote: a folder, a run (its best checkpoint) or a hub id.

    `kind` (`worldflux.WorldModel`, `worldflux.Agent`) tells a type checker what comes, and is
    checked: the world model of a saved agent is given for `WorldModel`, anything else is refused.
    `overrides` are configuration fields (dotted keys too), `slots` parts as for
    `create_world_model`; each is applied or refused. A class that the folder names is imported only
    if `trust` holds its module or a package around it, else it is a `TrustError`. A class that
    `slots` repeats keeps the saved options. Raises `StorageError` for damaged files, missing or
    unknown weights, or a contract other than the saved one.
    """
    folder = SavedFolder.open(_folder(source, revision))
    config_cls, owner = _classes(folder)
    parts = _with_saved(folder, read_slots(slots or {}), names(trust))
    config = _config(folder, config_cls).with_(**overrides)

    def build() -> Saved:
        saved: Saved = built(lambda: owner(config, folder.obs_spec, folder.action_spec), parts)
        return saved

    own_words = bool(overrides or slots)
    with at_most(len(read_header(folder.weights)), folder.path):
        planned = _built(build, folder, own_words)
    _require_fits(planned, folder)
    saved = _built(build, folder, own_words)
    saved.provenance = {"family": folder.identity["family"], "preset": folder.identity["preset"]}
    _load(saved, folder)
    return saved if kind is None else _of_kind(saved, kind, folder.path)


def _of_kind(saved: Saved, kind: type[Any], path: Path) -> Any:
    if isinstance(saved, Learner) and issubclass(kind, WorldModel):
        provenance, saved = saved.provenance, saved.world_model
        saved.provenance = provenance  # so that it can be saved by itself
    if not isinstance(saved, kind):
        raise StorageError(
            f"{path} holds a {type(saved).__name__}, which is no {kind.__name__}. Leave out `kind` "
            "to get what is there."
        )
    return saved


def load_into(saved: Saved, folder: str | Path) -> None:
    """Load the weights of `folder` into `saved`; names, shapes, types and contract must agree."""
    found = SavedFolder.open(folder)
    _require_fits(saved, found)
    _load(saved, found)


def push_to_hub(saved: Saved, repo_id: str, *, private: bool = False, **options: Any) -> str:
    """Publish `saved` as repository `repo_id`; returns its address. Needs the extra `hub`."""
    hub = _hub()
    api = hub.HfApi(endpoint=options.pop("endpoint", None), token=options.pop("token", None))
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = saved.save_pretrained(Path(temporary) / "model")
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **options))


def _classes(folder: SavedFolder) -> tuple[type[Config], type[Saved]]:
    identity = folder.identity
    if identity["family"] is None:
        raise StorageError(
            f"{folder.path} holds a {identity['class']}, which belongs to no model family. Build "
            "the model yourself and call worldflux.hub.load_into(model, folder)."
        )
    try:
        spec = get_model_spec(identity["family"])
    except (ConfigError, UnknownIdError) as error:
        raise StorageError(f"{folder.path} cannot be loaded: {error}") from error
    path = spec.model if identity["kind"] == "world_model" else spec.agent
    if path is None:
        raise StorageError(f"{folder.path} holds an agent, but {spec.family!r} defines none.")
    return spec.config, load_class(path)


def _config(folder: SavedFolder, config_cls: type[Config]) -> Config:
    try:
        return config_cls.from_json(folder.config_text())
    except ConfigError as error:
        raise StorageError(
            f"{folder.path} holds no configuration of {folder.identity['family']!r}: "
            f"{error!s:.400} Get an undamaged copy."
        ) from error


def _with_saved(
    folder: SavedFolder, parts: dict[str, Part], trust: tuple[str, ...]
) -> dict[str, Part]:
    """The caller's parts and those that the folder names, with the options they were saved with."""
    saved = folder.identity["slots"]
    theirs = {slot: part for slot, part in saved.items() if slot not in parts}
    found = [slot_finding(slot, part["class"]) for slot, part in theirs.items()]
    require(found, trust, str(folder.path))
    for slot, part in parts.items():
        before = saved.get(slot, {})
        if part.reference == before.get("class") and not part.options and not part.finished:
            options = {key: value for key, value in before.items() if key != "class"}
            parts[slot] = replace(part, options=options)
    return {**parts, **read_slots(theirs)}


def _built(build: Callable[[], Saved], folder: SavedFolder, own_words: bool) -> Saved:
    """The model the folder asks for; what its values break in a family is the folder's fault."""
    try:
        return build()
    except StorageError:
        raise
    except Exception as error:  # a family's code ran on values nobody has checked
        if own_words and isinstance(error, WorldFluxError):
            raise
        raise StorageError(
            f"{folder.path} asks for a {folder.identity['class']} that cannot be built: "
            f"{type(error).__name__}: {error!s:.400} Get an undamaged copy, or check the overrides."
        ) from error


def _require_fits(saved: Saved, folder: SavedFolder) -> None:
    """Compare contract and every weight's name, shape and type; nothing is read or allocated."""
    ours = _world_model(saved).contract_fingerprint()
    if folder.identity["fingerprint"] != ours:
        raise StorageError(
            f"{folder.path} was saved with contract {folder.identity['fingerprint']:.40}, this "
            f"{type(saved).__name__} has {ours}: its spaces, state or capabilities differ. "
            "Load it without the overrides that change them."
        )
    require_same(saved.state_dict(), read_header(folder.weights), folder.weights)


def _load(saved: Saved, folder: SavedFolder) -> None:
    weights = read_weights(folder.weights)
    require_numbers(saved, weights, str(folder.weights))
    saved.load_state_dict(weights)


def _world_model(saved: Saved) -> WorldModel:
    return saved if isinstance(saved, WorldModel) else saved.world_model


def saved_specs(
    source: str | Path, revision: str | None = None
) -> tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]:
    """The observations and actions of a saved folder, a run or a hub id; no weights are read."""
    folder = SavedFolder.open(_folder(source, revision))
    return folder.obs_spec, folder.action_spec


def _folder(source: str | Path, revision: str | None) -> Path:
    local = Path(source)
    if local.is_dir():
        run = Run(local)
        return run.best_checkpoint() / AGENT if run.config_path.is_file() else local
    if isinstance(source, Path) or source.count("/") != 1 or source.startswith((".", "~", "/")):
        raise StorageError(f"There is no folder {source}. Give a saved folder, a run or a hub id.")
    return Path(_hub().snapshot_download(source, revision=revision))


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            "Publishing and downloading models needs huggingface_hub: "
            'pip install "worldflux-core[hub]"'
        ) from error
    return huggingface_hub
