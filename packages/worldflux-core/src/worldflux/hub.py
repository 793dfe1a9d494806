"""Save, load and publish models and agents: a folder of weights, configuration and identity.

`model.safetensors` holds the weights, `config.json` the configuration, `worldflux.json` who wrote
it (family, preset, versions, spaces, contract fingerprint, replaced slots), `README.md` the model
card and `manifest.json` the digests of all of them. Weights never bring code: a slot class named
in a downloaded folder is used only if the caller names it too.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldflux import atomic
from worldflux.config import Config
from worldflux.core.agent import Learner
from worldflux.core.interfaces import SLOTS
from worldflux.core.model import WorldModel
from worldflux.errors import ConfigError, StorageError
from worldflux.model_card import model_card
from worldflux.specs import TensorSpec

FORMAT = 1
WEIGHTS, CONFIG, IDENTITY, CARD = "model.safetensors", "config.json", "worldflux.json", "README.md"
Saved = WorldModel | Learner


def save_pretrained(saved: Saved, path: str | Path) -> Path:
    """Write `saved` to folder `path`, whole or not at all; an older save there is replaced."""
    target = Path(path)
    _refuse_foreign(target)
    identity = describe(saved)
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with atomic.new_folder(fresh) as draft:
        save_file(_tensors(saved), draft / WEIGHTS, metadata={"format": "pt"})
        (draft / CONFIG).write_text(saved.config.to_json(), "utf-8")
        atomic.write_json(draft / IDENTITY, identity)
        (draft / CARD).write_text(model_card(identity, saved), "utf-8")
        atomic.seal(draft, format=FORMAT)
    if target.exists():
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        target.replace(old)
        fresh.replace(target)
        shutil.rmtree(old)
    else:
        fresh.replace(target)
    return target


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    **overrides: Any,
) -> Saved:
    """Load what `save_pretrained` wrote, from a folder or a hub repository id.

    `overrides` are configuration fields (dotted keys too) and slots (`"package.module:Class"` or
    a module); each is applied or refused. Raises `StorageError` for damaged files, missing or
    unknown weights, or a contract other than the saved one.
    """
    folder = _folder(source, revision)
    identity = read_identity(folder)
    _check_seal(folder)  # before anything else of the folder is parsed
    config_cls, owner = _classes(identity, folder)
    slots = {name: overrides.pop(name) for name in SLOTS if name in overrides}
    config = config_cls.from_json((folder / CONFIG).read_text("utf-8")).with_(**overrides)
    saved = owner(config, _specs(identity["obs_spec"]), _specs(identity["action_spec"]))
    _apply_slots(saved, identity, slots, folder)
    saved.provenance = {"family": identity["family"], "preset": identity["preset"]}
    load_into(saved, folder)
    return saved


def load_into(saved: Saved, folder: str | Path) -> None:
    """Load the weights of `folder` into `saved`; every name, shape and the contract must agree."""
    folder = Path(folder)
    _check_seal(folder)
    identity = read_identity(folder)
    ours = _world_model(saved).contract_fingerprint()
    if identity["fingerprint"] != ours:
        raise StorageError(
            f"{folder} was saved with contract {identity['fingerprint']}, this "
            f"{type(saved).__name__} has {ours}: its spaces, state or capabilities differ. "
            "Load it without the overrides that change them."
        )
    try:
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{folder / WEIGHTS} cannot be read: {error}.") from error
    _require_same_weights(saved.state_dict(), weights, folder)
    saved.load_state_dict(weights)


def push_to_hub(saved: Saved, repo_id: str, *, private: bool = False, **options: Any) -> str:
    """Publish `saved` as repository `repo_id`; returns its address. Needs the extra `hub`."""
    import tempfile

    hub = _hub()
    api = hub.HfApi(endpoint=options.pop("endpoint", None), token=options.pop("token", None))
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(saved, Path(temporary) / "model")
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **options))


def describe(saved: Saved) -> dict[str, Any]:
    """The content of `worldflux.json`."""
    model = _world_model(saved)
    for name, reference in model.slot_overrides.items():
        if "<locals>" in reference or reference.startswith("__main__"):
            raise ConfigError(
                f"Slot {name!r} holds {reference}, which cannot be imported again. Define the "
                "class at the top of an installed module before saving."
            )
    return {
        "format": FORMAT,
        "kind": "world_model" if isinstance(saved, WorldModel) else "agent",
        "family": saved.provenance.get("family"),
        "preset": saved.provenance.get("preset"),
        "class": f"{type(saved).__module__}:{type(saved).__qualname__}",
        "worldflux": importlib.metadata.version("worldflux-core"),
        "torch": torch.__version__,
        "fingerprint": model.contract_fingerprint(),
        "parameters": saved.parameter_count(),
        "obs_spec": {key: asdict(spec) for key, spec in saved.obs_spec.items()},
        "action_spec": {key: asdict(spec) for key, spec in saved.action_spec.items()},
        "slots": dict(model.slot_overrides),
    }


def read_identity(folder: Path) -> dict[str, Any]:
    """The content of a saved folder's `worldflux.json`."""
    if not (folder / IDENTITY).is_file():
        raise StorageError(
            f"{folder} holds no {IDENTITY}: it was not written by save_pretrained. "
            "Give the folder or hub id of a saved model."
        )
    identity = atomic.read_json(folder / IDENTITY)
    if identity.get("format") != FORMAT:
        raise StorageError(
            f"{folder / IDENTITY} has format {identity.get('format')!r}; this worldflux reads "
            f"{FORMAT}. Upgrade worldflux-core."
        )
    return identity


def _check_seal(folder: Path) -> None:
    """Every file that is read must be listed, regular (no pipe or device) and unchanged."""
    listed = atomic.check_seal(folder)["files"]
    lacking = [name for name in (WEIGHTS, CONFIG, IDENTITY) if name not in listed]
    if lacking:
        raise StorageError(
            f"{folder / atomic.MANIFEST} does not list {lacking[0]}. Save the model again, or get "
            "an undamaged copy."
        )


def _world_model(saved: Saved) -> WorldModel:
    return saved if isinstance(saved, WorldModel) else saved.world_model


def _tensors(saved: Saved) -> dict[str, Tensor]:
    """The state dict on the CPU; tensors that share storage are written separately."""
    seen: set[int] = set()
    result = {}
    for name, tensor in saved.state_dict().items():
        value = tensor.detach().cpu().contiguous()
        result[name] = value.clone() if value.untyped_storage().data_ptr() in seen else value
        seen.add(value.untyped_storage().data_ptr())
    return result


def _refuse_foreign(target: Path) -> None:
    if target.exists() and not (target / IDENTITY).is_file():
        empty = target.is_dir() and not any(target.iterdir())
        if not empty:
            raise StorageError(
                f"{target} exists and was not written by save_pretrained: nothing was replaced. "
                "Choose another folder."
            )


def _specs(plain: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorSpec]:
    def frozen(value: Any) -> Any:
        return tuple(frozen(item) for item in value) if isinstance(value, list) else value

    return {
        key: TensorSpec(**{name: frozen(value) for name, value in spec.items()})
        for key, spec in plain.items()
    }


def _classes(identity: Mapping[str, Any], folder: Path) -> tuple[type[Config], type[Saved]]:
    from worldflux.factory import get_model_spec, load_class

    if identity["family"] is None:
        raise StorageError(
            f"{folder} holds a {identity['class']}, which belongs to no model family. Build the "
            "model yourself and call worldflux.hub.load_into(model, folder)."
        )
    spec = get_model_spec(identity["family"])
    path = spec.model if identity["kind"] == "world_model" else spec.agent
    if path is None:
        raise StorageError(f"{folder} holds an agent, but {spec.family!r} defines none.")
    return spec.config, load_class(path)


def _apply_slots(
    saved: Saved, identity: Mapping[str, Any], given: Mapping[str, Any], folder: Path
) -> None:
    from worldflux.factory import apply_slots

    wanted: Mapping[str, str] = identity["slots"]
    for name, reference in wanted.items():
        if name not in given:
            raise StorageError(
                f"{folder} was saved with {name} = {reference}. Weights bring no code: repeat it, "
                f"from_pretrained(..., {name}={reference!r}), if you trust that class."
            )
    apply_slots(saved, given)


def _require_same_weights(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], folder: Path
) -> None:
    missing, unknown = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if missing or unknown:
        raise StorageError(
            f"{folder / WEIGHTS} does not fit: missing {missing[:3] or 'none'}, unknown "
            f"{unknown[:3] or 'none'} ({len(missing)} and {len(unknown)} in all). Was a slot "
            "replaced, or another configuration used?"
        )
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            raise StorageError(
                f"{folder / WEIGHTS}: {name} has shape {tuple(theirs[name].shape)}, this model "
                f"needs {tuple(tensor.shape)}. Load it without the override that changes it."
            )


def _folder(source: str | Path, revision: str | None) -> Path:
    local = Path(source)
    if local.is_dir():
        return local
    if isinstance(source, Path) or source.count("/") != 1 or source.startswith((".", "~", "/")):
        raise StorageError(f"There is no folder {source}. Give a saved folder or a hub id.")
    hub = _hub()
    return Path(hub.snapshot_download(source, revision=revision))


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            "Publishing and downloading models needs huggingface_hub: "
            'pip install "worldflux-core[hub]"'
        ) from error
    return huggingface_hub
