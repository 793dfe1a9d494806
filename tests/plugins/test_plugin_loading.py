"""Failure behaviour of plugins, each with a distribution that is really installed."""

from __future__ import annotations

from typing import Any

import pytest

ASK = """
from worldflux import get_model_spec
from worldflux.errors import WorldFluxError
for name in {names!r}:
    try:
        print(get_model_spec(name).description)
    except WorldFluxError as error:
        print(type(error).__name__, str(error))
"""


def asked(site: Any, *names: str, **environment: str) -> str:
    return site.python(ASK.format(names=names), **environment)


def test_listing_imports_no_plugin(site: Any) -> None:
    site.family("worldflux-slow", "slow_ring", before="import time; time.sleep(600)\n")
    site.family("worldflux-bad", "bad_ring", before="raise RuntimeError('at import')\n")
    names = site.python("import worldflux; print(worldflux.list_models())")
    assert "'slow-ring'" in names and "'bad-ring'" in names


def test_asking_for_one_family_loads_no_other(site: Any) -> None:
    site.family("worldflux-one", "one", about="first")
    site.family("worldflux-slow", "slow_ring", before="import time; time.sleep(600)\n")
    assert asked(site, "one", "worldflux-one::one:small", "ONE") == "first\nfirst\nfirst"


IMPORT = "from worldflux.hookspecs import hookimpl\n"
BROKEN = {
    "raises at import": ("raise RuntimeError('at import')", "RuntimeError: at import"),
    "exits at import": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "syntax": ("def (", "SyntaxError"),
    "missing dependency": ("import surely_not_there", "No module named 'surely_not_there'"),
    "no hook": ("x = 1", "must return a list of ModelSpec, it returned []"),
    "not marked": ("def worldflux_models(): return []", "must return a list of ModelSpec"),
    "misspelt hook": (IMPORT + "@hookimpl\ndef worldflux_model(): return []", "unknown hook"),
    "hook with arguments": (
        IMPORT + "@hookimpl\ndef worldflux_models(app): return []",
        "Argument(s) {'app'} are declared",
    ),
    "hook raises": (IMPORT + "@hookimpl\ndef worldflux_models(): 1 / 0", "ZeroDivisionError"),
    "no list": (IMPORT + "@hookimpl\ndef worldflux_models(): return 3", "not iterable"),
    "generator raises": (
        IMPORT + "@hookimpl\ndef worldflux_models():\n    yield 1 / 0",
        "ZeroDivisionError",
    ),
    "no specs": (IMPORT + "@hookimpl\ndef worldflux_models(): return ['ring']", "it returned"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_an_error_only_when_asked_for(site: Any, kind: str) -> None:
    code, reason = BROKEN[kind]
    entry = {"worldflux.models": {"bad": "bad_plugin"}}
    site.install("worldflux-bad", entry, {"bad_plugin.py": code})
    site.family("worldflux-good", "good", about="still here")
    before, rest = asked(site, "good", "bad", "good").split("\n", 1)
    error, after = rest.rsplit("\n", 1)
    assert before == after == "still here"
    assert error.startswith("PluginLoadError Plugin 'bad' of worldflux-bad 1.0 (bad_plugin)")
    assert reason in error


def test_the_error_carries_the_traceback_each_time(site: Any) -> None:
    before = "def deep():\n    raise RuntimeError('far down')\ndeep()\n"
    site.family("worldflux-bad", "bad", before=before)
    report = asked(site, "bad", "bad")
    assert report.count('bad.py", line 2, in deep') == 2


def test_a_missing_module_is_reported(site: Any) -> None:
    site.install("worldflux-bad", {"worldflux.models": {"bad": "not_shipped"}}, {})
    assert "ModuleNotFoundError: No module named 'not_shipped'" in asked(site, "bad")


def test_plugins_lists_the_broken_one_with_its_traceback(site: Any) -> None:
    site.family("worldflux-bad", "bad", before="raise RuntimeError('at import')\n")
    site.install("worldflux-odd", {"worldflux.models": {"odd": "odd"}}, {"odd.py": ""})
    site.family("worldflux-good", "good")
    done = site.cli("plugins")
    assert done.returncode == 0, done.stderr
    status = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line}
    assert (status["good"], status["bad"], status["odd"]) == ("ok", "broken", "broken")
    assert "Traceback" in done.stdout and "RuntimeError: at import" in done.stdout
    assert "it returned []" in done.stdout


def test_two_distributions_with_one_id_clash_only_when_unqualified(site: Any) -> None:
    site.family("worldflux-a", "twin_a", family="twin", about="a's")
    site.family("worldflux-b", "twin_b", family="twin", about="b's")
    site.family("worldflux-c", "other", about="c's")
    error, *rest = asked(
        site, "twin:small", "worldflux-a::twin", "WorldFlux_B::twin:small", "other"
    ).splitlines()
    assert error == (
        "UnknownIdError 2 distributions provide the model family 'twin'. "
        "Say which: worldflux-a::twin or worldflux-b::twin."
    )
    assert rest == ["a's", "b's", "c's"]
    listed = site.python("import worldflux; print(*worldflux.list_models())").split()
    assert {"worldflux-a::twin", "worldflux-b::twin", "other"} <= set(listed)
    assert "twin" not in listed


def test_an_incompatible_plugin_is_refused_before_its_code_runs(site: Any) -> None:
    ran = "import pathlib; pathlib.Path('ran').touch()\n"
    site.family("worldflux-new", "new", requires=["worldflux-core>=9,<10"], before=ran)
    report = asked(site, "new")
    assert "it needs worldflux-core<10,>=9, but worldflux-core" in report
    assert "Run: pip install --upgrade worldflux-new worldflux-core" in report
    assert "Traceback" not in report
    assert not (site.folder / "ran").exists()


@pytest.mark.parametrize(
    "requirement",
    ["worldflux_core>=0.0.1", "worldflux-core>=9; python_version<'3'", "numpy>=99", None],
)
def test_only_what_applies_to_core_is_checked(site: Any, requirement: str | None) -> None:
    site.family("worldflux-ok", "fine", requires=[requirement] if requirement else [])
    assert asked(site, "fine") == "fake"


def test_aliases_are_second_names_and_what_the_spec_says(site: Any) -> None:
    site.family(
        "worldflux-ring", "ring_wm", names=("ring-wm", "ringlet"), aliases=("Ring_World", "torus")
    )
    assert asked(site, "ring_wm", "Ringlet:small", "ring-world", "worldflux-ring::torus") == (
        "fake\nfake\nfake\nfake"
    )


def test_an_alias_of_a_second_family_gives_that_family(site: Any) -> None:
    two = """
    import dataclasses
    import one_family
    from worldflux.hookspecs import hookimpl
    @hookimpl
    def worldflux_models():
        [spec] = one_family.worldflux_models()
        more = dict(family="second", aliases=("zwei",), description="2")
        return [spec, dataclasses.replace(spec, **more)]
    """
    site.family("worldflux-first", "one_family", about="1")
    names = {"one": "two_families", "second": "two_families"}
    site.install("worldflux-two", {"worldflux.models": names}, {"two_families.py": two})
    assert asked(site, "second", "zwei") == "2\n2"
    assert "provides no model family 'one'. Its own: one_family, second." in asked(site, "one")


def test_worldflux_plugins_lets_in_only_those(site: Any) -> None:
    site.family("worldflux-a", "aaa")
    site.family("worldflux-b", "bbb")
    listed = "import worldflux; print(worldflux.list_models())"
    assert site.python(listed, WORLDFLUX_PLUGINS="worldflux_a") == "['aaa']"
    assert site.python(listed, WORLDFLUX_PLUGINS="BBB, aaa") == "['aaa', 'bbb']"
    assert site.python(listed, WORLDFLUX_PLUGINS="") == "[]"
    report = asked(site, "bbb", WORLDFLUX_PLUGINS="aaa")
    assert report.endswith("Installed: aaa. WORLDFLUX_PLUGINS=aaa is set.")


def test_unreadable_metadata_hides_no_other_distribution(site: Any) -> None:
    site.family("worldflux-good", "good")
    site.install("worldflux-bad", {}, {})
    bad = site.folder / "worldflux_bad-1.0.dist-info" / "entry_points.txt"
    bad.write_bytes(b"[worldflux.models]\n\xff = x\n")
    done = site.run("-c", "import worldflux; print(worldflux.list_models())")
    assert "'good'" in done.stdout
    assert "Unreadable metadata in" in done.stderr


def test_code_behind_a_spec_that_does_not_load_is_the_plugins_fault(site: Any) -> None:
    site.family("worldflux-half", "half", model="half_model:Model")
    (site.folder / "half_model.py").write_text("import surely_not_there\n")
    report = site.python("""
        import worldflux
        try:
            worldflux.create_world_model("half")
        except worldflux.WorldFluxError as error:
            print(type(error).__name__, error)
        """)
    assert report.startswith("PluginLoadError half_model:Model cannot be loaded: Module")
    assert 'half_model.py", line 1' in report
