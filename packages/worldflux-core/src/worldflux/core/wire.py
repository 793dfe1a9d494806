"""The binary form of a State: prefix, JSON header padded to 64 bytes, raw little-endian tensors."""

from __future__ import annotations

import ctypes
import json
import math
import reprlib
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from worldflux.errors import StateError, did_you_mean

Bytes: TypeAlias = bytes | bytearray | memoryview

MAGIC = b"WFST"
VERSION = 1
PREFIX = struct.Struct(">4sBI")  # magic, version id, length of the JSON header
ALIGNMENT = 64
MAX_META_DEPTH = 64
MAX_RANK = 64  # the most axes torch and numpy work with
_INT64_MAX = 2**63 - 1

# Widest first; a dtype that this torch does not know yet is left out.
DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in (
        *("complex128", "complex64", "float64", "int64", "uint64"),
        *("complex32", "float32", "int32", "uint32"),
        *("float16", "bfloat16", "int16", "uint16"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
        *("float4_e2m1fn_x2", "int8", "uint8", "bool"),
    )
    if hasattr(torch, name)
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorRecord:
    """Where the header says how to read one tensor's bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "nbytes": self.nbytes,
        }

    @classmethod
    def from_json(cls, entry: Any) -> TensorRecord:
        """Read one entry of the header; its shape times its item size must be its bytes."""
        keys = {"name": str, "dtype": str, "shape": list, "nbytes": int}
        if not isinstance(entry, dict) or any(
            type(entry.get(key)) is not kind for key, kind in keys.items()
        ):
            raise StateError(
                f"a tensor's entry must hold name, dtype, shape and nbytes, got {_short(entry)}"
            )
        name, dtype, shape, nbytes = (entry[key] for key in keys)
        if dtype not in DTYPES:
            raise StateError(
                f"tensor {name!r:.120} has unknown dtype {dtype!r:.120}."
                f"{did_you_mean(dtype[:40], DTYPES)}"
            )
        itemsize = DTYPES[dtype].itemsize
        _require_shape(name, shape, itemsize)
        if math.prod(shape) * itemsize != nbytes:
            raise StateError(
                f"tensor {name!r:.120}: shape {shape} of {dtype} takes "
                f"{math.prod(shape) * itemsize} bytes, but its entry says {nbytes}"
            )
        return cls(name, dtype, tuple(shape), nbytes)


@dataclass(frozen=True)
class Header:
    """Everything about a State but the numbers; `records` in storage order, `order` the State's."""

    records: tuple[TensorRecord, ...]
    order: tuple[str, ...]
    meta: dict[str, Any]

    @property
    def tensor_bytes(self) -> int:
        return sum(record.nbytes for record in self.records)

    def to_json(self) -> dict[str, Any]:
        tensors = [record.to_json() for record in self.records]
        return {"tensors": tensors, "order": list(self.order), "meta": self.meta}

    def difference(self, other: Header) -> str:
        """What `self` says and `other` does not, or an empty string."""
        for mine, theirs in zip_longest(self.records, other.records):
            if mine != theirs:
                return f"{mine} against {theirs}"
        if self.order != other.order or self.meta != other.meta:
            return f"{self.order}, {self.meta} against {other.order}, {other.meta}"
        return ""

    @classmethod
    def from_json(cls, fields: Any) -> Header:
        kinds = {"tensors": list, "order": list, "meta": dict}
        if not isinstance(fields, dict) or any(
            not isinstance(fields.get(key), kind) for key, kind in kinds.items()
        ):
            raise StateError(
                f"a State's header must hold tensors, order and meta, got {_short(fields)}"
            )
        records = tuple(TensorRecord.from_json(entry) for entry in fields["tensors"])
        names = [record.name for record in records]
        order = fields["order"]
        if (
            len(set(names)) != len(names)
            or any(type(name) is not str for name in order)
            or (sorted(order) != sorted(names))
        ):
            raise StateError(
                f"order {_short(order)} does not name each tensor of {_short(names)} once"
            )
        check_meta(fields["meta"])  # what is read can be written again
        return cls(records, tuple(order), fields["meta"])

    def encode(self) -> bytes:
        """Prefix and JSON, padded with spaces so that what follows starts at a multiple of 64."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":")).encode()
        text += b" " * (-(PREFIX.size + len(text)) % ALIGNMENT)
        return PREFIX.pack(MAGIC, VERSION, len(text)) + text


def encode(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> tuple[Header, list[Bytes]]:
    """Header and the chunks that, joined, are the payload; chunks alias contiguous CPU tensors."""
    _require_little_endian()
    host = {name: _on_host(name, tensor) for name, tensor in tensors.items()}
    # Widest items first: every tensor is then aligned to its item size without gaps between them.
    stored = sorted(host, key=lambda name: -host[name].itemsize)
    records = tuple(
        TensorRecord(name, _NAMES[t.dtype], tuple(t.shape), t.numel() * t.itemsize)
        for name, t in ((name, host[name]) for name in stored)
    )
    header = Header(records, tuple(tensors), as_json(meta))
    return header, [header.encode(), *(_raw_bytes(host[name]) for name in stored)]


def decode(data: Bytes, copy: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and meta of a payload; without `copy`, tensors alias `data` and keep it alive."""
    payload = as_bytes_view(data)
    header, start = read_header(payload)
    held, needed = len(payload) - start, header.tensor_bytes
    if held < needed:
        raise StateError(f"truncated payload: its tensors take {needed} bytes, it holds {held}")
    if held > needed:
        raise StateError(f"{held - needed} trailing bytes after the last tensor of the payload")
    views = view_tensors(header, payload, start)
    return {k: t.clone() if copy else t for k, t in views.items()}, header.meta


def read_header(payload: memoryview) -> tuple[Header, int]:
    """Header of a payload and the offset of its first tensor byte."""
    _require_little_endian()
    if payload[:4] != MAGIC[: len(payload)]:
        raise StateError(
            f"not a serialised State: its magic is {bytes(payload[:4])!r}, not {MAGIC!r}"
        )
    if len(payload) < PREFIX.size:
        raise StateError(f"truncated payload: {len(payload)} bytes, the prefix takes {PREFIX.size}")
    _, version, length = PREFIX.unpack_from(payload)
    if version != VERSION:
        raise StateError(f"unknown State version {version}; this WorldFlux reads version {VERSION}")
    start = PREFIX.size + length
    if len(payload) < start:
        raise StateError(
            f"truncated payload: its header takes {length} bytes, "
            f"{len(payload) - PREFIX.size} follow the prefix"
        )
    try:
        fields = json.loads(bytes(payload[PREFIX.size : start]), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StateError(f"the header of the payload is not valid JSON: {error}") from error
    return Header.from_json(fields), start


def view_tensors(header: Header, payload: memoryview, start: int) -> dict[str, Tensor]:
    """Tensors over the bytes of `payload`, in the State's order; misaligned ones copied."""
    source, address = _exporter(payload)
    tensors, offset = {}, start
    for record in header.records:
        dtype = DTYPES[record.dtype]
        if record.nbytes == 0:
            tensors[record.name] = torch.empty(record.shape, dtype=dtype)
        elif (address + offset) % dtype.itemsize == 0:
            count = record.nbytes // dtype.itemsize
            flat = torch.frombuffer(source, dtype=dtype, count=count, offset=offset)
            tensors[record.name] = flat.view(record.shape)
        else:
            chunk = bytearray(payload[offset : offset + record.nbytes])
            tensors[record.name] = torch.frombuffer(chunk, dtype=dtype).view(record.shape)
        offset += record.nbytes
    return {name: tensors[name] for name in header.order}


def as_bytes_view(data: Bytes) -> memoryview:
    """`data` as a flat view of bytes, which holds a buffer export for as long as it lives."""
    try:
        return memoryview(data).cast("B")
    except TypeError as error:
        raise StateError(
            f"a serialised State is bytes, a bytearray or a contiguous memoryview, "
            f"got {type(data).__name__}: {error}"
        ) from error


def as_json(meta: Mapping[str, Any]) -> dict[str, Any]:
    """`meta` as it will come back: a copy in which tuples are lists."""
    check_meta(meta)
    try:
        copy: dict[str, Any] = json.loads(json.dumps(meta))
    except ValueError as error:  # an int of thousands of digits
        raise StateError(f"meta cannot be written as JSON: {error}") from error
    return copy


def check_meta(meta: Any, path: tuple[str | int, ...] = ()) -> None:
    """Raise `StateError` naming the first entry of `meta` that JSON cannot hold."""
    if meta is None or isinstance(meta, bool | int | str):
        return
    if isinstance(meta, float) and math.isfinite(meta):
        return
    if len(path) < MAX_META_DEPTH and isinstance(meta, list | tuple):
        for index, value in enumerate(meta):
            check_meta(value, (*path, index))
        return
    if len(path) < MAX_META_DEPTH and isinstance(meta, dict) and all(type(k) is str for k in meta):
        for key, value in meta.items():
            check_meta(value, (*path, key))
        return
    where = "meta" + "".join(f"[{part!r:.40}]" for part in path)
    raise StateError(
        f"{where:.400} is a {type(meta).__name__} that JSON cannot hold: {_short(meta)}. "
        f"Keep meta to None, bool, int, finite float, str, lists and string-keyed dicts, "
        f"at most {MAX_META_DEPTH} deep"
    )


def _require_shape(name: str, shape: list[Any], itemsize: int) -> None:
    """Raise `StateError` unless torch can have this shape; bounded before it is multiplied."""
    if len(shape) > MAX_RANK:
        raise StateError(
            f"tensor {name!r:.120} has an impossible shape: {len(shape)} axes, "
            f"at most {MAX_RANK} can be"
        )
    possible = all(type(size) is int and 0 <= size <= _INT64_MAX for size in shape)
    if not possible or itemsize * math.prod(max(size, 1) for size in shape) > _INT64_MAX:
        raise StateError(f"tensor {name!r:.120} has an impossible shape {_short(shape)}")


def _short(value: object) -> str:
    """Some of `value`, however long or deeply nested it is."""
    return f"{reprlib.repr(value):.120}"


def _on_host(name: object, tensor: object) -> Tensor:
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise StateError(
            f"State.tensors maps names to tensors, got {name!r}: {type(tensor).__name__}"
        )
    plain = tensor.layout is torch.strided and not tensor.is_nested
    if not plain or tensor.dtype not in _NAMES or tensor.device.type == "meta":
        raise StateError(
            f"tensor {name!r} cannot be serialised: layout {tensor.layout}, dtype {tensor.dtype}, "
            f"device {tensor.device}, nested {tensor.is_nested}; make it a dense tensor with data"
        )
    if tensor.ndim > MAX_RANK:
        raise StateError(
            f"tensor {name!r:.120} has {tensor.ndim} axes, at most {MAX_RANK} can be serialised"
        )
    return tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()


def _raw_bytes(tensor: Tensor) -> memoryview:
    # as_strided: a contiguous tensor of one element or none may have any stride, view() wants 1
    flat = tensor.as_strided((tensor.numel(),), (1,))
    data: memoryview = flat.view(torch.uint8).numpy().data
    return data


def _exporter(payload: memoryview) -> tuple[Any, int]:
    """What torch can read `payload` from, holding its export, and the address it starts at.

    torch warns about read-only buffers, once per process, for which there is no switch: hand it
    the same memory through ctypes, which also keeps `payload` alive.
    """
    address: int = np.frombuffer(payload, np.uint8).__array_interface__["data"][0]
    if not payload.readonly:
        return payload, address
    window = (ctypes.c_uint8 * len(payload)).from_address(address)
    window._keep_alive = payload  # type: ignore[attr-defined]
    return window, address


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _require_little_endian() -> None:
    if sys.byteorder != "little":
        raise StateError("serialised States are little-endian; this machine is big-endian")
