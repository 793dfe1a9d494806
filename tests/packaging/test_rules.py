"""The rules of the house that a machine can check, over every source file of ours."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted((ROOT / "packages").iterdir())
PROJECTS = [*PACKAGES, *sorted((ROOT / "examples").iterdir())]
SOURCES = sorted(path for project in PROJECTS for path in (project / "src").rglob("*.py"))
NOT_FAMILIES = {"worldflux", "worldflux_train", "worldflux_envs", "worldflux_play"}
DRAWERS = {"utils", "util", "tools", "common", "helpers", "misc", "stuff"}
MOST_LINES, MOST_FUNCTION_LINES = 400, 60


def label(path: Path) -> str:
    return str(path.relative_to(ROOT) if ROOT in path.parents else path)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def package(path: Path) -> str:
    """The import package a source file belongs to."""
    return path.parts[-path.parts[::-1].index("src")].removesuffix(".py")


def family_packages() -> list[str]:
    """The import packages of model families (examples included)."""
    return sorted({package(path) for path in SOURCES} - NOT_FAMILIES - {"_worldflux_guard"})


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level name of each import, wherever in the file, type checking included."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, str(node.module).split(".")[0]


def violations(path: Path) -> list[str]:
    """What in this file breaks the dependency rules 1 and 2."""
    own, families = package(path), set(family_packages())
    allowed = {"worldflux", "_worldflux_guard", own}
    if own == "worldflux":
        allowed = {"worldflux", "_worldflux_guard"}
    ours = families | NOT_FAMILIES | {"_worldflux_guard"}
    return [
        f"{label(path)}:{line} imports {name}"
        for line, name in imports(path)
        if (name in ours or name.startswith("worldflux_")) and name not in allowed
    ]


def test_only_core_owns_the_name_worldflux() -> None:
    owners = [p.name for p in PROJECTS if (p / "src" / "worldflux").exists()]
    assert owners == ["worldflux-core"]
    assert (ROOT / "packages/worldflux-core/src/worldflux/__init__.py").is_file()


@pytest.mark.parametrize("family", family_packages())
def test_a_familys_init_is_empty(family: str) -> None:
    [init] = [p for p in SOURCES if p.parts[-2:] == (family, "__init__.py")]
    assert init.read_text() == ""


def torch_free_modules() -> list[str]:
    """Every `plugin.py` and `config.py` of a family, by its dotted name."""
    paths = [p for p in SOURCES if p.name in {"plugin.py", "config.py"}]
    paths = [p for p in paths if package(p) not in NOT_FAMILIES]
    return [".".join((package(p), *p.parts[p.parts.index(package(p)) + 1 :]))[:-3] for p in paths]


def test_families_have_such_modules() -> None:
    assert {"worldflux_ring.plugin", "worldflux_ring.config"} <= set(torch_free_modules())


@pytest.mark.parametrize("module", torch_free_modules())
def test_plugin_and_config_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or f"{module} imports torch"


def test_core_names_families_only_in_the_install_hints() -> None:
    """Docstrings may give examples; code must not."""
    names = {family.removeprefix("worldflux_") for family in family_packages()}
    names |= {"dreamerv3", "tdmpc2", "iris", "diamond", "genie", "ijepa"} - {"ring"}
    found = []
    for path in (p for p in SOURCES if package(p) == "worldflux" and p.name != "registry.py"):
        docs = {id(node) for node in _docstrings(tree(path))}
        found += [
            f"{label(path)}:{node.lineno} {node.value!r}"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if id(node) not in docs and node.value.lower() in names
        ]
    assert not found


def _docstrings(module: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(module):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_distributions_declare_what_they_import(project: Path) -> None:
    """Rule 5: everything imported is declared, in the dependencies or an extra, or is ours."""
    declared = _declared(project) | BROUGHT_BY_THE_CALLER.get(project.name, set())
    missing = {
        f"{label(path)}:{line} {name}"
        for path in (project / "src").rglob("*.py")
        for line, name in imports(path)
        if name not in sys.stdlib_module_names
        and name not in {package(path), "worldflux", "_worldflux_guard"}
        and _DISTRIBUTION.get(name, name).lower().replace("_", "-") not in declared
    }
    assert not missing


BROUGHT_BY_THE_CALLER = {"worldflux-core": {"gymnasium"}}
"""Core touches environments only where its caller already has some."""
_DISTRIBUTION = {"yaml": "pyyaml", "PIL": "pillow", "ale_py": "ale-py", "dm_env": "dm-env"}
_DISTRIBUTION |= {"google": "protobuf", "grpc": "grpcio"}


def _declared(project: Path) -> set[str]:
    from packaging.requirements import Requirement

    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    extras = about.get("optional-dependencies", {}).values()
    texts = [*about["dependencies"], *itertools.chain.from_iterable(extras)]
    names = {Requirement(text).name.lower().replace("_", "-") for text in texts}
    if "worldflux-core" in names:  # what core itself brings may be used without saying so again
        names |= _declared(ROOT / "packages" / "worldflux-core")
    return names


def too_long(path: Path) -> Iterator[str]:
    """Files and functions over the limit."""
    if (lines := len(path.read_text("utf-8").splitlines())) > MOST_LINES:
        yield f"{label(path)} has {lines} lines"
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if (size := (node.end_lineno or 0) - node.lineno + 1) > MOST_FUNCTION_LINES:
            yield f"{label(path)}:{node.lineno} {node.name} has {size} lines"


def test_there_are_no_drawers() -> None:
    assert not [label(path) for path in SOURCES if path.stem.strip("_") in DRAWERS]
    assert not [label(path) for path in SOURCES if path.parent.name in DRAWERS]


FORBIDDEN_CALLS = {"print", "eval", "exec"}
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "shelve", "marshal"}


def forbidden(module: ast.Module) -> Iterator[str]:
    """Prints, pickles, evaluated text, shell strings and unsafe loads in a module."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            only_errors = all(alias.name.endswith("Error") for alias in node.names)
            for name in names:
                if str(name).split(".")[0] in FORBIDDEN_MODULES and not only_errors:
                    yield f"line {node.lineno}: imports {name}"
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        options = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if function in FORBIDDEN_CALLS or function == "os.system":
            yield f"line {node.lineno}: calls {function}"
        if options.get("shell") == "True":
            yield f"line {node.lineno}: runs a shell string"
        if function.endswith("torch.load") and options.get("weights_only") != "True":
            yield f"line {node.lineno}: torch.load without weights_only=True"
        if options.get("allow_pickle") == "True":
            yield f"line {node.lineno}: allows pickles"


TO_OUR_OWN_WORKERS = {"vector/processes.py", "vector/worker.py"}
"""An environment's constructor goes over a pipe to a process of ours; nothing of it is stored."""


def unsafe(path: Path) -> list[str]:
    """What a file must not do."""
    found = [f"{label(path)} {text}" for text in forbidden(tree(path))]
    if "/".join(path.parts[-2:]) in TO_OUR_OWN_WORKERS:
        found = [text for text in found if "pickle" not in text]
    return found


BAD = {
    "print(1)": "calls print",
    "eval('1')": "calls eval",
    "import pickle": "imports pickle",
    "from cloudpickle import dumps": "imports cloudpickle",
    "os.system('x')": "calls os.system",
    "subprocess.run('x', shell=True)": "runs a shell string",
    "torch.load(path)": "torch.load without weights_only=True",
    "np.load(path, allow_pickle=True)": "allows pickles",
}


@pytest.mark.parametrize("code", BAD)
def test_the_check_itself_finds_each(code: str) -> None:
    assert [text.split(": ", 1)[1] for text in forbidden(ast.parse(code))] == [BAD[code]]


PLUGIN_BOUNDARY = {
    "worldflux/plugins.py": "foreign code is imported and called here",
    "worldflux/references.py": "the code behind a spec's reference is imported here",
    "vector/faults.py": "an environment's own code runs here",
    "core/trial.py": "a caller's part runs here for the first time",
    "worldflux_play/play_session.py": "a family's and an environment's own code run here",
    "worldflux/hub.py": "a family's code is built here from what a saved folder says",
}


def blind(path: Path) -> list[str]:
    """`except Exception` that does not say why on its line, away from the plugin boundary."""
    if "/".join(path.parts[-2:]) in PLUGIN_BOUNDARY:
        return []
    lines = path.read_text("utf-8").splitlines()
    return [
        f"{label(path)}:{node.lineno} {lines[node.lineno - 1].strip()}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        if node.type is None or "Exception" in ast.unparse(node.type).strip("()").split(", ")
        if "# noqa: BLE001 - " not in lines[node.lineno - 1]
    ]


def own_means(path: Path) -> list[str]:
    """Masked means written by hand: of several ranks' their mean is another than that of all."""
    if path.parts[-2:] == ("worldflux", "distributed.py"):
        return []
    return [
        f"{label(path)}:{node.lineno} {ast.unparse(node)}: use worldflux.distributed.mean"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.expr) and (_sum_by_sum(node) or _mean_of_picked(node))
    ]


def _sum_by_sum(node: ast.expr) -> bool:
    """`(x * mask).sum() / mask.sum()`; sums over a named axis are no means of a batch."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Div):
        return False
    return all(".sum()" in ast.unparse(side) for side in (node.left, node.right))


def _mean_of_picked(node: ast.expr) -> bool:
    """`x[mask].mean()`."""
    function = node.func if isinstance(node, ast.Call) else None
    if not isinstance(function, ast.Attribute) or function.attr != "mean":
        return False
    picked = function.value
    return isinstance(picked, ast.Subscript) and "mask" in ast.unparse(picked.slice)


@pytest.mark.parametrize("code", ["(x * m).sum() / m.sum().clamp(min=1)", "x[batch.mask].mean()"])
def test_means_by_hand_are_found(code: str, tmp_path: Path) -> None:
    (tmp_path / "loss.py").write_text(f"y = {code}\nz = x.sum(-1) / x.mean() + x[0].mean()")
    assert len(own_means(tmp_path / "loss.py")) == 1


CHECKS = [violations, too_long, unsafe, blind, own_means]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_every_file_keeps_the_rules(project: Path, check: Callable[[Path], Iterable[str]]) -> None:
    assert not [text for path in SOURCES if project in path.parents for text in check(path)]


BROKEN = {
    violations: "from worldflux_train import loop",
    too_long: "def f():\n" + "    x = 1\n" * 60,
    unsafe: "print(1)",
    own_means: "loss = (x * mask).sum() / mask.sum()",
    blind: "try:\n    pass\nexcept (OSError, Exception):\n    pass",
}


@pytest.mark.parametrize("check", BROKEN, ids=lambda check: check.__name__)
def test_each_rule_notices_a_file_that_breaks_it(
    check: Callable[[Path], Iterable[str]], tmp_path: Path
) -> None:
    file = tmp_path / "src" / "worldflux_other" / "module.py"
    file.parent.mkdir(parents=True)
    file.write_text(BROKEN[check])
    assert len(list(check(file))) == 1


def modules_of(source: Path) -> dict[str, Path]:
    """Every module under a `src` folder, by its dotted name."""
    names = {path: path.relative_to(source).with_suffix("").parts for path in source.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items()}


def running_imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run some time: those in functions count, those for type checkers do not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        yield from running_imports(child)


def import_graph(source: Path) -> dict[str, set[str]]:
    """Which modules of a `src` folder each of them imports."""
    modules = modules_of(source)
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in running_imports(tree(path)):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            else:
                within = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [full if full in modules else str(node.module) for full in within]
            graph[name] |= {other for other in found if other in modules and other != name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import one another, after leaving out all that are in no circle."""
    rest = dict(graph)
    while True:
        free = [name for name, imported in rest.items() if not imported & rest.keys()]
        free += [name for name in rest if not any(name in rest[other] for other in rest)]
        if not free:
            break
        rest = {name: imported for name, imported in rest.items() if name not in free}
    return [[name, *sorted(rest[name] & rest.keys())] for name in sorted(rest)]


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_modules_import_one_another_in_one_direction(project: Path) -> None:
    assert not circles(import_graph(project / "src"))


def test_a_circle_through_a_function_is_found(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.py").write_text("from x import b\nfrom x.c import name")
    (tmp_path / "x" / "b.py").write_text("def f():\n    from x.a import f")
    (tmp_path / "x" / "c.py").write_text("if TYPE_CHECKING:\n    from x.a import f")
    assert circles(import_graph(tmp_path)) == [["x.a", "x.b"], ["x.b", "x.a"]]


@pytest.mark.parametrize("project", PACKAGES, ids=lambda path: path.name)
def test_packages_are_typed(project: Path) -> None:
    [package_folder] = [p for p in (project / "src").iterdir() if (p / "__init__.py").is_file()]
    assert (package_folder / "py.typed").is_file()
