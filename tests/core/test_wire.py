"""The binary form of a State: round trips, and every way a payload can be wrong."""

from __future__ import annotations

import json
import struct
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.core.state import State
from worldflux.core.wire import DTYPES
from worldflux.errors import StateError

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support")

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
LEAVES |= st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.text(max_size=3)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any dtype; 0 to 4 axes, some of length 0; contiguous, transposed, strided, conjugated."""
    name = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = torch.Size(shape).numel() * DTYPES[name].itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if name == "bool":
        raw = bytes(byte & 1 for byte in raw)
    flat = torch.tensor(list(raw), dtype=torch.uint8).view(DTYPES[name]) if size else None
    tensor = torch.empty(shape, dtype=DTYPES[name]) if flat is None else flat.reshape(shape)
    match draw(st.sampled_from(["as is", "transposed", "every second", "conjugated"])):
        case "transposed" if tensor.ndim > 1:
            return tensor.transpose(0, -1)
        case "every second" if tensor.ndim:
            return tensor[::2]
        case "conjugated" if name in ("complex64", "complex128"):
            return tensor.conj()
    return tensor


def raw_bytes(tensor: torch.Tensor) -> bytes:
    plain = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)  # of ordinary strides
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.text(max_size=6), tensors(), max_size=5),
    st.dictionaries(KEYS, JSON, max_size=3),
    st.booleans(),
    st.sampled_from([bytes, bytearray, memoryview]),
)
def test_round_trip(found: dict[str, torch.Tensor], meta: dict[str, Any], copy: bool, kind: Any):
    state = State(found, meta)
    data = state.serialize()
    back = State.deserialize(kind(data), copy=copy)
    assert list(back.tensors) == list(found) and back.meta == meta
    for name, tensor in found.items():
        assert back[name].dtype == tensor.dtype and back[name].shape == tensor.shape
        assert raw_bytes(back[name]) == raw_bytes(tensor)
    assert State.deserialize(data).serialize() == data


def test_layout_of_the_payload():
    state = State({"b": torch.ones(3, dtype=torch.uint8), "f": torch.ones(2)}, {"z": 1, "a": (2,)})
    data = state.serialize()
    magic, version, length = struct.unpack_from(">4sBI", data)
    assert (magic, version, (9 + length) % 64) == (b"WFST", 1, 0)
    text = data[9 : 9 + length].decode()
    fields = json.loads(text)
    assert text.rstrip(" ") == json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert fields["meta"] == {"z": 1, "a": [2]} and fields["order"] == ["b", "f"]
    assert [t["name"] for t in fields["tensors"]] == ["f", "b"]  # widest first: all are aligned
    assert data[9 + length :] == struct.pack("<2f3B", 1, 1, 1, 1, 1)


def test_tensors_own_writable_memory_by_default():
    data = bytearray(State({"a": torch.zeros(4)}).serialize())
    state = State.deserialize(data)
    data[-16:] = b"\xff" * 16
    state["a"].add_(1)
    assert state["a"].tolist() == [1] * 4


def test_without_copy_tensors_alias_the_payload():
    data = bytearray(State({"a": torch.zeros(4), "e": torch.zeros(0, 3)}).serialize())
    state = State.deserialize(data, copy=False)
    data[-4:] = struct.pack("<f", 5)
    assert state["a"].tolist() == [0, 0, 0, 5]
    with pytest.raises(BufferError):
        data.clear()  # would leave the tensor dangling
    del state
    data.clear()


def test_without_copy_a_read_only_payload_stays_alive_and_torch_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = torch.is_warn_always_enabled()
        torch.set_warn_always(True)
        try:
            tensor = State.deserialize(State({"a": torch.arange(1000)}).serialize(), copy=False)[
                "a"
            ]
        finally:
            torch.set_warn_always(before)
    bytes(10_000)  # would land in the payload's memory, were it free
    assert torch.equal(tensor, torch.arange(1000))


def test_without_copy_a_misaligned_payload_is_copied():
    tensor = torch.arange(5, dtype=torch.float64)
    data = State({"a": tensor}).serialize()
    for shift in range(8):
        shifted = memoryview(bytes(shift) + data)[shift:]
        found = State.deserialize(shifted, copy=False)["a"]
        assert found.data_ptr() % 8 == 0 and torch.equal(found, tensor)


def test_any_header_padding_is_read():
    state = State({"a": torch.arange(5)})
    data = state.serialize()
    length = struct.unpack_from(">I", data, 5)[0]
    text = data[9 : 9 + length].rstrip()
    for padding in (0, 1, 200):
        other = struct.pack(">4sBI", b"WFST", 1, len(text) + padding) + text + b" " * padding
        for copy in (True, False):
            found = State.deserialize(other + data[9 + length :], copy=copy)
            assert torch.equal(found["a"], state["a"])


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "dtype": "float32", "shape": [2, 3], "nbytes": 24} | changes


def header(*entries: Any, **changes: Any) -> dict[str, Any]:
    order = [e["name"] for e in entries if isinstance(e, dict) and "name" in e]
    return {"tensors": list(entries), "order": order, "meta": {}} | changes


def payload(fields: Any, body: bytes = bytes(24)) -> bytes:
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return struct.pack(">4sBI", b"WFST", 1, len(text)) + text + body


GOOD = payload(header(entry()))

MALFORMED = {
    "empty": (b"", "truncated payload: 0 bytes, the prefix takes 9"),
    "magic": (b"WFSX" + GOOD[4:], "not a serialised State: its magic is b'WFSX'"),
    "short magic": (b"PK", "not a serialised State"),
    "prefix cut": (GOOD[:8], "truncated payload: 8 bytes"),
    "version": (GOOD[:4] + b"\x02" + GOOD[5:], "unknown State version 2; .* version 1"),
    "header cut": (GOOD[:40], "truncated payload: its header takes .* bytes, 31 follow"),
    "header length huge": (GOOD[:5] + b"\xff" * 4 + GOOD[9:], "truncated .* takes 4294967295"),
    "header length short": (GOOD[:5] + struct.pack(">I", 7) + GOOD[9:], "not valid JSON"),
    "body cut": (GOOD[:-1], "truncated payload: its tensors take 24 bytes, it holds 23"),
    "trailing": (GOOD + b"xy", "2 trailing bytes"),
    "not JSON": (payload(b"{"), "not valid JSON"),
    "not UTF-8": (payload(b'"\xff"'), "not valid JSON"),
    "not a number": (payload(b'{"meta":{"a":NaN}}'), "not valid JSON: NaN is not JSON"),
    "deep": (payload(b"[" * 200_000), "not valid JSON"),
    "endless integer": (payload(b"1" * 10_000), "not valid JSON"),
    "list": (payload([]), r"must hold tensors, order and meta, got \[\]"),
    "no meta": (payload({"tensors": [], "order": []}), "must hold tensors, order and meta"),
    "meta list": (payload(header(meta=[])), "must hold tensors, order and meta"),
    "entry not a dict": (payload(header(7)), "must hold name, dtype, shape and nbytes, got 7"),
    "entry without name": (payload(header({"dtype": "x"})), "must hold name, dtype"),
    "nbytes a bool": (payload(header(entry(nbytes=True))), "must hold name, dtype"),
    "dtype": (
        payload(header(entry(dtype="flot32"))),
        "unknown dtype 'flot32'. Did you mean 'float",
    ),
    "dtype not data": (payload(header(entry(dtype="Tensor"))), "unknown dtype 'Tensor'"),
    "negative size": (payload(header(entry(shape=[-2, -3]))), r"impossible shape \[-2, -3\]"),
    "size a float": (payload(header(entry(shape=[2.0, 3]))), "impossible shape"),
    "size a bool": (payload(header(entry(shape=[True, 6]))), "impossible shape"),
    "item size": (payload(header(entry(dtype="float64"))), "of float64 takes 48 bytes, .* says 24"),
    "nbytes": (payload(header(entry(nbytes=20))), "takes 24 bytes, but its entry says 20"),
    "huge": (
        payload(header(entry(shape=[2**50], nbytes=2**52))),
        f"truncated payload: its tensors take {2**52} bytes, it holds 24",
    ),
    "beyond int64": (payload(header(entry(shape=[2**62, 2**62]))), "impossible shape"),
    "empty beyond int64": (
        payload(header(entry(shape=[0, 2**62, 2**62], nbytes=0)), b""),
        "impossible shape",
    ),
    "axes": (payload(header(entry(shape=[1] * 65, nbytes=4)), bytes(4)), "65 axes, at most 64"),
    "size of many digits": (payload(header(entry(shape=[10**4000, 0], nbytes=0))), "impossible sh"),
    "meta infinite": (
        payload(b'{"tensors":[],"order":[],"meta":{"a":1e999}}', b""),
        "'a'. is a flo",
    ),
    "meta deep": (
        payload(b'{"tensors":[],"order":[],"meta":{"a":' + b"[" * 80 + b"]" * 80 + b"}}", b""),
        "is a list that JSON cannot hold: .* at most 64 deep",
    ),
    "same name twice": (payload(header(entry(), entry()), bytes(48)), "name each tensor"),
    "order misses one": (payload(header(entry(), order=[])), "name each tensor"),
    "order names another": (payload(header(entry(), order=["b"])), "name each tensor"),
    "order not names": (payload(header(entry(), order=[1])), "name each tensor"),
}


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_payload_says_what_is_wrong(case: str, copy: bool):
    data, text = MALFORMED[case]
    with pytest.raises(StateError, match=text):
        State.deserialize(data, copy=copy)


def test_the_good_payload_of_these_cases_is_good():
    assert State.deserialize(GOOD)["a"].shape == (2, 3)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_never_raise_anything_but_state_errors(data: st.DataObject):
    whole = State(
        {"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.bool)}, {"n": 1}
    ).serialize()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(whole) - 8))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for candidate in (damaged, whole[:cut]):
        try:
            back = State.deserialize(candidate)
        except StateError:
            continue
        assert sum(t.nbytes for t in back.tensors.values()) <= len(whole)
        assert State.deserialize(back.serialize()).meta == back.meta


@pytest.mark.parametrize(
    "fields",
    [
        header(entry(shape=[2**62] * 250_000)),
        header(entry(shape=[2] * 1_000_000)),
        header(entry(name="n" * 2_000_000, dtype="d" * 2_000_000)),
        header(meta={"k" * 1_000_000: [0] * 200_000 + [[[]] * 10]}, order=["missing"]),
        header(meta={"k" * 1_000_000: [0] * 200_000 + [{"deep": [[[]]] * 10}]}, tensors=[7]),
    ],
    ids=["sizes", "axes", "names", "meta", "entries"],
)
def test_a_hostile_header_is_refused_at_once(fields: Any):
    data, begun = payload(fields), time.process_time()
    with pytest.raises(StateError) as caught:
        State.deserialize(data)
    assert len(str(caught.value)) < 1000
    assert time.process_time() - begun < 5  # tens of seconds to minutes if it were multiplied out


def test_a_long_key_is_not_repeated_for_every_entry_below_it():
    fields = header(meta={"k" * 1_000_000: [0] * 200_000})
    begun = time.process_time()
    assert len(next(iter(State.deserialize(payload(fields, b"")).meta))) == 1_000_000
    assert time.process_time() - begun < 5


def test_a_tensor_of_too_many_axes_is_not_written():
    with pytest.raises(StateError, match="'a' has 65 axes, at most 64 can be serialised"):
        State({"a": torch.zeros(1).as_strided([1] * 65, [1] * 65)}).serialize()
    widest = State({"a": torch.zeros([1] * 64)})
    assert State.deserialize(widest.serialize())["a"].ndim == 64


@pytest.mark.parametrize("data", ["text", 5, memoryview(bytes(10))[::2]])
def test_what_is_not_a_contiguous_buffer_is_refused(data: Any):
    with pytest.raises(StateError, match="a serialised State is bytes, a bytearray or"):
        State.deserialize(data)


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({"a": torch.zeros(1)}, r"meta\['a'\] is a Tensor that JSON cannot hold"),
        ({"a": {"b": [1, {2}]}}, r"meta\['a'\]\['b'\]\[1\] is a set"),
        ({"a": float("nan")}, r"meta\['a'\] is a float that JSON cannot hold: nan"),
        ({"a": {1: "x"}}, r"meta\['a'\] is a dict that JSON cannot hold"),
        ({1: "x"}, "meta is a dict that JSON cannot hold"),
        ({"a": 10**5000}, "meta cannot be written as JSON"),
    ],
)
def test_meta_that_is_not_json_is_named(meta: dict, text: str):
    with pytest.raises(StateError, match=text):
        State({}, meta).serialize()


def test_endless_meta_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(StateError, match="is a list that JSON cannot hold: .* at most 64 deep"):
        State({}, {"a": loop}).serialize()


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        (lambda: {"a": [1.0]}, "maps names to tensors, got 'a': list"),
        (lambda: {3: torch.zeros(1)}, "maps names to tensors, got 3: Tensor"),
        (lambda: {"a": torch.eye(2).to_sparse()}, "'a' cannot be serialised: layout torch.sparse"),
        (lambda: {"a": torch.eye(2, device="meta")}, "'a' cannot be serialised: .* device meta"),
        (
            lambda: {"a": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)},
            "'a' cannot be serialised: .* torch.qint8",
        ),
        (
            lambda: {"a": torch.nested.nested_tensor([torch.zeros(2)])},
            "'a' cannot be serialised: .* nested True",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_has_no_plain_bytes_is_named(tensors: Callable[[], dict[Any, Any]], text: str):
    with pytest.raises(StateError, match=text):
        State(tensors()).serialize()


def test_tensors_that_need_gradients_are_serialised():
    state = State({"a": torch.ones(2, requires_grad=True) * 2})
    assert State.deserialize(state.serialize())["a"].tolist() == [2, 2]


def test_big_endian_machines_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(StateError, match="this machine is big-endian"):
        State({}).serialize()
    with pytest.raises(StateError, match="this machine is big-endian"):
        State.deserialize(GOOD)
