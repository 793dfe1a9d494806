"""The public names of `worldflux`, pinned: adding or removing one is a decision."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import worldflux

PUBLIC = [
    "ActionPayload", "ActionSequence", "Agent", "Batch", "Capability", "CapabilityError",
    "ConditionPayload", "Config", "EnvSpec", "Learner", "LossOutput", "ModelOutput",
    "ModelSpec", "Phase", "Session", "State", "StateError", "TensorSpec", "TrainingPlan",
    "Trajectory", "UpdateResult", "WorldFluxError", "WorldModel", "WorldModelInput",
    "__version__", "create_agent", "create_config", "create_operator", "create_planner",
    "create_world_model",
    "from_pretrained", "get_env_spec", "get_model_spec", "hookimpl", "list_env_backends",
    "list_envs", "list_models", "make_env", "make_vec_env", "push_to_hub", "register",
]  # fmt: skip


def test_the_surface_is_this() -> None:
    assert sorted(worldflux.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(worldflux))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there(name: str) -> None:
    value = getattr(worldflux, name)
    assert value == importlib.metadata.version("worldflux-core") if name == "__version__" else value
    assert name == "__version__" or value.__doc__, f"{name} has no docstring"


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(str(worldflux.__file__)).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (str(node.module).removeprefix("worldflux."), alias.asname)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    assert seen == {(module, name) for name, module in worldflux._HOME.items()}


def test_another_name_is_an_attribute_error_that_lists_them() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'creat_agent'\. It offers: .*State"):
        worldflux.creat_agent  # noqa: B018


def test_completion_lists_every_name_before_it_was_used() -> None:
    code = "import worldflux as m; assert set(m.__all__) <= set(dir(m)), dir(m)"
    subprocess.run([sys.executable, "-c", code], check=True)
