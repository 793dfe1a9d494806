"""Kinds of recorded data, each read as episodes: what is found in a folder, and how to open it."""

from worldflux_train.data.formats.base import DataFormat, FormatOptions
from worldflux_train.data.formats.registry import find_format, formats, open_recorded

__all__ = ["DataFormat", "FormatOptions", "find_format", "formats", "open_recorded"]
