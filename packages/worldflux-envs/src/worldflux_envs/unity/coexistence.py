"""mlagents-envs 0.28 made importable beside current Python and protobuf, without changing a file.

Its generated message modules are in a form that protobuf refuses since version 4, but each holds
its definition in serialised form: the messages are rebuilt from those. It also imports `distutils`,
which Python has not had since 3.12.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from worldflux.errors import EnvError

_PACKAGE = "mlagents_envs.communicator_objects"
_PROOF = f"{_PACKAGE}.unity_message_pb2"


def make_importable() -> None:
    """Let `mlagents_envs.environment` be imported; nothing happens the second time."""
    if "mlagents_envs.environment" in sys.modules:
        return
    if _PROOF not in sys.modules:
        _rebuild_messages()
    with _distutils():
        importlib.import_module("mlagents_envs.environment")
    logs = importlib.import_module("mlagents_envs.logging_util")
    # At its default it writes the player's output into ours.
    logs.set_log_level(logs.WARNING)


def _rebuild_messages() -> None:
    from google.protobuf import descriptor_pool

    package = importlib.import_module(_PACKAGE)
    folder = Path(package.__path__[0])
    definitions = [definition(path) for path in sorted(folder.glob("*_pb2.py"))]
    # A pool of their own: nobody else's messages of the same name are in the way.
    pool = descriptor_pool.DescriptorPool()
    waiting = {found.name: found for found in definitions}
    while waiting:
        ready = [f for f in waiting.values() if not waiting.keys() & set(f.dependency)]
        for found in ready:
            pool.AddSerializedFile(found.SerializeToString())
            del waiting[found.name]
    for found in definitions:
        module = _module(pool.FindFileByName(found.name))
        sys.modules[module.__name__] = module
        setattr(package, module.__name__.rpartition(".")[2], module)


def definition(path: Path) -> Any:
    """The file descriptor inside a generated module, which is read, not run."""
    from google.protobuf import descriptor_pb2

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb":
            texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
            raw = texts[0] if isinstance(texts[0], bytes) else str(texts[0]).encode("latin1")
            return descriptor_pb2.FileDescriptorProto.FromString(raw)
    raise EnvError(
        f"{path} holds no message definition: this mlagents-envs is not the one that "
        '`pip install "worldflux-envs[unity]"` brings.'
    )


def _module(descriptor: Any) -> ModuleType:
    """What the generated module of `descriptor` would hold: messages, enums and their values."""
    from google.protobuf.internal import builder

    name = f"{_PACKAGE}.{Path(descriptor.name).stem}_pb2"
    module = ModuleType(name)
    module.DESCRIPTOR = descriptor  # type: ignore[attr-defined]
    builder.BuildMessageAndEnumDescriptors(descriptor, vars(module))
    builder.BuildTopDescriptorsAndMessages(descriptor, name, vars(module))
    return module


@contextmanager
def _distutils() -> Iterator[None]:
    """`distutils.version.StrictVersion`, as far as the client uses it, for one import."""

    class StrictVersion:
        def __init__(self, text: str) -> None:
            self.version = tuple(int(part) for part in text.split("."))

    names = ("distutils", "distutils.version")
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        sys.modules[name] = ModuleType(name)
    sys.modules[names[1]].StrictVersion = StrictVersion  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
