"""Every public function with a Tensor argument says what shape it takes.

In its docstring, in the comment under its signature, in its class's docstring (`forward`), or in
that of the method it overrides: "(B, T, A)", "(..., D)", "scalar", "any shape", "elementwise".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGES = sorted((Path(__file__).parents[2] / "packages").iterdir())
SHAPE = re.compile(
    r"\((?:[A-Z]\b|\.\.\.|\d,|\*)[^()]*\)|\(\w+, \.\.\.\)"
    r"|0-d\b|\bscalars?\b|\b(?:any|same|equal) shapes?\b|\b[Ee]lementwise\b"
)
BY_NAME = {"weights", "ours", "tensors", "flat", "params", "metrics", "means"}
"""Arguments that hold whatever there is, by name or in a list: there is no shape to state."""


class Method(NamedTuple):
    """A public function: its class, if it has one, and what is written about it."""

    place: str
    cls: str | None
    name: str
    tensors: tuple[str, ...]
    documented: bool
    said: str


def functions(path: Path) -> Iterator[Method]:
    """The public functions and methods of a file."""
    lines = path.read_text("utf-8").splitlines()
    module = ast.parse("\n".join(lines))
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    for cls in (None, *classes):
        if cls is not None and cls.name.startswith("_"):
            continue
        for node in (cls or module).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            if any("overload" in ast.unparse(item) for item in node.decorator_list):
                continue
            doc, owner = ast.get_docstring(node), None if cls is None else cls.name
            said = f"{doc or ''} {_first_comment(node, lines)}"
            if cls is not None and node.name == "forward":
                said += ast.get_docstring(cls) or ""
            place = f"{path.name}:{node.lineno}"
            yield Method(place, owner, node.name, _tensors(node), doc is not None, said)


def _first_comment(node: ast.FunctionDef, lines: list[str]) -> str:
    head = [line.strip() for line in lines[node.lineno - 1 : node.end_lineno]]
    start = node.body[0].end_lineno if ast.get_docstring(node) else node.body[0].lineno - 1
    until = next((s.lineno for s in node.body if s.lineno > (start or 0)), node.end_lineno or 0)
    return " ".join(line for line in head[: until - node.lineno] if line.startswith("#"))


def _tensors(node: ast.FunctionDef) -> tuple[str, ...]:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    notes = {a.arg: ast.unparse(a.annotation) for a in arguments if a.annotation is not None}
    return tuple(
        name
        for name, note in notes.items()
        if re.search(r"\bTensor\b", note) and "Callable" not in note and name not in BY_NAME
    )


def shapeless(paths: list[Path]) -> list[str]:
    """Public functions with a Tensor argument that say nothing about shapes."""
    found = [function for path in paths for function in functions(path)]
    stated = {f.name for f in found if f.cls is not None and SHAPE.search(f.said)} - {"forward"}
    bases = {name: parents for path in paths for name, parents in _bases(path)}
    by_class = {(f.cls, f.name): f.said for f in found}

    def inherited(cls: str | None, name: str) -> bool:
        return any(
            SHAPE.search(by_class.get((base, name), "")) or inherited(base, name)
            for base in bases.get(cls, ())
            if base != cls
        )

    return [
        f"{f.place} {f.name}: {', '.join(f.tensors)}"
        for f in found
        if f.tensors and not SHAPE.search(f.said) and not inherited(f.cls, f.name)
        # a protocol's method, documented where the protocol is
        if f.documented or f.cls is None or f.name not in stated
    ]


def _bases(path: Path) -> Iterator[tuple[str | None, list[str]]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ClassDef):
            yield node.name, [re.split(r"[.\[]", ast.unparse(base))[-1] for base in node.bases]


def test_public_functions_say_what_shapes_they_take() -> None:
    paths = [path for package in PACKAGES for path in sorted((package / "src").rglob("*.py"))]
    assert not shapeless(paths)


SILENT = {
    'def f(x: Tensor) -> Tensor:\n    """The same (or not), twice."""': "f: x",
    'class A:\n    def f(self, *, y: Mapping[str, Tensor]):\n        """Of y."""': "f: y",
    'class A(nn.Module):\n    """A net."""\n    def forward(self, x: Tensor):\n        return x': (
        "forward: x"
    ),
    "def f(x: Tensor):\n    y = x\n    # x (B, D)\n    return y": "f: x",
}
FINE = (
    'def f(x: Tensor):\n    """Twice x (B, D)."""',
    "def f(x: Tensor):\n    # x (..., D)\n    return x",
    'def f(x: Tensor):\n    """Twice x, in any shape."""',
    "def _f(x: Tensor):\n    return x",
    "def f(choose: Callable[[Tensor], Tensor]):\n    return choose",
    'class A:\n    def f(self, x: Tensor):\n        """Of (B,)."""\n'
    'class B(A):\n    def f(self, x: Tensor):\n        """The same, faster."""',
    'class A(nn.Module):\n    """Maps (N, D)."""\n    def forward(self, x: Tensor):\n        pass',
)


@pytest.mark.parametrize("code", SILENT)
def test_a_function_that_says_nothing_is_found(code: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(code)
    [found] = shapeless([tmp_path / "a.py"])
    assert found.endswith(SILENT[code])


@pytest.mark.parametrize("code", FINE)
def test_one_that_says_its_shapes_is_not(code: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(code)
    assert not shapeless([tmp_path / "a.py"])
