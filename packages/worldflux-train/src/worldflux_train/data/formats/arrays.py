"""Files of arrays in the layouts of others, as episodes: what HDF5, npz and npy files share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.columns import FLAGS, from_json
from worldflux.errors import ConfigError, StorageError
from worldflux.specs import TensorSpec
from worldflux.yaml_text import read_yaml
from worldflux_train.data.formats.base import FormatOptions, leave_out
from worldflux_train.data.formats.fields import Arrays, Fields, known_layout, named
from worldflux_train.data.formats.steps import (
    Part,
    StepFormat,
    Steps,
    columns_of,
    pictures,
    spec_of,
)

Array = NDArray[np.generic]


class ArrayOptions(FormatOptions):
    """Settings of `hdf5`, `npz` and `npy`."""

    fields: dict[str, Any] | str | None = None
    """What the arrays are called, or a YAML file that says so; None: a known layout."""


@dataclass(frozen=True)
class Place:
    """Where an episode lies: in a file, below a name, as rows of its arrays.

    `index` is its number in the first axis of an array of videos.
    """

    file: int
    below: str = ""
    first: int = 0
    rows: int = 0
    terminal: bool = False
    index: int | None = None


class ArrayFormat(StepFormat):
    """Episodes in files of arrays; a subclass finds and opens the files.

    Without the observation that followed the last step (`next_obs`, or a further row), an episode
    ends at its last observation: what its last action led to is not known.
    """

    Options = ArrayOptions
    columns_name = "columns"
    """Where a file in our own layout says what its columns are."""

    def __init__(self, path: Path, options: FormatOptions) -> None:
        assert isinstance(options, ArrayOptions), type(options)
        self.path, self.options, self.files = path, options, self.found(path)
        if not self.files:
            raise StorageError(f"{path} holds no such files.")
        own = self.own_columns(0)
        self._own = own is not None
        self.fields = Fields() if own is not None else self._fields(options)
        self._places = list(self._all_places())
        self.lengths = np.array([place.rows for place in self._places], np.int64)
        self.columns = from_json(own) if own is not None else self._columns()

    @classmethod
    @abstractmethod
    def found(cls, path: Path) -> list[Path]:
        """The files in `path`, in order."""

    @abstractmethod
    def arrays(self, file: int) -> Arrays:
        """The arrays of a file, read when they are sliced. Called by several threads."""

    @abstractmethod
    def own_columns(self, file: int) -> dict[str, Any] | None:
        """The columns of a file in our own layout, None of any other."""

    @classmethod
    def finds(cls, path: Path) -> bool:
        return bool(cls.found(path))

    def rows(self, number: int, column: str, index: slice) -> Array:
        if not self._own:
            return super().rows(number, column, index)
        place = self._places[number]
        return np.asarray(self.arrays(place.file)[f"{place.below}{column}"][index])

    def steps(self, number: int) -> Steps:
        place, fields = self._places[number], self.fields
        arrays = self.arrays(place.file)

        def part(name: str) -> Part:
            values = named(arrays, place.below + name)
            return _part(values, place)

        def observed(key: str, name: str) -> Part:
            shown = part(name)
            if key in fields.next_obs:
                last = place.rows - 2  # of the transitions
                following = part(fields.next_obs[key])
                shown = _followed(shown, lambda: following(slice(last, last + 1)), last + 1)
            return pictures(shown)

        return Steps(
            place.rows,
            {key: observed(key, name) for key, name in fields.obs.items()},
            None if fields.action is None else self._scaled(part(fields.action)),
            None if fields.reward is None else part(fields.reward),
            place.terminal,
            {key: part(name) for key, name in fields.extra.items()},
        )

    def about(self, number: int) -> dict[str, Any]:
        place = self._places[number]
        inside = place.below.strip("/") or (f"row {place.first}" if place.first else "")
        inside = f"video {place.index}" if place.index is not None else inside
        return {"file": f"{self.files[place.file]} {inside}".strip()}

    def _scaled(self, part: Part) -> Part:
        if self.fields.low is None or self.fields.high is None:
            return part
        low, high = (np.asarray(x, np.float32) for x in (self.fields.low, self.fields.high))
        return lambda index: (part(index).astype(np.float32) - low) / (high - low) * 2 - 1

    # Opening

    def _fields(self, options: ArrayOptions) -> Fields:
        given = options.fields
        if given is None:
            found = known_layout(self.arrays(0))
            if found is None:
                known = ", ".join(sorted(self.arrays(0))[:12])
                raise StorageError(
                    f"{self.files[0]} is in no known layout; it has: {known}. Say what they are "
                    "with data.options.fields (see docs/data.md)."
                )
            return found
        values = read_yaml(Path(given)) if isinstance(given, str) else given
        try:
            return Fields(**values)
        except ConfigError as error:
            raise ConfigError(str(error).replace("Fields", "data.options.fields")) from None

    def _all_places(self) -> Iterator[Place]:
        for file in range(len(self.files)):
            try:
                places = list(self._places_in(file))
            except (OSError, ValueError, StorageError) as error:
                leave_out(StorageError(f"{self.files[file]}: {error}"), self.options)
            else:
                yield from places

    def _places_in(self, file: int) -> Iterator[Place]:
        arrays, layout = self.arrays(file), self.fields.layout
        if self._own:
            for below in _groups(arrays, ""):
                yield Place(file, f"{below}/", rows=len(arrays[f"{below}/{FLAGS[0]}"]))
        elif layout == "videos":
            count, rows = named(arrays, next(iter(self.fields.obs.values()))).shape[:2]
            yield from (Place(file, rows=rows, index=number) for number in range(count))
        elif layout == "flat":
            yield from self._cut(file, arrays)
        elif layout == "groups":
            for below in _groups(arrays, self.fields.episodes):
                yield self._whole(file, arrays, f"{below}/")
        else:
            yield self._whole(file, arrays, "")

    def _whole(self, file: int, arrays: Arrays, below: str) -> Place:
        """An episode that has arrays of its own."""
        fields = self.fields
        seen = len(named(arrays, below + next(iter(fields.obs.values()))))
        if fields.action is None:
            return Place(file, below, rows=seen)
        acted = len(named(arrays, below + fields.action))
        if seen not in (acted, acted + 1) or not acted:
            raise StorageError(f"{below or 'it '}has {seen} observations and {acted} actions.")
        last = bool(fields.terminal) and bool(
            named(arrays, below + str(fields.terminal))[acted - 1]
        )
        rows = acted + 1 if fields.next_obs else seen
        return Place(file, below, 0, rows, last and rows == acted + 1)

    def _cut(self, file: int, arrays: Arrays) -> Iterator[Place]:
        """Episodes one after another, cut where they end."""
        fields, following = self.fields, bool(self.fields.next_obs)
        count = len(named(arrays, next(iter(fields.obs.values()))))
        over = np.zeros(count, bool)
        terminal = over.copy()
        if fields.terminal is not None:
            terminal = np.asarray(named(arrays, fields.terminal)[:]).reshape(count).astype(bool)
        if fields.timeout is not None:
            over = np.asarray(named(arrays, fields.timeout)[:]).reshape(count).astype(bool)
        first = 0
        for last in [*np.flatnonzero(over | terminal).tolist(), count - 1]:
            if last >= first:
                rows = last - first + 1 + following
                yield Place(file, "", first, rows, bool(terminal[last]) and following)
                first = last + 1

    def _columns(self) -> Any:
        fields = self.fields
        if not fields.obs:
            raise ConfigError("data.options.fields: obs names no observation.")
        steps = self.steps(0)
        obs = {key: spec_of(part(slice(0, 1))) for key, part in steps.obs.items()}
        extra = {key: spec_of(part(slice(0, 1))) for key, part in steps.extra.items()}
        action = None if steps.action is None else self._action_spec(steps.action)
        return columns_of(obs, action, steps.reward is not None, extra)

    def _action_spec(self, part: Part) -> TensorSpec:
        first = spec_of(part(slice(0, 1)), bound=True)
        if not first.discrete:
            return first
        if self.fields.choices is not None:
            return replace(first, n=self.fields.choices)
        most = 0
        for number in range(len(self)):
            action = self.steps(number).action
            assert action is not None
            taken = action(slice(0, max(1, int(self.lengths[number]) - 1)))
            most = max(most, int(np.max(taken, initial=0)))
        return replace(first, n=most + 1)


def _part(values: Any, place: Place) -> Part:
    """Rows of an array from the episode's first on; only these are read."""

    def read(index: slice) -> Array:
        begin, end = place.first + index.start, place.first + index.stop
        rows = slice(begin, end, index.step or 1)
        return np.asarray(values[rows] if place.index is None else values[place.index, rows])

    return read


def _followed(part: Part, last: Callable[[], Array], count: int) -> Part:
    """`count` rows, and a further one."""

    def read(index: slice) -> Array:
        if index.stop <= count:
            return part(index)
        step = index.step or 1
        taken = range(index.start, index.stop, step)
        before = [row for row in taken if row < count]
        found = [part(slice(before[0], before[-1] + 1, step))] if before else []
        found += [last()] if len(before) < len(taken) else []
        return np.concatenate(found)

    return read


def _groups(arrays: Arrays, below: str) -> list[str]:
    """The groups in a group, in the order of their numbers."""
    head = f"{below}/" if below else ""
    names = {name.removeprefix(head).split("/")[0] for name in arrays
             if name.startswith(head) and "/" in name.removeprefix(head)}  # fmt: skip
    return [head + name for name in sorted(names, key=_numbered)]


def _numbered(name: str) -> tuple[str, int, str]:
    head = name.rstrip("0123456789")
    tail = name[len(head) :]
    return head, int(tail) if tail else -1, name
