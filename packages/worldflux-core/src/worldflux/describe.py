"""How our objects show themselves in a console, an editor and a notebook: a few lines each.

Tensors are recognised by their attributes, so that configurations and runs need no torch here. A
`repr` never raises: what holds something unexpected is shown too, shortened.
"""

from __future__ import annotations

import html
import reprlib
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

Row = tuple[str, str]
"""A name, and what it is."""
WIDTH = 100
_MOST_NAMES = 40  # a plain State in a dictionary of hundreds is cut here
_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxother, _SHORT.maxlevel = 60, 60, 2


class Described:
    """A base whose `repr` is a title and a line per thing it holds, and a table in a notebook.

    For a dataclass with `repr=False`: its fields that are not None or empty.
    """

    def described(self) -> tuple[str, list[Row]]:
        """The title, and a (name, what it is) row for each thing held."""
        held: list[Row] = []
        for item in fields(self):  # type: ignore[arg-type]
            if item.repr:
                held += rows(item.name, getattr(self, item.name, None))
        return titled(type(self).__name__, self.sizes(), held)

    def sizes(self) -> str:
        """What the title says after the name, such as "B=16, T=64"."""
        return ""

    def __repr__(self) -> str:
        return text(*self.described())

    def _repr_html_(self) -> str:
        return table(*self.described())


def rows(name: str, value: Any) -> Iterator[Row]:
    """Rows of one value: of each tensor in a mapping, or of what its own rows are."""
    if value is None or (isinstance(value, Mapping | list | tuple) and not value):
        return
    if hasattr(value, "described"):
        yield from ((f"{name}.{inner}".rstrip("."), what) for inner, what in value.described()[1])
    elif isinstance(value, Mapping) and any(map(_shown_alone, value.values())):
        for key, part in value.items():
            yield from rows(f"{name}.{key}", part)
    else:
        yield name, short(value)


def short(value: Any) -> str:
    """One value in a few words: of a tensor its shape, type and (of one number) its value."""
    if not is_array(value):
        return " ".join(_SHORT.repr(value).split())
    shape, kind = tuple(value.shape), str(value.dtype).removeprefix("torch.")
    return f"{shape} {kind}" if shape else f"{_number(value)}{kind}"


def _number(value: Any) -> str:
    if str(getattr(value, "device", "cpu")) == "meta":
        return ""
    try:
        return f"{value.item():.6g} "
    except (RuntimeError, TypeError, ValueError):  # traced or under vmap: it has no value yet
        return ""


def _shown_alone(value: Any) -> bool:
    """Whether a mapping with this in it has a row per key, not one in all."""
    return is_array(value) or isinstance(value, Described | float)


def is_array(value: Any) -> bool:
    """Whether this is a tensor or an array."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def on(arrays: Iterable[Any]) -> str:
    """The device of these tensors, or all of them where they differ; empty without any."""
    return ", ".join(dict.fromkeys(str(x.device) for x in arrays if hasattr(x, "device")))


def titled(name: str, sizes: str, held: list[Row]) -> tuple[str, list[Row]]:
    """A title out of the parts that are not empty, and the rows, cut where there are too many."""
    more = len(held) - _MOST_NAMES
    if more > 0:
        held = [*held[:_MOST_NAMES], ("...", f"and {more} more")]
    return f"{name}({sizes})" if sizes else name if held else f"{name}()", held


def text(title: str, held: list[Row]) -> str:
    """The title and a line per row, names in one column; long values are wrapped."""
    wide = min(max((len(name) for name, _ in held), default=0), 40)
    lines = [title]
    for name, what in held:
        lines += textwrap.wrap(
            what, WIDTH, initial_indent=f"  {name:{wide}}  ",
            subsequent_indent=" " * (wide + 4), break_long_words=False, break_on_hyphens=False,
        ) or [f"  {name}"]  # fmt: skip
    return "\n".join(lines)


def table(title: str, held: Iterable[tuple[str, ...]]) -> str:
    """The same as an HTML table, for notebooks; its rows may have further cells."""
    left = 'style="text-align:left"'
    body = "".join(
        f"<tr><th {left}>{html.escape(name)}</th>"
        + "".join(f"<td {left}>{html.escape(what)}</td>" for what in cells)
        + "</tr>"
        for name, *cells in held
    )
    return f"<table><caption>{html.escape(title)}</caption>{body}</table>"
