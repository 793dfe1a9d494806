"""WorldFlux: train, imagine, plan in, play and publish world models.

Everything here is imported when first used, so that `import worldflux` costs nothing.
"""

from __future__ import annotations

import importlib

import _worldflux_guard  # noqa: F401 - refuses the unrelated distribution of this name

TYPE_CHECKING = False  # type checkers take it for True; `typing` is most of a bare import's cost
if TYPE_CHECKING:
    from worldflux.config import Config as Config
    from worldflux.core.agent import Agent as Agent
    from worldflux.core.agent import Learner as Learner
    from worldflux.core.batch import Batch as Batch
    from worldflux.core.model import WorldModel as WorldModel
    from worldflux.core.output import LossOutput as LossOutput
    from worldflux.core.output import ModelOutput as ModelOutput
    from worldflux.core.output import UpdateResult as UpdateResult
    from worldflux.core.payloads import ActionPayload as ActionPayload
    from worldflux.core.payloads import ActionSequence as ActionSequence
    from worldflux.core.payloads import ConditionPayload as ConditionPayload
    from worldflux.core.payloads import WorldModelInput as WorldModelInput
    from worldflux.core.state import State as State
    from worldflux.core.trajectory import Trajectory as Trajectory
    from worldflux.errors import CapabilityError as CapabilityError
    from worldflux.errors import StateError as StateError
    from worldflux.errors import WorldFluxError as WorldFluxError
    from worldflux.factory import create_agent as create_agent
    from worldflux.factory import create_config as create_config
    from worldflux.factory import create_world_model as create_world_model
    from worldflux.factory import get_env_spec as get_env_spec
    from worldflux.factory import get_model_spec as get_model_spec
    from worldflux.factory import list_env_backends as list_env_backends
    from worldflux.factory import list_envs as list_envs
    from worldflux.factory import list_models as list_models
    from worldflux.factory import make_env as make_env
    from worldflux.factory import make_vec_env as make_vec_env
    from worldflux.hookspecs import hookimpl as hookimpl
    from worldflux.hub import from_pretrained as from_pretrained
    from worldflux.hub import push_to_hub as push_to_hub
    from worldflux.operator import create_operator as create_operator
    from worldflux.planning import create_planner as create_planner
    from worldflux.registration import register as register
    from worldflux.session import Session as Session
    from worldflux.specs import Capability as Capability
    from worldflux.specs import EnvSpec as EnvSpec
    from worldflux.specs import ModelSpec as ModelSpec
    from worldflux.specs import TensorSpec as TensorSpec
    from worldflux.training import Phase as Phase
    from worldflux.training import TrainingPlan as TrainingPlan

_HOMES = {
    "config": ("Config",),
    "core.agent": ("Agent", "Learner"),
    "core.batch": ("Batch",),
    "core.model": ("WorldModel",),
    "core.output": ("LossOutput", "ModelOutput", "UpdateResult"),
    "core.payloads": ("ActionPayload", "ActionSequence", "ConditionPayload", "WorldModelInput"),
    "core.state": ("State",),
    "core.trajectory": ("Trajectory",),
    "errors": ("CapabilityError", "StateError", "WorldFluxError"),
    "factory": (
        "create_agent",
        "create_config",
        "create_world_model",
        "get_env_spec",
        "get_model_spec",
        "list_env_backends",
        "list_envs",
        "list_models",
        "make_env",
        "make_vec_env",
    ),
    "hookspecs": ("hookimpl",),
    "hub": ("from_pretrained", "push_to_hub"),
    "operator": ("create_operator",),
    "planning": ("create_planner",),
    "registration": ("register",),
    "session": ("Session",),
    "specs": ("Capability", "EnvSpec", "ModelSpec", "TensorSpec"),
    "training": ("Phase", "TrainingPlan"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])


def _import(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("worldflux-core")
    if name not in _HOME:
        raise AttributeError(
            f"module 'worldflux' has no attribute {name!r}. It offers: {', '.join(__all__)}."
        )
    value = getattr(importlib.import_module(f"worldflux.{_HOME[name]}"), name)
    globals()[name] = value
    return value


if TYPE_CHECKING:
    __version__: str
else:  # checkers would take a misspelt name for one of type Any
    __getattr__ = _import


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
