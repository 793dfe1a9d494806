"""Configurations, models, agents and environments by id, and what there is to ask for."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from worldflux import spaces
from worldflux.errors import (
    CapabilityError,
    ConfigError,
    EnvError,
    PluginLoadError,
    UnknownIdError,
    did_you_mean,
)
from worldflux.given import EnvLike, backend_of, name_of
from worldflux.ids import EnvId, ModelId, normalize, qualified, squeezed
from worldflux.references import load_class as load_class
from worldflux.registry import envs, models
from worldflux.slots import SLOTS, built, read_slots
from worldflux.specs import EnvSpec, ModelSpec, TensorSpec

if TYPE_CHECKING:
    import gymnasium
    from numpy.typing import NDArray

    from worldflux.config import Config
    from worldflux.core.agent import Agent, Learner
    from worldflux.core.model import WorldModel

SPACE_OPTIONS = ("obs_spec", "action_spec", "obs_shape", "action_dim", "discrete")


class EnvBackend(NamedTuple):
    """An environment backend, and why it cannot be used if it cannot."""

    name: str
    distribution: str
    description: str
    problem: str | None = None


def list_models() -> list[str]:
    """The installed model families, from metadata: nothing is imported."""
    return models.names()


def list_envs(
    backend: str | None = None, *, tasks: bool = False, model: str | None = None, **options: Any
) -> list[str]:
    """The installed environment backends, or the ids of one backend's tasks.

    `tasks` lists those of all backends that are ready; `model` only the tasks whose spaces that
    family takes: each is made once for that (with `options`, such as `obs="pixels"`), which takes
    a while, so that naming a backend pays.
    """
    if model is not None:
        from worldflux.fitting import fitting

        get_model_spec(model)  # a misspelt one is an error of its own
        return [
            *fitting(
                list_envs(backend, tasks=True),
                lambda env_id: make_env(env_id, **options),
                lambda obs, action: create_agent(model, obs_spec=obs, action_spec=action),
            )
        ]
    if options:
        raise ConfigError(f"list_envs takes {', '.join(options)} only together with a model.")
    if backend is None and tasks:
        ready = [found.name for found in list_env_backends() if found.problem is None]
        return [env_id for name in ready for env_id in list_envs(name)]
    if backend is None:
        return envs.names()
    if "/" in backend:
        raise ConfigError(
            f"list_envs takes a backend, such as {backend.partition('/')[0]!r}, got {backend!r}."
        )
    spec = get_env_spec(backend)
    if spec.tasks is None:
        return []
    return [f"{backend}/{task}" for task in load_class(spec.tasks)()]


def list_env_backends() -> list[EnvBackend]:
    """Every installed backend, with what it lacks: `problem` is None where it can be used."""
    backends = [_backend(name) for name in envs.names()]
    return list({(b.distribution, normalize(b.name)): b for b in backends}.values())


def get_model_spec(model_id: str) -> ModelSpec:
    """What the family `model_id` declares about itself."""
    parsed = ModelId.parse(model_id)
    return models.get(parsed.family, parsed.distribution)


def get_env_spec(env_id: str) -> EnvSpec:
    """What a backend declares about itself; takes `backend` or `backend/task`.

    The options of every backend are among those of a backend that leaves the contract to us.
    """
    parsed = EnvId.parse(env_id if "/" in env_id else f"{env_id}/any")
    spec = envs.get(parsed.backend, parsed.distribution)
    if spec.make_vec is not None or not _importable("worldflux_envs"):
        return spec
    ours, vector = (load_class(f"worldflux_envs.options:{name}") for name in ("CONTRACT", "VECTOR"))
    rest = {} if spec.options else {"...": "anything else goes to the backend"}
    return dataclasses.replace(
        spec, options={**ours, **spec.options, **rest}, vector={**vector, **spec.vector}
    )


def create_config(model_id: str, **overrides: Any) -> Config:
    """The preset's configuration with `overrides` applied: fields, by dotted keys or their name."""
    from worldflux.config import dotted

    preset = preset_of(get_model_spec(model_id), ModelId.parse(model_id).preset)[1]
    return preset.with_(**dotted(preset, overrides))


def create_world_model(
    model_id: str,
    *,
    obs_spec: Mapping[str, TensorSpec] | None = None,
    action_spec: Mapping[str, TensorSpec] | None = None,
    obs_shape: Sequence[int] | None = None,
    action_dim: int | None = None,
    discrete: bool | None = None,
    config: Config | None = None,
    slots: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> WorldModel:
    """An untrained world model: `create_world_model("dreamerv3:size12m", action_dim=6)`.

    Spaces are specs or their shorthand. Those left out are assumed: a uint8 image (3, 64, 64), 6
    continuous actions in [-1, 1]; the model's `repr` says so, and `assumed` holds which.
    `overrides` are configuration fields (`model.deter`, or `deter` where only one room has it);
    `config` replaces the preset's. `slots` puts parts of yours into the model while it is built: a
    class, `"package.module:Class"`, `{"class": ..., **options}` (built as `Class(model,
    **options)`), or a finished module.
    """
    obs = spaces.resolve_obs_spec(obs_spec, obs_shape)
    action = spaces.resolve_action_spec(action_spec, action_dim, discrete)
    assumed = spaces.assumed(obs_spec or obs_shape, action_dim if action_spec is None else "own")
    return cast(
        "WorldModel", _create(model_id, "model", obs, action, config, slots, overrides, assumed)
    )


def create_agent(
    model_id: str,
    *,
    obs_spec: Mapping[str, TensorSpec] | None = None,
    action_spec: Mapping[str, TensorSpec] | None = None,
    obs_shape: Sequence[int] | None = None,
    action_dim: int | None = None,
    discrete: bool | None = None,
    config: Config | None = None,
    slots: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Agent:
    """An untrained agent that owns its world model; arguments as for `create_world_model`.

    A family that only learns gives a `Learner` here, which has no `act`.
    """
    obs = spaces.resolve_obs_spec(obs_spec, obs_shape)
    action = spaces.resolve_action_spec(action_spec, action_dim, discrete)
    assumed = spaces.assumed(obs_spec or obs_shape, action_dim if action_spec is None else "own")
    from worldflux.core.strides import check_strides

    made = _create(model_id, "agent", obs, action, config, slots, overrides, assumed)
    check_strides(cast("Learner", made))
    return cast("Agent", made)


def env_runs_code(env_id: str) -> str | None:
    """What code the id alone would import or start, in words; None if it only names something.

    For ids from other people's files; environments are not made and their packages not imported.
    """
    parsed = parse_env_id(env_id)
    spec = envs.get(parsed.backend, parsed.distribution)
    if spec.runs_code is not None:
        return cast("str | None", load_class(spec.runs_code)(parsed.task))
    module, colon, name = parsed.task.partition(":")
    return f"imports the module {module!r} and makes its {name!r}" if colon else None


def make_env(env: EnvLike, **options: Any) -> gymnasium.Env[dict[str, NDArray[Any]], Any]:
    """One environment: `make_env("gym/CartPole-v1")`; options go to its backend.

    `env` is an id, an environment of Gymnasium, dm_env or Brax, or a function that makes one. It
    keeps the environment contract (`docs/environments.md`), whatever the backend's `make` gives.
    """
    parsed, task = _asked(env)
    spec = _usable(parsed)
    single = _boundary("single")(spec, str(parsed), load_class(spec.make))
    return cast("gymnasium.Env[dict[str, NDArray[Any]], Any]", single(task, **options))


def make_vec_env(
    env: EnvLike, num_envs: int, **options: Any
) -> gymnasium.vector.VectorEnv[dict[str, NDArray[Any]], Any, NDArray[Any]]:
    """`num_envs` environments stepped together, with Gymnasium's NEXT_STEP autoreset.

    `env` as for `make_env`; one object of Gymnasium or dm_env is one environment.
    For Stable-Baselines3, `worldflux_envs.stable_baselines.StableBaselinesVec(vec)`.
    """
    parsed, task = _asked(env)
    spec = _usable(parsed)
    if num_envs < 1:
        raise ConfigError(f"num_envs must be at least 1, got {num_envs}.")
    own = None if spec.make_vec is None else load_class(spec.make_vec)
    vectorised = _boundary("vectorised")(spec, str(parsed), load_class(spec.make), own)
    made = vectorised(task, num_envs, **options)
    return cast("gymnasium.vector.VectorEnv[dict[str, NDArray[Any]], Any, NDArray[Any]]", made)


def _asked(env: EnvLike) -> tuple[EnvId, Any]:
    """What environment is meant, and what its backend is given for it."""
    if isinstance(env, str):
        parsed = parse_env_id(env)
        return parsed, parsed.task
    return EnvId(backend_of(env), name_of(env)), env


def preset_of(spec: ModelSpec, preset: str | None) -> tuple[str, Config]:
    """The preset's published name and configuration; the default one for None."""
    wanted = normalize(preset or spec.default_preset)
    spelled = {squeezed(name): name for name in spec.presets}
    exact = {normalize(name): name for name in spec.presets}
    if name := exact.get(wanted) or spelled.get(squeezed(wanted)):
        return name, spec.presets[name]
    raise UnknownIdError(
        f"{spec.family!r} has no preset {preset!r}.{did_you_mean(wanted, spec.presets)} "
        f"Presets: {', '.join(spec.presets)}."
    )


def _create(
    model_id: str,
    role: Literal["model", "agent"],
    obs_spec: Mapping[str, TensorSpec],
    action_spec: Mapping[str, TensorSpec],
    config: Config | None,
    slots: Mapping[str, Any] | None,
    overrides: Mapping[str, Any],
    assumed: tuple[str, ...],
) -> Any:
    parsed = ModelId.parse(model_id)
    spec = models.get(parsed.family, parsed.distribution)
    preset, default = preset_of(spec, parsed.preset)
    reference = getattr(spec, role)
    if reference is None:
        raise CapabilityError(f"{spec.family!r} has no agent; use create_world_model.")
    config = _configured(spec, config or default, overrides)
    owner_class, parts = load_class(reference), read_slots(slots or {})
    owner = built(lambda: owner_class(config, obs_spec, action_spec), parts)
    owner.provenance = {"family": qualified(spec.family, parsed.distribution), "preset": preset}
    getattr(owner, "world_model", owner).assumed = assumed
    return owner


def _configured(spec: ModelSpec, config: Config, overrides: Mapping[str, Any]) -> Config:
    """The configuration with `overrides`; unknown ones are refused."""
    from worldflux.config import dotted

    if not isinstance(config, spec.config):
        raise ConfigError(
            f"config is a {type(config).__name__}, {spec.family!r} takes a {spec.config.__name__}."
        )
    fields = spec.config.model_fields
    inner = [name for part in fields for name in _fields_of(getattr(config, part))]
    known = [*fields, "slots", *SPACE_OPTIONS, *inner]
    overrides = dotted(config, overrides)
    for key in overrides:
        if key in SLOTS:
            raise ConfigError(f"{key!r} is a slot: write slots={{{key!r}: ...}}.")
        if key.partition(".")[0] not in fields:
            raise ConfigError(
                f"{spec.family!r} has no option {key!r}.{did_you_mean(key, known)} "
                f"Options: {', '.join(dict.fromkeys(known))}."
            )
    return config.with_(**overrides)


def _fields_of(part: Any) -> list[str]:
    from worldflux.config import Config

    return list(type(part).model_fields) if isinstance(part, Config) else []


def parse_env_id(text: str) -> EnvId:
    """`EnvId.parse`; the error for a task without its backend names the backend that has it."""
    try:
        return EnvId.parse(text)
    except ConfigError as error:
        found = None if "/" in text else _task_called(text)
        raise ConfigError(f"{error}" + (f" Did you mean {found!r}?" if found else "")) from None


def _task_called(name: str) -> str | None:
    """`backend/task` for a task's name alone, among the backends that can be used here."""
    backends = sorted(envs.names(), key=lambda backend: (backend != "gym", backend))
    for backend in backends:
        try:
            spec = get_env_spec(backend)
            tasks = [] if spec.tasks is None or _lacking(spec) else load_class(spec.tasks)()
        except (PluginLoadError, EnvError):
            continue  # this one cannot be asked
        spelled = {task.lower(): task for task in tasks}
        near = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.8)
        if near:
            return f"{backend}/{spelled[near[0]]}"
    return None


def _usable(parsed: EnvId) -> EnvSpec:
    spec = envs.get(parsed.backend, parsed.distribution)
    if lacking := _lacking(spec):
        raise EnvError(f"{parsed} cannot be made: {lacking}")
    return spec


def _backend(name: str) -> EnvBackend:
    distribution, _, plain = name.rpartition("::")
    if own := envs.local.get(squeezed(name)):
        return EnvBackend(own.backend, "this process", own.description, _lacking(own))
    plugin = envs.plugin(plain, distribution or None)
    try:
        spec = envs.spec_of(plugin, plain)
    except PluginLoadError as error:
        return EnvBackend(name, plugin.distribution, "", str(error).splitlines()[0])
    called = qualified(spec.backend, distribution or None)
    return EnvBackend(called, plugin.distribution, spec.description, _lacking(spec))


def _lacking(spec: EnvSpec) -> str | None:
    missing = [name for name in spec.requires if not _importable(name)]
    if not missing:
        return None
    install = f" Run: {spec.install}" if spec.install else ""
    return f"{', '.join(missing)} is not installed.{install}"


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _boundary(name: str) -> Any:
    """A function of worldflux-envs, which keeps the environment contract."""
    if not _importable("worldflux_envs"):
        raise EnvError("Environments need worldflux-envs. Run: pip install worldflux-envs")
    return load_class(f"worldflux_envs.any_backend:{name}")
