"""The conformance checks of an installed model family, found by its id like any user would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from worldflux.columns import step_columns
from worldflux.config import Config, dotted
from worldflux.core.agent import Learner
from worldflux.core.model import WorldModel
from worldflux.errors import CapabilityError, ConfigError
from worldflux.factory import preset_of
from worldflux.ids import ModelId
from worldflux.specs import CheckSettings, ModelSpec, TensorSpec
from worldflux.testing.agent import check_agent
from worldflux.testing.known_world import check_learns_known_world, line_spaces
from worldflux.testing.other_sizes import check_other_sizes
from worldflux.testing.shape_world import IMAGE as LARGE_SHAPES
from worldflux.testing.shape_world import LABEL, check_learns_shapes, without_time
from worldflux.testing.shape_world import SMALL_IMAGE as SMALL_SHAPES
from worldflux.testing.world_model import check_world_model

VECTOR = {"state": TensorSpec((5,))}
CONTINUOUS = {"action": TensorSpec((2,), low=-1.0, high=1.0)}
DISCRETE = {"action": TensorSpec((), "int64", n=3)}
Spaces = tuple[str, dict[str, TensorSpec], dict[str, TensorSpec]]
SPACES: tuple[Spaces, ...] = (
    ("vector, continuous", VECTOR, CONTINUOUS),
    ("vector, discrete", VECTOR, DISCRETE),
)


def kinds(side: int = 64) -> tuple[tuple[Spaces, ...], ...]:
    """Spaces that `check_family` tries: the first kind of which a family accepts any."""
    image = {"image": TensorSpec((3, side, side), "uint8", low=0, high=255)}
    return (
        SPACES,
        (("image, continuous", image, CONTINUOUS), ("image, discrete", image, DISCRETE)),
        (("vector, no actions", VECTOR, {}),),
        (("image, no actions", image, {}),),
    )


def check_family(
    model_id: str,
    *,
    spaces: tuple[Spaces, ...] | None = None,
    learn: bool = True,
    **overrides: Any,
) -> list[str]:
    """Run every check on the family `model_id`; return the names of the checks that ran.

    Without a preset in the id, the smallest one is checked in full; every preset is built on the
    meta device. Spaces the family refuses with `CapabilityError` are passed over, but not all: by
    default vectors with actions are tried, then images, then spaces without actions. `overrides`
    make it smaller still; without any, parts of other sizes are trained in the sizes of
    `spec.check`. With `learn` the family also has to learn a known world,
    which takes up to 30 seconds (see `worldflux.testing.known_world`). Raises `AssertionError`
    naming what fails.
    """
    from worldflux.factory import get_model_spec

    spec = get_model_spec(model_id)
    check_spec(spec)
    side = spec.check.image if spec.check else 64
    spaces = accepted(spec, kinds(side) if spaces is None else (spaces,))
    counts = check_presets(spec, *spaces[0][1:])
    preset = ModelId.parse(model_id).preset or min(counts, key=counts.__getitem__)
    ran = ["check_spec", "check_presets"]
    for name, obs_spec, action_spec in spaces:
        try:
            ran += _checked(f"{spec.family}:{preset}", spec, obs_spec, action_spec, overrides)
            if spec.agent and name == spaces[0][0]:
                ran += _checked_sizes(spec, preset, obs_spec, action_spec, overrides)
        except AssertionError as error:
            raise AssertionError(f"{model_id} ({name}): {error}") from error
    if learn and spec.agent and spec.check and spec.check.updates:
        ran += check_family_learns(spec)
    return ran


def check_family_learns(
    spec: ModelSpec, obs_spec: Mapping[str, TensorSpec] | None = None
) -> list[str]:
    """`check_learns_known_world` on the family, as `spec.check` sets it up.

    The world is seen as `obs_spec` says (such as `line_world.LARGE_IMAGE`); by default as a vector,
    or by families that take none as an image of 16x16 pixels. A family of single images learns
    drawn shapes instead: see `worldflux.testing.shape_world`.
    """
    spaces = line_spaces(lambda *pair: _accepts(spec, *pair), obs_spec)
    seen = "vectors and 16x16 images" if obs_spec is None else obs_spec
    assert spaces, f"{spec.family} refuses all spaces of the line world: {seen}"
    settings = spec.check or CheckSettings()
    preset = settings.preset or min(spec.presets, key=check_presets(spec, *spaces).__getitem__)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = _learner(spec, preset, *spaces, settings.overrides)
        if not without_time(learner):
            check_learns_known_world(learner, settings.updates, settings.rows)
            return [check_learns_known_world.__name__]
        images = (LARGE_SHAPES, SMALL_SHAPES) if obs_spec is None else (obs_spec,)
        shown = next(obs for obs in (*images, spaces[0]) if _accepts(spec, obs, {}))
        learner = _learner(spec, preset, shown, {}, settings.overrides)
        check_learns_shapes(learner, settings.updates, settings.rows)
    return [check_learns_shapes.__name__]


def _learner(
    spec: ModelSpec,
    preset: str,
    obs_spec: Mapping[str, TensorSpec],
    action_spec: Mapping[str, TensorSpec],
    overrides: Mapping[str, Any],
    slots: Mapping[str, Any] | None = None,
) -> Learner:
    from worldflux.factory import create_agent

    config = _config(spec, preset, obs_spec, action_spec, overrides)
    return create_agent(
        f"{spec.family}:{preset}", obs_spec=obs_spec, action_spec=action_spec, config=config,
        slots=slots,
    )  # fmt: skip


def _config(
    spec: ModelSpec,
    preset: str | None,
    obs_spec: Mapping[str, TensorSpec],
    action_spec: Mapping[str, TensorSpec],
    overrides: Mapping[str, Any],
) -> Config:
    """The preset with `overrides`; without actions completed as by data with labels."""
    config = preset_of(spec, preset)[1]
    config = config.with_(**dotted(config, overrides))
    if action_spec:
        return config
    return config.completed(step_columns(obs_spec, extra={"label": LABEL}))


def _accepts(
    spec: ModelSpec, obs_spec: Mapping[str, TensorSpec], action_spec: Mapping[str, TensorSpec]
) -> bool:
    from worldflux.factory import load_class

    try:
        with torch.device("meta"):
            load_class(spec.model)(spec.presets[spec.default_preset], obs_spec, action_spec)
    except CapabilityError:
        return False
    return True


def accepted(spec: ModelSpec, kinds: tuple[tuple[Spaces, ...], ...]) -> tuple[Spaces, ...]:
    """The spaces of the first kind that the family does not refuse with `CapabilityError`."""
    for kind in kinds:
        found = tuple(space for space in kind if _accepts(spec, *space[1:]))
        if found:
            return found
    refused = ", ".join(name for kind in kinds for name, *_ in kind)
    raise AssertionError(f"{spec.family} refuses all of these spaces: {refused}")


def check_spec(spec: ModelSpec) -> None:
    """The spec says what it is, and its presets survive JSON and refuse misspelt keys."""
    assert spec.description, f"{spec.family}: the spec has no description"
    for name, config in spec.presets.items():
        assert type(config) is spec.config, f"preset {name!r} is a {type(config).__name__}"
        assert spec.config.from_json(config.to_json()) == config, f"preset {name!r}: JSON differs"
        try:
            config.with_(surely_not_a_key=1)
        except ConfigError:
            continue
        raise AssertionError(f"preset {name!r} accepts a key that does not exist")


def check_presets(
    spec: ModelSpec, obs_spec: Mapping[str, TensorSpec], action_spec: Mapping[str, TensorSpec]
) -> dict[str, int]:
    """Every preset builds on the meta device; the parameter count of each."""
    from worldflux.factory import load_class

    counts = {}
    for name, config in spec.presets.items():
        with torch.device("meta"):
            model: WorldModel = load_class(spec.model)(config, obs_spec, action_spec)
        assert isinstance(model, WorldModel), f"{spec.model} is no WorldModel"
        assert set(model.capabilities) == set(spec.capabilities), (
            f"preset {name!r}: the model's capabilities are not the spec's"
        )
        counts[name] = model.parameter_count()
    return counts


def _checked(
    model_id: str,
    spec: ModelSpec,
    obs_spec: Mapping[str, TensorSpec],
    action_spec: Mapping[str, TensorSpec],
    overrides: Mapping[str, Any],
) -> list[str]:
    from worldflux.factory import create_world_model

    preset = ModelId.parse(model_id).preset or spec.default_preset
    config = _config(spec, preset, obs_spec, action_spec, overrides)

    def model() -> WorldModel:
        return create_world_model(
            model_id, obs_spec=obs_spec, action_spec=action_spec, config=config
        )

    def agent() -> Learner:
        return _learner(spec, preset, obs_spec, action_spec, overrides)

    return check_world_model(model) + (check_agent(agent) if spec.agent else [])


def _checked_sizes(
    spec: ModelSpec,
    preset: str,
    obs_spec: Mapping[str, TensorSpec],
    action_spec: Mapping[str, TensorSpec],
    overrides: Mapping[str, Any],
) -> list[str]:
    if spec.check and not overrides:  # every slot is trained with: the sizes of a moment will do
        preset, overrides = spec.check.preset or preset, spec.check.overrides

    def make(slots: Mapping[str, Any]) -> Learner:
        return _learner(spec, preset, obs_spec, action_spec, overrides, slots)

    check_other_sizes(make)
    return ["check_other_sizes"]
