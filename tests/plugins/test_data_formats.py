"""A data format of a third party: found by itself, read like ours, and kept from other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FORMAT = """
import numpy as np
from worldflux.columns import step_columns
from worldflux.specs import TensorSpec
from worldflux_train.data.formats import DataFormat, FormatOptions
from worldflux_train.data.formats.base import flag

class CsvOptions(FormatOptions):
    scale: float = 1.0
    "Factor of every number."

class Csv(DataFormat):
    Options = CsvOptions

    @classmethod
    def finds(cls, path):
        return any(path.glob("*.csv"))

    def __init__(self, path, options):
        self.values = [options.scale * np.loadtxt(f, delimiter=",", ndmin=2)
                       for f in sorted(path.glob("*.csv"))]
        self.lengths = np.array([len(v) for v in self.values])
        self.columns = step_columns({"state": TensorSpec(self.values[0].shape[1:])})

    def rows(self, number, column, index):
        if column.startswith("obs."):
            return self.values[number][index].astype("float32")
        return flag(column, len(self.values[number]), index)
"""
HOOK = """
from worldflux.hookspecs import hookimpl

@hookimpl
def worldflux_dataset_formats():
    return {{{name!r}: {where!r}}}
"""
READ = """
from pathlib import Path

import torch
from worldflux.columns import step_columns
from worldflux.specs import TensorSpec
from worldflux.training import Phase
from worldflux_train.config import DataConfig
from worldflux_train.data import open_data
from worldflux_train.data.formats import find_format

print(find_format(Path({path!r})))
data = open_data(DataConfig(path={path!r}, options={{"scale": 10.0}}), 0)
columns = step_columns({{"state": TensorSpec((2,))}})
source = data.source(columns, torch.device("cpu"))
batch = source.read(source.choose(Phase("p", 100, 3), 0))
print(len(data.episodes), tuple(batch.obs["state"].shape), float(batch.obs["state"].max()))
"""


def plugin(site: Any, name: str = "csv", where: str = "csv_format:Csv") -> None:
    files = {"csv_format.py": FORMAT, "csv_plugin.py": HOOK.format(name=name, where=where)}
    site.install("worldflux-csv", {"worldflux.plugins": {"csv": "csv_plugin"}}, files)


def recorded(folder: Path) -> str:
    folder.mkdir()
    for number in range(2):
        rows = [f"{t},{number}" for t in range(6)]
        (folder / f"{number}.csv").write_text("\n".join(rows))
    return str(folder)


def test_a_format_of_a_third_party_is_found_and_read(site: Any, tmp_path: Path) -> None:
    plugin(site)
    said = site.python(READ.format(path=recorded(tmp_path / "set")), WORLDFLUX_PLUGINS="csv")
    assert said.splitlines() == ["csv", "2 (100, 3, 2) 50.0"]


NAMES = """
from worldflux.errors import WorldFluxError
from worldflux_train.data.formats.registry import format_class, formats
try:
    print(format_class({name!r}))
except WorldFluxError as error:
    print(error)
"""


def test_a_name_that_is_taken_and_a_class_that_is_none(site: Any, tmp_path: Path) -> None:
    plugin(site, name="video")
    said = site.python(NAMES.format(name="video"), WORLDFLUX_PLUGINS="csv")
    assert "brings a data format 'video', which is there already" in said
    other = type(site)(tmp_path / "other")
    plugin(other, where="csv_format:CsvOptions")
    said = other.python(NAMES.format(name="csv"), WORLDFLUX_PLUGINS="csv")
    assert "which is no subclass of worldflux_train.data.formats.DataFormat" in said
