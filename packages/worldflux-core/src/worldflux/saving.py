"""Write a model or agent to a folder: weights, configuration and identity, whole or not at all.

`model.safetensors` holds the weights, `config.json` the configuration, `worldflux.json` who wrote
it (family, preset, versions, spaces, contract fingerprint, replaced slots), `README.md` the model
card and `manifest.json` the digests of all of them. `hub.py` reads them.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from worldflux import atomic
from worldflux.errors import StorageError
from worldflux.model_card import model_card
from worldflux.weights import require_numbers

if TYPE_CHECKING:
    from worldflux.core.agent import Learner
    from worldflux.core.model import WorldModel

FORMAT = 1
WEIGHTS, CONFIG, IDENTITY, CARD = "model.safetensors", "config.json", "worldflux.json", "README.md"


def save_pretrained(saved: WorldModel | Learner, path: str | Path) -> Path:
    """Write `saved` to folder `path`, whole or not at all; an older save there is replaced.

    `StorageError` for weights that are not numbers and for what cannot be written, `ConfigError`
    for a slot whose class cannot be imported again.
    """
    target = Path(path)
    _refuse_foreign(target)
    identity = describe(saved)
    weights = _tensors(saved)
    require_numbers(saved, weights, "Nothing was saved")
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with atomic.new_folder(fresh) as draft:
        _write_weights(weights, draft / WEIGHTS)
        (draft / CONFIG).write_text(saved.config.to_json(), "utf-8")
        atomic.write_json(draft / IDENTITY, identity)
        (draft / CARD).write_text(model_card(identity, saved), "utf-8")
        atomic.seal(draft, format=FORMAT)
    _put_in_place(fresh, target)
    return target


def describe(saved: WorldModel | Learner) -> dict[str, Any]:
    """The content of `worldflux.json`."""
    model = cast("WorldModel", getattr(saved, "world_model", saved))
    return {
        "format": FORMAT,
        "kind": "world_model" if model is saved else "agent",
        "family": saved.provenance.get("family"),
        "preset": saved.provenance.get("preset"),
        "class": f"{type(saved).__module__}:{type(saved).__qualname__}",
        "worldflux": importlib.metadata.version("worldflux-core"),
        "torch": torch.__version__,
        "fingerprint": model.contract_fingerprint(),
        "parameters": saved.parameter_count(),
        "obs_spec": {key: asdict(spec) for key, spec in saved.obs_spec.items()},
        "action_spec": {key: asdict(spec) for key, spec in saved.action_spec.items()},
        "slots": model.slot_parts(),
    }


def _tensors(saved: WorldModel | Learner) -> dict[str, Tensor]:
    """The state dict on the CPU, a learner's `published` weights in place of those in training.

    Tensors that share storage are written separately.
    """
    published = {} if (learns := getattr(saved, "published", None)) is None else learns()
    seen: set[int] = set()
    result = {}
    for name, tensor in (saved.state_dict() | published).items():
        value = tensor.detach().cpu().contiguous()
        result[name] = value.clone() if value.untyped_storage().data_ptr() in seen else value
        seen.add(value.untyped_storage().data_ptr())
    return result


def _write_weights(weights: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(weights, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise StorageError(
            f"{path.name} could not be written: {error}. Nothing was replaced; free space or fix "
            "the permissions and try again."
        ) from error


def _put_in_place(fresh: Path, target: Path) -> None:
    """Rename `fresh` to `target`; what was there before goes only when that has been done."""
    old = target.with_name(f".{target.name}.old")
    try:
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.replace(old)
        fresh.replace(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise atomic.not_written(target, error) from error


def _refuse_foreign(target: Path) -> None:
    if target.exists() and not (target / IDENTITY).is_file():
        empty = target.is_dir() and not any(target.iterdir())
        if not empty:
            raise StorageError(
                f"{target} exists and was not written by save_pretrained: nothing was replaced. "
                "Choose another folder."
            )
