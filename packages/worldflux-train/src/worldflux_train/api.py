"""Training from Python: `train(resolve("dreamerv3:size1m", "gym/CartPole-v1"), "runs/one")`."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from worldflux import distributed
from worldflux.atomic import write_file
from worldflux.core.agent import Agent, Learner
from worldflux.core.evaluation import Evaluation as OnData
from worldflux.core.rand import Rand
from worldflux.episodes import Episode
from worldflux.errors import ConfigError, StorageError
from worldflux.factory import get_model_spec
from worldflux.hub import load_into
from worldflux.runs import AGENT, Run
from worldflux.slots import plain_slots
from worldflux.trust import Trust
from worldflux_train.assembly import acting, choose_device, make_agent, make_evaluation_envs
from worldflux_train.changed_config import require_unchanged
from worldflux_train.clock import Clock
from worldflux_train.config import RunConfig, resolve
from worldflux_train.data import (
    evaluated_on_held_out,
    held_out_episodes,
    open_data,
    require_held_out,
)
from worldflux_train.evaluation import Evaluation, evaluate
from worldflux_train.evaluation_pictures import save_stages
from worldflux_train.imagine import Imagination, imagine
from worldflux_train.inputs import open_inputs
from worldflux_train.interrupt import Interrupt
from worldflux_train.ranks import joined
from worldflux_train.recorded_evaluation import recorded_evaluation
from worldflux_train.recording import record_episodes
from worldflux_train.run_log import logged
from worldflux_train.seeding import derived
from worldflux_train.sinks.base import JsonlSink, Sink
from worldflux_train.sinks.console import ConsoleSink
from worldflux_train.trainer import Outcome, Trainer
from worldflux_train.video import FPS, write_video

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """Where a run lies, how it ended and how far it got."""

    run: Run
    outcome: Outcome
    step: int


def train(
    config: RunConfig,
    out: str | Path,
    *,
    slots: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Result:
    """Train in the new folder `out`; `console` shows progress.

    `slots` are parts of yours in place of the configuration's: a class, `"module:Class"`, or
    `{"class": ..., **options}`, by slot.
    """
    if slots:
        config = replace(config, slots={**config.slots, **plain_slots(slots)})
    with joined():
        run = _new_run(out)
        _write_config(config, run)
        with logged(run, console, _packages(config)):
            try:
                trainer = Trainer(config, run)
                config = trainer.config  # completed by what the run's data or environment says
                _write_config(config, run)
                sinks = make_sinks(config, run, console, trainer.clock)
            except BaseException:
                if distributed.rank() == 0:
                    shutil.rmtree(run.path)  # nothing has run: a second try may use the folder
                raise
            return _run(trainer, sinks)


def resume(
    path: str | Path,
    *,
    steps: int | None = None,
    device: str | None = None,
    trust: Trust = (),
    changed: bool = False,
    console: Console | None = None,
) -> Result:
    """Continue the run in `path` from its newest intact checkpoint, to `steps` if given.

    `device` replaces the run's own; `trust` names the modules that its configuration may name;
    `changed` goes on with a `config.yaml` that is not its checkpoints'.
    """
    run = Run.open(path)
    config = run_config(run, device=device, steps=steps, trust=trust, changed=changed)
    with joined(), logged(run, console, _packages(config)):
        trainer = _restored(config, run)
        _write_config(config, run)
        return _run(trainer, make_sinks(config, run, console, trainer.clock))


def _new_run(out: str | Path) -> Run:
    """The run's folder, made by rank 0 for all ranks."""
    if distributed.rank() == 0:
        Run.create(out)
    return Run(Path(distributed.told(str(out))))


def _write_config(config: RunConfig, run: Run) -> None:
    if distributed.rank() == 0:
        write_file(run.config_path, config.to_yaml().encode())


def _packages(config: RunConfig) -> set[str]:
    """The packages of the family and of the caller's parts: a run's log has their messages."""
    spec = get_model_spec(config.id)
    paths = [spec.model, spec.agent, *(part.get("class") for part in config.slots.values())]
    return {path.partition(":")[0].partition(".")[0] for path in paths if isinstance(path, str)}


def run_config(
    run: Run,
    *,
    device: str | None = None,
    steps: int | None = None,
    trust: Trust = (),
    changed: bool = False,
) -> RunConfig:
    """The configuration of an existing run; `device` and `steps` replace its own.

    `ConfigError` where it is not the one its checkpoints were made with, unless `changed`.
    """
    if not changed:
        require_unchanged(run, resolve(config=run.config_path, trust=trust))
    own = {} if device is None else {"train.device": device}
    return resolve(config=run.config_path, overrides=own, steps=steps, trust=trust)


def load_agent(
    path: str | Path,
    step: int | None = None,
    *,
    device: str | None = None,
    trust: Trust = (),
    changed: bool = False,
) -> Agent:
    """The trained agent of a run, ready to act: of its best checkpoint, or of `step`.

    `device` replaces the run's own; `trust` names the modules that its configuration may name;
    `changed` goes on with a `config.yaml` that is not its checkpoints'.
    """
    return load_run(path, step, device=device, trust=trust, changed=changed)[1]


def load_run(
    path: str | Path,
    step: int | None = None,
    *,
    device: str | None = None,
    trust: Trust = (),
    changed: bool = False,
) -> tuple[RunConfig, Agent]:
    """A run's configuration and its trained agent; the arguments are those of `load_agent`."""
    run = Run.open(path)
    config = run_config(run, device=device, trust=trust, changed=changed)
    folder = checkpoint_of(run, step)
    return config, acting(_learner(config, folder), config)


def load_learner(
    path: str | Path,
    step: int | None = None,
    *,
    device: str | None = None,
    trust: Trust = (),
    changed: bool = False,
) -> tuple[RunConfig, Learner]:
    """The trained learner of a run, as `load_agent`; it need not act."""
    run = Run.open(path)
    config = run_config(run, device=device, trust=trust, changed=changed)
    return config, _learner(config, checkpoint_of(run, step))


def _learner(config: RunConfig, folder: Path) -> Learner:
    inputs = open_inputs(config)
    chosen = choose_device(config.train.device)
    learner = make_agent(config, inputs.obs_spec, inputs.action_spec, chosen)
    load_into(learner, folder / AGENT)
    return learner.eval()


def evaluate_run(
    path: str | Path,
    episodes: int | None = None,
    step: int | None = None,
    seed: int = 1,
    *,
    keep: Collection[str] = (),
    device: str | None = None,
    trust: Trust = (),
    changed: bool = False,
) -> Evaluation:
    """Evaluate a run's best checkpoint (or `step`) on episodes that follow from `seed`.

    `keep` also gives the `episodes` step by step: their observations, actions and rewards, with
    "frames" what the environment draws (`extra.picture`), with "latents" the agent's States
    (`extra.latent.<name>`). They start like the others, and are played one after another.
    `device`, `trust` and `changed` as for `load_agent`. A run from data alone has no environment:
    see `evaluate_on_data`.
    """
    config, agent = load_run(path, step, device=device, trust=trust, changed=changed)
    with Interrupt() as interrupt:
        if keep:
            return recorded_evaluation(
                config, agent, episodes or config.train.eval_episodes, derived(seed, "evaluation"),
                keep, stop=lambda: interrupt.requested,
            )  # fmt: skip
        found = evaluate(
            agent,
            lambda count: make_evaluation_envs(config, count),
            episodes or config.train.eval_episodes,
            derived(seed, "evaluation"),
            choose_device(config.train.device),
            max_steps=config.train.eval_max_steps,
            stop=lambda: interrupt.requested,
        )
    if found is None:
        raise KeyboardInterrupt
    return found


def evaluate_on_data(
    path: str | Path,
    step: int | None = None,
    seed: int = 1,
    *,
    batches: int | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,
    device: str | None = None,
    trust: Trust = (),
    changed: bool = False,
) -> OnData:
    """Judge a run's best checkpoint (or `step`) on the data it holds out (`data.validation`).

    At most `batches` batches of each phase (None: `train.eval_batches`); `tell` hears how many of
    how many were read; `device`, `trust` and `changed` as for `load_agent`.
    `ConfigError` for a run without such data.
    """
    run = Run.open(path)
    config = run_config(run, device=device, trust=trust, changed=changed)
    if config.data.path is None:
        raise ConfigError(f"{run.path} is not from data: evaluate it in its environment.")
    data = open_data(config.data, config.train.seed)
    require_held_out(data)
    chosen = choose_device(config.train.device)
    learner = _learner(config, checkpoint_of(run, step))
    rand = Rand.seeded(derived(seed, "evaluation"), chosen)
    found = evaluated_on_held_out(
        learner, data, rand, chosen, batches or config.train.eval_batches, tell
    )
    assert found is not None, "data is held out"
    return found


def imagine_run(
    path: str | Path,
    *,
    horizon: int = 45,
    context: int = 5,
    episodes: int = 8,
    step: int | None = None,
    kind: str = "mp4",
    seed: int = 1,
    device: str | None = None,
    trust: Trust = (),
    changed: bool = False,
    most_seconds: float = math.inf,
) -> tuple[Imagination, Path]:
    """What a run's world model imagines beside what happens, saved in the run with a video.

    Along episodes that the agent plays, or, in a run from data alone, that are held out. No
    further one is played after `most_seconds`; there is always one.
    `device`, `trust` and `changed` as for `load_agent`.
    """
    from worldflux_train.imagination_frames import frames_of, stages_of

    run = Run.open(path)
    config = run_config(run, device=device, trust=trust, changed=changed)
    folder = checkpoint_of(run, step)
    at, learner = int(folder.name), _learner(config, folder)
    recorded = _real_episodes(
        config, learner, episodes, 4 * (context + horizon), seed, most_seconds
    )
    found = imagine(
        learner.world_model, recorded, step=at, context=context, horizon=horizon, seed=seed
    )
    found.save(run)
    save_stages(run, at, {name: stages_of(x) for name, x in found.stages.items()})
    name = f"imagined-{at:010d}.{kind}"
    return found, write_video(run.videos_path / name, frames_of(found), fps=FPS)


def _real_episodes(
    config: RunConfig,
    learner: Learner,
    count: int,
    most_steps: int,
    seed: int,
    most_seconds: float,
) -> list[Episode]:
    """Played by the agent, or of the run's held-out data where it has no environment."""
    if not config.has_env:
        return held_out_episodes(
            open_data(config.data, config.train.seed), count, most_steps, derived(seed, "shown")
        )
    agent = acting(learner, config)
    with Interrupt() as interrupt:
        return record_episodes(
            config, agent, count, most_steps, seed, stop=lambda: interrupt.requested,
            most_seconds=most_seconds,
        )  # fmt: skip


def _run(trainer: Trainer, sinks: list[Sink]) -> Result:
    trainer.rows.sinks = sinks
    consoles = [sink for sink in sinks if isinstance(sink, ConsoleSink)]
    if consoles:
        trainer.judge.tell = consoles[0].evaluating
    outcome = trainer.train()
    logger.info("%s at step %d", outcome, trainer.clock.step)
    return Result(trainer.run, outcome, trainer.clock.step)


def _restored(config: RunConfig, run: Run) -> Trainer:
    trainer = Trainer(config, run)
    folder = trainer.restore()
    if folder is None:  # a damaged checkpoint may have left parts of itself behind
        trainer.close()
        trainer = Trainer(config, run)
    _rewind(run, trainer.clock.tick if folder else None)
    begun = "the beginning: there is no intact checkpoint"
    logger.info("resumed from %s", begun if folder is None else f"step {trainer.clock.step:,}")
    return trainer


def make_sinks(config: RunConfig, run: Run, console: Console | None, clock: Clock) -> list[Sink]:
    """JSONL always; the others as configured. Rank 0 writes for all ranks."""
    if distributed.rank():
        return []
    sinks: list[Sink] = [JsonlSink(run)]
    if config.train.tensorboard:
        from worldflux_train.sinks.tensorboard import TensorBoardSink

        sinks.append(TensorBoardSink(run.path / "tensorboard", clock.tick))
    if config.train.wandb is not None:
        from worldflux_train.sinks.wandb import WandbSink

        sinks.append(WandbSink(config.train.wandb, run.path, config.to_dict()))
    if console is not None:
        sinks.append(ConsoleSink(console, config.train.steps, clock.step))
    return sinks


def _rewind(run: Run, tick: int | None) -> None:
    """Drop rows a resumed run writes again, and the evaluation that only an end calls for."""
    if distributed.rank() == 0:
        run.rewind_metrics(-1 if tick is None else tick, drop="final")


def checkpoint_of(run: Run, step: int | None) -> Path:
    """Folder of the intact checkpoint of `step`, by default the best one."""
    chosen = step if step is not None else run.best_tick()
    intact = {int(folder.name): folder for folder in run.intact_checkpoints()}
    if chosen in intact:
        return intact[chosen]
    if step is not None or not intact:
        known = ", ".join(str(found) for found in sorted(intact)) or "none"
        which = "" if step is None else f" of step {step}"
        raise StorageError(f"{run.path} has no intact checkpoint{which}. It has: {known}.")
    return intact[max(intact)]
