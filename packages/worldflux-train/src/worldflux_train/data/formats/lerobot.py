"""`lerobot`: version 3 of LeRobot's format. Tables in parquet files, cameras in long video files.

Many episodes share a file; `meta/episodes` says from which row and second to which each one goes.
"""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from worldflux.atomic import read_text
from worldflux.errors import StorageError
from worldflux.specs import TensorSpec
from worldflux_train.data.formats.base import FormatOptions
from worldflux_train.data.formats.steps import Part, StepFormat, Steps, columns_of
from worldflux_train.data.formats.timelines import Timeline, decoded, timeline

INFO = "meta/info.json"
_SEEN = "observation."
_NEXT = ("next.reward", "next.done")
Array = NDArray[np.generic]


class LeRobotOptions(FormatOptions):
    """Settings of `lerobot`."""

    keys: tuple[str, ...] = Field(default=())
    """Observations to take, as the set names them; none: all under `observation.`."""
    low: tuple[float, ...] | float | None = None
    """Lowest actions, scaled to -1; None: those in the set's own statistics."""
    high: tuple[float, ...] | float | None = None
    """Highest actions, scaled to 1."""


class LeRobot(StepFormat):
    """Episodes of a LeRobot set. Actions are scaled to [-1, 1] by their extremes."""

    Options = LeRobotOptions

    @classmethod
    def finds(cls, path: Path) -> bool:
        return (path / INFO).is_file()

    def __init__(self, path: Path, options: FormatOptions) -> None:
        assert isinstance(options, LeRobotOptions), type(options)
        self.path, self.info = path, json.loads(read_text(path / INFO))
        version = str(self.info.get("codebase_version"))
        if not version.startswith("v3"):
            raise StorageError(
                f"{path} is LeRobot's format {version}, this reads v3. Convert it with LeRobot's "
                "own script (convert_dataset_v21_to_v30)."
            )
        self.features: dict[str, Any] = self.info["features"]
        known = [key for key in self.features if key.startswith(_SEEN)]
        missing = [key for key in options.keys if key not in self.features]
        if missing or not known:
            raise StorageError(f"{path} has no {', '.join(missing) or 'observations'}; it has: "
                               f"{', '.join(self.features)}.")  # fmt: skip
        self.keys = list(options.keys or known)
        self._tables: dict[Path, Any] = {}
        self._lines: dict[Path, Timeline] = {}
        self._lock = threading.RLock()
        self._episodes = self._read_episodes()
        self.lengths = np.array([int(own["length"]) for own in self._episodes], np.int64)
        self._scale = self._action_scale(options)
        self.columns = columns_of(
            {_bare(key): self._spec(key) for key in self.keys},
            self._action_spec(), "next.reward" in self.features,
        )  # fmt: skip

    def steps(self, number: int) -> Steps:
        own = self._episodes[number]
        action = self._table(own, "action") if "action" in self.features else None
        reward = self._table(own, _NEXT[0]) if _NEXT[0] in self.features else None
        return Steps(
            int(own["length"]),
            {_bare(key): self._observed(own, key) for key in self.keys},
            None if action is None else lambda index: self._scaled(action(index)),
            None if reward is None else lambda index: reward(index).reshape(-1),
        )

    def about(self, number: int) -> dict[str, Any]:
        own = self._episodes[number]
        return {"file": f"{self.path} episode {int(own['episode_index'])}"}

    # What there is

    def _read_episodes(self) -> list[dict[str, Any]]:
        files = sorted((self.path / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
        if not files:
            raise StorageError(f"{self.path} has no meta/episodes: it is not whole.")
        found = []
        for file in files:
            table = _parquet(file)
            names = [name for name in table.column_names if not name.startswith("stats/")]
            found += table.select(names).to_pylist()
        return sorted(found, key=lambda own: int(own["episode_index"]))

    def _spec(self, key: str) -> TensorSpec:
        feature = self.features[key]
        shape = tuple(int(size) for size in feature["shape"])
        if feature["dtype"] in ("video", "image"):
            if shape[-1] in (1, 3) and shape[0] not in (1, 3):
                shape = (shape[2], shape[0], shape[1])
            return TensorSpec(shape, "uint8", low=0, high=255)
        return TensorSpec(shape, "float32" if "float" in feature["dtype"] else feature["dtype"])

    def _action_spec(self) -> TensorSpec | None:
        if "action" not in self.features:
            return None
        shape = tuple(int(size) for size in self.features["action"]["shape"])
        return TensorSpec(shape, "float32", low=-1.0, high=1.0)

    def _action_scale(self, options: LeRobotOptions) -> tuple[Array, Array] | None:
        low, high = options.low, options.high
        stats = self.path / "meta" / "stats.json"
        if low is None and high is None and stats.is_file():
            own = json.loads(read_text(stats)).get("action", {})
            low, high = own.get("min"), own.get("max")
        if low is None or high is None:
            return None
        return np.asarray(low, np.float32), np.asarray(high, np.float32)

    def _scaled(self, action: Array) -> Array:
        if self._scale is None:
            return action
        low, high = self._scale
        span = np.where(high > low, high - low, 1)  # type: ignore[operator]
        scaled: Array = (action - low) / span * 2 - 1  # type: ignore[operator]
        return np.clip(scaled, -1, 1)

    # Reading

    def _observed(self, own: dict[str, Any], key: str) -> Part:
        kind = self.features[key]["dtype"]
        if kind == "video":
            return self._camera(own, key)
        rows = self._table(own, key)
        if kind == "image":
            return lambda index: np.stack([_picture(item) for item in rows(index)])
        return rows

    def _table(self, own: dict[str, Any], key: str) -> Part:
        file = self._file("data_path", own, "data/")

        def read(index: slice) -> Array:
            table = self._opened(file)
            first = int(own["dataset_from_index"]) - int(table["index"][0].as_py())
            taken = np.arange(index.start, index.stop, index.step or 1) + first
            column = table[key].take(taken)
            return np.asarray(column.to_pylist())

        return read

    def _camera(self, own: dict[str, Any], key: str) -> Part:
        file = self._file("video_path", own, f"videos/{key}/", video_key=key)

        def read(index: slice) -> Array:
            line = self._line(file)
            seconds = (line.times - line.times[0]) * line.unit
            begin = float(own[f"videos/{key}/from_timestamp"])
            first = int(np.searchsorted(seconds, begin - 0.5 / line.fps))
            return decoded(file, line, np.arange(first + index.start, first + index.stop,
                                                 index.step or 1), None)  # fmt: skip

        return read

    def _file(self, kind: str, own: dict[str, Any], prefix: str, **names: str) -> Path:
        chunk, file = (int(own[f"{prefix}{part}"]) for part in ("chunk_index", "file_index"))
        return self.path / self.info[kind].format(chunk_index=chunk, file_index=file, **names)

    def _opened(self, file: Path) -> Any:
        with self._lock:
            if file not in self._tables:
                if len(self._tables) > 8:
                    self._tables.pop(next(iter(self._tables)))
                self._tables[file] = _parquet(file)
            return self._tables[file]

    def _line(self, file: Path) -> Timeline:
        with self._lock:
            if file not in self._lines:
                self._lines[file] = timeline(file)
            return self._lines[file]


def _bare(key: str) -> str:
    """`observation.images.top` as `images_top`; columns have no further dots."""
    return key.removeprefix(_SEEN).replace(".", "_")


def _picture(item: Any) -> NDArray[np.uint8]:
    """An image in a table, as uint8 (C, Y, X)."""
    data = item["bytes"] if isinstance(item, dict) else item
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    found: NDArray[np.uint8] = pixels.transpose(2, 0, 1)
    return found


def _parquet(file: Path) -> Any:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise StorageError(
            "Reading LeRobot's sets needs pyarrow: pip install 'worldflux-train[data]'"
        ) from error
    try:
        return parquet.read_table(file)
    except (OSError, ArrowInvalid) as error:
        raise StorageError(f"{file} cannot be read as parquet: {error}.") from error
