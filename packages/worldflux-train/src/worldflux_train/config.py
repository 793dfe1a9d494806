"""A run's configuration: its rooms, merged, checked and written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, NonNegativeInt, PositiveInt

from worldflux.config import Config
from worldflux.describe import Described
from worldflux.errors import CapabilityError, ConfigError, did_you_mean, nearest
from worldflux.factory import get_env_spec, get_model_spec, parse_env_id, preset_of
from worldflux.given import EnvLike, give
from worldflux.ids import ModelId
from worldflux.slots import plain_slots
from worldflux.trust import Trust, names
from worldflux.yaml_text import read_yaml
from worldflux_train.named_functions import named_functions
from worldflux_train.nested import Nested, merge, nest
from worldflux_train.rate_config import Schedules
from worldflux_train.trust import refuse_inner_trust, require_trust

ROOMS = ("model", "agent", "train", "env", "data", "slots")
KEYS = ("id", *ROOMS)


class TrainConfig(Config):
    """The room `train.*`: how long, how often, where, and what is kept."""

    seed: NonNegativeInt = 0
    """Everything random in a run follows from it."""
    steps: PositiveInt = 10_000
    """Steps of the clock after which the run ends: the actions executed over all environments,
    while it collects."""
    envs: PositiveInt = 1
    """Environments stepped together."""
    round: PositiveInt = 4
    """Vector steps collected while the learner works on what was there before; the collector
    acts on the weights of the round's beginning."""
    eval_every: NonNegativeInt = 5_000
    """Ticks between evaluations (the clock, and updates of bursts); 0: none between the first (see
    `train.eval_first`) and the one at the end."""
    eval_first: bool | None = None
    """Whether the untrained agent is evaluated; None: yes, unless it plans its actions."""
    eval_episodes: PositiveInt = 10
    """Episodes per evaluation."""
    eval_max_steps: PositiveInt = 27_000
    """Agent steps after which an evaluated episode that has not ended is cut off; the default is
    the longest episode of Atari."""
    log_every: PositiveInt = 250
    """Ticks between rows of metrics; a non-finite loss is found at most this much later."""
    checkpoint_every: PositiveInt = 5_000
    """Ticks between checkpoints."""
    keep_last: PositiveInt = 2
    """Checkpoints kept, besides the one with the best evaluation."""
    keep_every: NonNegativeInt = 0
    """Ticks between milestones: checkpoints that are made there and never dropped; 0: none."""
    schedules: Schedules = Field(default_factory=dict)
    """How learning rates and weight decay change, by optimiser (or `all`) and rate, such as
    `{all: {lr: cosine}}`, in place of the family's own schedules."""
    stop_patience: PositiveInt | None = None
    """Evaluations without a better score after which the run ends early; None: never."""
    stop_score: float | None = None
    """Score of an evaluation (its mean return) at which the run ends early; None: none."""
    eval_videos: NonNegativeInt = 0
    """Evaluated episodes that are also shown as videos, in the run and wherever metrics go."""
    accumulate: PositiveInt = 1
    """Parts a batch is computed in, one after another, for less memory; the gradients are those of
    the whole batch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 runs matrix products in bfloat16 by autocast; parameters stay fp32."""
    device: Annotated[str, Field(pattern=r"^(auto|(cpu|cuda|mps|xpu)(:\d+)?)$")] = "auto"
    """Torch device: cpu, cuda, cuda:1, mps or xpu; `auto` is `cuda` where there is one, else
    `cpu`."""
    threads: PositiveInt | None = None
    """CPU threads of torch; None leaves torch's own choice."""
    replay_capacity: Annotated[int, Field(ge=2)] = 1_000_000
    """Steps the replay holds over all environments."""
    replay_bytes: PositiveInt | None = None
    """Bytes the replay may take; where given, it sets the capacity instead."""
    replay_storage: Literal["memory", "disk", "device"] = "memory"
    """Where the replay's rows lie: RAM, memory-mapped files in the run, or the device."""
    replay_online: bool = False
    """Whether new steps are delivered once before old ones are drawn."""
    collect: bool | None = None
    """Whether the agent acts in the environment to collect steps; None: as its training plan says.
    false with data: the environment only judges."""
    data_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Share of each batch that comes from data where steps are collected as well."""
    eval_batches: PositiveInt = 10
    """Batches of each phase that a run without an environment is judged by on held-out data."""
    tensorboard: bool = False
    """Whether metrics also go to TensorBoard files in the run folder."""
    wandb: str | None = None
    """Weights & Biases project that metrics also go to."""


class DataConfig(Config):
    """The room `data.*`: data on disk that a run trains on, and what it never trains on."""

    path: str | None = None
    """Folder or file of recorded data; None: the run has no data, only an environment."""
    format: str | None = None
    """Format of the data, such as `episodes` or `images`; None: found by what is there."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of that format, such as `data.options.subset`; docs/data.md has those of each."""
    validation: Annotated[float, Field(ge=0.0, lt=1.0)] | str | None = None
    """Share of the episodes that is held out, drawn by the run's seed; or where others lie. None:
    the set's own validation part, where it has one, else none."""
    augment: tuple[str | dict[str, dict[str, Any] | None], ...] = ()
    """What is done to images, in this order: names, or names with settings, such as
    `[horizontal_flip, {random_resized_crop: {size: 64}}]`; for held-out images without chance."""
    damaged: Literal["stop", "skip"] = "stop"
    """What a damaged file or episode does: it stops the run, or is reported and left out."""
    workers: NonNegativeInt = 2
    """Threads that read a batch; how many changes no batch."""


@dataclass(frozen=True, repr=False)
class RunConfig(Described):
    """Everything that defines a run. `env` holds the environment's id and its options.

    It is empty in a run from data alone. `slots` holds parts of the caller's by slot:
    `{"class": "package.module:Class", **options}`.
    """

    id: str
    env: Mapping[str, Any]
    train: TrainConfig
    family: Config
    slots: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    trust: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Modules that files may name, by the caller's word; it is never written down."""

    @property
    def has_env(self) -> bool:
        """Whether the run has an environment."""
        return "id" in self.env

    @property
    def env_id(self) -> str:
        """`backend/task`."""
        if not self.has_env:
            raise CapabilityError(
                f"This run of {self.id} is on data alone ({self.data.path}): it has no environment."
            )
        return str(self.env["id"])

    @property
    def where(self) -> str:
        """What the run is on, for people: the environment, the data or both."""
        data = Path(self.data.path).name if self.data.path else None
        return " and ".join(part for part in (self.env.get("id"), data) if part)

    @property
    def env_options(self) -> Nested:
        """What is passed to the environment's backend; one that reads files gets `trust`."""
        options = {key: value for key, value in self.env.items() if key != "id"}
        if self.trust and "trust" in get_env_spec(self.env_id).options:
            options["trust"] = self.trust
        return options

    def to_dict(self) -> Nested:
        """The rooms and the model id as plain data; without parts of the caller's, no `slots`."""
        family = self.family.to_dict()
        rooms = family if _has_rooms(type(self.family)) else {"model": family}
        if self.slots:
            rooms = {**rooms, "slots": {key: dict(part) for key, part in self.slots.items()}}
        data = {"data": self.data.to_dict()} if self.data.path else {}
        own = {"id": self.id, "env": dict(self.env), **data, "train": self.train.to_dict()}
        return {**own, **rooms}

    def to_yaml(self) -> str:
        """Text that `resolve` reads back to an equal configuration."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False))

    def with_steps(self, steps: int) -> Self:
        """The same run with another end."""
        return replace(self, train=self.train.with_(steps=steps))


def resolve(
    model_id: str | None = None,
    env_id: EnvLike | None = None,
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    steps: int | None = None,
    trust: Trust = (),
) -> RunConfig:
    """Defaults < preset < `config` (YAML file, recipe name or mapping) < `overrides` (dotted keys).

    `model_id`, `env_id` and `steps` stand above all of them. `env_id` may also be an environment of
    Gymnasium, dm_env or Brax, or a function that makes one (see `worldflux.register`). A file that
    names a module or a program to run raises `TrustError` unless `trust` holds it (see
    `worldflux.trust`); nothing is run here either way.
    """
    file = _from_file(config)
    own = nest(with_rooms(overrides or {}, str(model_id or file.get("id") or "")))
    given = _with_slots(merge(file, own), file, own)
    _check_keys(given, str(model_id or given.get("id") or ""))
    if env_id is not None:
        env_id = env_id if isinstance(env_id, str) else give(env_id)
        own = merge(own, {"env": {"id": env_id}})
        given = merge(given, {"env": {"id": env_id}})
    if steps is not None:
        given = merge(given, {"train": {"steps": steps}})
    model_id = model_id or given.get("id")
    if model_id is None:
        raise ConfigError("A run needs a model id, as an argument or in the configuration file.")
    given = merge(_defaults(str(model_id)), given)
    env, data = named_functions(given.get("env", {})), given.get("data", {})
    if env.get("id") is None and data.get("path") is None:
        raise ConfigError(
            "A run needs an environment (--env backend/task) or data (--data FOLDER), as an "
            "argument or in the configuration file."
        )
    if env.get("id") is not None:
        _check_env(env)
    elif env:
        raise ConfigError(f"env.{next(iter(env))} is set, but there is no env.id.")
    trusted = names(trust)
    if isinstance(config, str | Path):
        require_trust(given, own, trusted, str(config))
    family = _family(str(model_id), {room: given.get(room, {}) for room in ("model", "agent")})
    with _room("train", TrainConfig):
        train = TrainConfig().with_(**given.get("train", {}))
    slots = plain_slots(given.get("slots", {}))
    with _room("data", DataConfig):
        own_data = DataConfig().with_(**data)
    return RunConfig(str(model_id), env, train, family, slots, own_data, trusted)


def untouched(model_id: str) -> Nested:
    """Every key of a model's runs that nobody has set: the preset's value, else the default."""
    spec = get_model_spec(model_id)
    family = preset_of(spec, ModelId.parse(model_id).preset)[1]
    own = _defaults(model_id)
    train = TrainConfig().with_(**own.get("train", {}))
    data = DataConfig().with_(**own.get("data", {}))
    plain = RunConfig(model_id, {}, train, family, data=data).to_dict()
    return {**plain, "data": data.to_dict()}


def _defaults(model_id: str) -> Nested:
    """The preset's own `train.*` and `data.*`."""
    spec = get_model_spec(model_id)
    return nest(spec.defaults_of(preset_of(spec, ModelId.parse(model_id).preset)[0]))


def _with_slots(given: Nested, file: Nested, own: Nested) -> Nested:
    """A part that `own` names replaces the file's with its options; options alone are added."""
    before, after = file.get("slots"), own.get("slots")
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return given
    slots = dict(before)
    for slot, part in after.items():
        old = before.get(slot, {})
        if isinstance(part, Mapping) and "class" not in part:
            part = {**(old if isinstance(old, Mapping) else {"class": old}), **part}
        slots[slot] = part
    return {**given, "slots": slots}


def recipes() -> dict[str, Path]:
    """The recipes shipped with this package, by name."""
    folder = Path(__file__).parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _from_file(config: str | Path | Mapping[str, Any] | None) -> Nested:
    if config is None or isinstance(config, Mapping):
        return dict(config or {})
    path = Path(config)
    if not path.is_file():
        known = recipes()
        if str(config) not in known:
            raise ConfigError(
                f"{config} is neither a file nor a recipe.{did_you_mean(str(config), known)} "
                f"Recipes: {', '.join(known) or 'none'}."
            )
        path = known[str(config)]
    return read_yaml(path)


def with_rooms(overrides: Mapping[str, Any], model_id: str) -> Nested:
    """Overrides by whole keys: `lr` is `agent.lr` where that room alone has it."""
    found: Nested = {}
    for key, value in overrides.items():
        head = key.partition(".")[0]
        rooms = [] if head in KEYS else [r for r, names in _rooms(model_id) if head in names]
        if len(rooms) > 1:
            written = " and ".join(f"{room}.{key}" for room in rooms)
            raise ConfigError(f"{key!r} could be {written}: write which one.")
        whole = f"{rooms[0]}.{key}" if rooms else key
        if whole in found or (whole != key and whole in overrides):
            raise ConfigError(f"{whole} is set twice, once as {key!r}. Set it once.")
        found[whole] = value
    return found


def _rooms(model_id: str) -> Iterator[tuple[str, list[str]]]:
    """The rooms whose keys are known before anything is made, and their keys."""
    if model_id:
        spec = get_model_spec(model_id)
        preset = preset_of(spec, ModelId.parse(model_id).preset)[1]
        if _has_rooms(spec.config):
            for room in ("model", "agent"):
                yield room, list(type(getattr(preset, room)).model_fields)
        else:
            yield "model", list(spec.config.model_fields)
    yield "train", list(TrainConfig.model_fields)


def _check_keys(given: Nested, model_id: str) -> None:
    for key, value in given.items():
        if key not in KEYS:
            dotted = {name: f"{room}.{name}" for room, names in _rooms(model_id) for name in names}
            found = nearest(key, [*KEYS, *dotted])
            hint = "" if found is None else f" Did you mean {dotted.get(found, found)!r}?"
            raise ConfigError(
                f"A run's configuration has no key {key!r}.{hint} "
                f"Keys: {', '.join(KEYS)}; below the rooms, such as train.seed. "
                "worldflux train ID --help-config explains all of them."
            )
        if key in ROOMS and not isinstance(value, Mapping):
            raise ConfigError(f"{key} is a room of keys, such as {key}.name; got {value!r}.")


_COUNTS = ("max_episode_steps", "action_repeat", "frame_stack")


def _check_env(env: Mapping[str, Any]) -> None:
    """Refuse options that the backend does not take, and sizes and counts below 1."""
    refuse_inner_trust(env)
    for key in (*_COUNTS, "size"):
        given = env.get(key)
        for value in given if isinstance(given, list | tuple) and key == "size" else [given]:
            bad = isinstance(value, bool) or (isinstance(value, int | float) and value < 1)
            if bad:
                raise ConfigError(f"env.{key} is at least 1, got {given!r}.")
    parse_env_id(str(env["id"]))
    spec = get_env_spec(str(env["id"]))
    known = {**spec.options, **(spec.vector if spec.options else {})}
    for key in env:
        if known and "..." not in known and key not in (*known, "id"):
            raise ConfigError(
                f"{env['id']} has no option env.{key}.{did_you_mean(key, known)} "
                f"Options: {', '.join(known)}."
            )


def _family(model_id: str, rooms: Mapping[str, Mapping[str, Any]]) -> Config:
    spec = get_model_spec(model_id)
    _, config = preset_of(spec, ModelId.parse(model_id).preset)
    if _has_rooms(spec.config):
        for room, values in rooms.items():
            with _room(room, type(getattr(config, room))):
                config = config.with_(**{room: values})
        return config
    if rooms["agent"]:
        raise ConfigError(
            f"{spec.family!r} has no room agent.*, got {', '.join(rooms['agent'])}. "
            f"Its keys: {', '.join(f'model.{name}' for name in spec.config.model_fields)}."
        )
    with _room("model", spec.config):
        return config.with_(**rooms["model"])


@contextmanager
def _room(name: str, config: type[Config]) -> Iterator[None]:
    """Errors name keys as they are written: `agent.lr`, not `AgentConfig.lr`."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(str(error).replace(config.__name__, name)) from None


def _has_rooms(config: type[Config]) -> bool:
    """Whether a family's configuration has the rooms `model` and `agent`, or is one flat room."""
    return {"model", "agent"} <= set(config.model_fields)
