"""A checkpoint: everything the rest of the run depends on, as safetensors and JSON."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from worldflux.atomic import read_json, write_file, write_json
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.errors import StorageError
from worldflux.hub import load_into
from worldflux.runs import Run
from worldflux_train.collector import Collector
from worldflux_train.learner import Learner
from worldflux_train.replay.replay import Replay
from worldflux_train.replay.snapshot import prune
from worldflux_train.schedule import Schedule
from worldflux_train.stepping import Now

logger = logging.getLogger(__name__)

AGENT, OPTIMIZERS, LOOP, REPLAY = "agent", "optimizers.safetensors", "loop.safetensors", "replay"
STATE = "state.json"


@dataclass
class Progress:
    """Counters of the loop."""

    step: int = 0
    episodes: int = 0
    seconds: float = 0.0
    evaluation_due: bool = False
    """An evaluation was stopped by a signal: the resumed run begins with it."""


@dataclass
class Parts:
    """Everything a checkpoint holds."""

    progress: Progress
    schedule: Schedule
    collector: Collector
    learner: Learner
    replay: Replay


def save_checkpoint(run: Run, parts: Parts, keep_last: int, score: float | None) -> Path:
    """Write the checkpoint of this moment, then drop those no longer kept.

    `StorageError` says what could not be written; older checkpoints are then as they were.
    """
    step = parts.progress.step
    try:
        with run.new_checkpoint(step, score=score) as folder:
            parts.learner.agent.save_pretrained(folder / AGENT)
            _write(folder / OPTIMIZERS, parts.learner.agent.training_state())
            _write(folder / LOOP, _tensors(parts))
            write_json(folder / STATE, _state(parts))
            parts.replay.save(folder / REPLAY, run.replay_path)
    except (StorageError, SafetensorError, OSError) as error:
        steps = run.steps()
        kept = f"The checkpoint of step {steps[-1]} is intact" if steps else "There is none before"
        raise StorageError(
            f"The checkpoint of step {step} could not be written: {error} {kept}; free space, then "
            f"continue with: worldflux train --resume {run.path}"
        ) from error
    _drop_old(run, keep_last)
    return run.checkpoint_path(step)


def load_newest(run: Run, parts: Parts) -> Path | None:
    """Restore the newest checkpoint that is whole, None if there is none.

    Damaged ones are logged, and set aside so that the run can write that step again.
    """
    _sweep(run)
    found = None
    for folder in run.intact_checkpoints():
        try:
            load_checkpoint(folder, run, parts)
        except StorageError as error:
            logger.warning("checkpoint %s is not used: %s", folder.name, error)
            continue
        found = folder
        break
    for step in run.steps():
        folder = run.checkpoint_path(step)
        if found is None or folder.name > found.name:
            aside = folder.with_name(f"{folder.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            folder.replace(aside)
            logger.warning("the damaged checkpoint was renamed to %s", aside)
    return found


def load_checkpoint(folder: Path, run: Run, parts: Parts) -> None:
    """Put every part into the state saved in `folder`."""
    agent = parts.learner.agent
    state = read_json(folder / STATE)
    tensors = _read(folder / LOOP)
    parts.replay.load(folder / REPLAY, run.replay_path)
    load_into(agent, folder / AGENT)
    agent.load_training_state(_read(folder / OPTIMIZERS))
    _restore_loop(state, parts)
    _restore_learner(state, tensors, parts.learner)
    _restore_collector(state, tensors, parts.collector)


def best_step(run: Run) -> int | None:
    """Step of the kept checkpoint with the best evaluation."""
    scores = {step: run.manifest(step).get("score") for step in run.steps()}
    known = {step: score for step, score in scores.items() if score is not None}
    return max(known, key=lambda step: (known[step], step)) if known else None


def _tensors(parts: Parts) -> dict[str, Tensor]:
    now, collector, learner = parts.collector.stepper.now, parts.collector, parts.learner
    arrays = {f"now/obs/{key}": value for key, value in now.obs.items()}
    arrays |= {f"now/{key}": getattr(now, key) for key in _FLAGS}
    stepper = collector.stepper
    arrays |= {"now/returns": stepper.returns, "now/lengths": stepper.lengths}
    found = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in arrays.items()}
    if collector.state is not None:
        found |= {f"acting/{key}": value for key, value in collector.state.tensors.items()}
    found |= {f"meters/{key}": value for key, value in learner.meters.sums.items()}
    found["generator/collector"] = _generator(collector.rand).get_state()
    found["generator/learner"] = _generator(learner.rand).get_state()
    return found


def _generator(rand: Rand) -> torch.Generator:
    assert rand.generator is not None, "a run draws from generators of its own"
    return rand.generator


_FLAGS = ("reward", "is_first", "is_last", "is_terminal")


def _state(parts: Parts) -> dict[str, Any]:
    return {
        "progress": vars(parts.progress),
        "begun": parts.schedule.begun,
        "done": parts.schedule.done,
        "meters": parts.learner.meters.counts,
        "acting": None if parts.collector.state is None else parts.collector.state.meta,
        "environments": parts.collector.stepper.get_state(),
    }


def _restore_loop(state: Mapping[str, Any], parts: Parts) -> None:
    for key, value in state["progress"].items():
        setattr(parts.progress, key, value)
    parts.schedule.begun = dict(state["begun"])
    parts.schedule.done = dict(state["done"])


def _restore_learner(
    state: Mapping[str, Any], tensors: Mapping[str, Tensor], learner: Learner
) -> None:
    sums = _under("meters/", tensors)
    learner.meters.sums = {key: sums[key].to(learner.device) for key in state["meters"]}
    learner.meters.counts = dict(state["meters"])
    _generator(learner.rand).set_state(tensors["generator/learner"])


def _restore_collector(
    state: Mapping[str, Any], tensors: Mapping[str, Tensor], collector: Collector
) -> None:
    if state["acting"] is not None:
        acting = _under("acting/", tensors)
        moved = {key: value.to(collector.device) for key, value in acting.items()}
        collector.state = State(moved, dict(state["acting"]))
    _generator(collector.rand).set_state(tensors["generator/collector"])
    stepper = collector.stepper
    stepper.returns = tensors["now/returns"].numpy().copy()
    stepper.lengths = tensors["now/lengths"].numpy().copy()
    obs = {key: value.numpy() for key, value in _under("now/obs/", tensors).items()}
    now = Now(obs, *(tensors[f"now/{key}"].numpy() for key in _FLAGS))
    stepper.set_state(state["environments"], now)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    own = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    write_file(path, save(own))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path} cannot be read: {error}.") from error


def _drop_old(run: Run, keep_last: int) -> None:
    keep = {*run.steps()[-keep_last:], best_step(run)}
    for step in run.steps():
        if step not in keep:
            folder = run.checkpoint_path(step)
            gone = folder.with_name(f".{folder.name}.gone.tmp")
            folder.replace(gone)  # at once, so that no half-deleted checkpoint is ever found
            shutil.rmtree(gone, ignore_errors=True)
    prune(run.replay_path, [run.checkpoint_path(step) / REPLAY for step in run.steps()])


def _sweep(run: Run) -> None:
    """Remove what a killed process left half-written."""
    for folder in run.checkpoints_path.glob(".*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)
    for file in run.path.glob(".*.tmp"):
        file.unlink(missing_ok=True)
