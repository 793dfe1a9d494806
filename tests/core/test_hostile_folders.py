"""Damaged and hostile model folders: every file and every kind ends in one StorageError."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import worldflux
from worldflux import atomic, hub
from worldflux.errors import ConfigError, StorageError
from worldflux.hub import from_pretrained, load_into
from worldflux.testing.dummies import TinyAgent, TinyConfig, TinyModel
from worldflux.testing.family import SPACES

FILES = ("model.safetensors", "config.json", "worldflux.json", "manifest.json", "README.md")
OBS, ACTION = SPACES[1][1:]
pytestmark = pytest.mark.timeout(60)  # a pipe that is waited for fails, it does not hang


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved agent of the family `tiny`, to copy."""
    with torch.random.fork_rng(devices=[]):
        agent = TinyAgent(TinyConfig(width=24), OBS, ACTION)
    agent.provenance = {"family": "tiny", "preset": "wide"}
    return agent.save_pretrained(tmp_path_factory.mktemp("pristine") / "saved")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path, tiny_family_of_a_file: None) -> Path:
    return shutil.copytree(pristine, tmp_path / "saved")


def reseal(folder: Path) -> None:
    atomic.seal(folder, format=1)


def refused(folder: Path, text: str = ".") -> None:
    """One sentence that names the folder, at once."""
    began = time.monotonic()
    with pytest.raises(StorageError, match=text) as caught:
        from_pretrained(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 1_000
    assert time.monotonic() - began < 5


def test_the_folder_is_fine_before_it_is_damaged(folder: Path) -> None:
    assert from_pretrained(folder).config.width == 24  # type: ignore[attr-defined]


# Damage: the seal finds it, whatever the file


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _link_to_a_copy(path: Path) -> None:
    outside = path.parent.parent / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _flip(share: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(share * (len(data) - 1))] ^= 0x04
        path.write_bytes(data)

    return flip


DAMAGE: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b"") and None,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]) and None,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0") and None,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)) and None,
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()[2:]) and None,
    "deep": lambda path: path.write_bytes(b"[" * 200_000) and None,
    "a list": lambda path: path.write_bytes(b"[1]") and None,
    "first byte": _flip(0.0),
    "a byte": _flip(0.37),
    "last byte": _flip(1.0),
    "pipe": _pipe,
    "folder": _folder_instead,
    "device": lambda path: _link(path, "/dev/zero"),
    "link out": _link_to_a_copy,
    "link to nothing": lambda path: _link(path, "nothing"),
    "link to itself": lambda path: _link(path, path.name),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_damage_to_any_file_is_a_storage_error(folder: Path, file: str, kind: str) -> None:
    DAMAGE[kind](folder / file)
    refused(folder)


def test_links_inside_a_hubs_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "abc", tmp_path / "cache" / "blobs"
    snapshot.mkdir(parents=True), blobs.mkdir()
    for file in folder.iterdir():
        shutil.copy(file, blobs / f"{file.name}-digest")
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}-digest")
    assert from_pretrained(snapshot).config.width == 24  # type: ignore[attr-defined]


# Hostile: the seal is right, the content is not


def _manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = atomic.read_json(folder / "manifest.json")
    change(manifest)
    atomic.write_json(folder / "manifest.json", manifest)


def _listing(name: str) -> Callable[[dict[str, Any]], None]:
    entry = {"bytes": 1, "sha256": "0"}
    return lambda manifest: manifest["files"].update({name: entry})


MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no files": lambda m: m.pop("files"),
    "files are a list": lambda m: m.update(files=list(m["files"])),
    "files are null": lambda m: m.update(files=None),
    "no weights": lambda m: m["files"].pop("model.safetensors"),
    "no configuration": lambda m: m["files"].pop("config.json"),
    "no identity": lambda m: m["files"].pop("worldflux.json"),
    "entry is a list": lambda m: m["files"].update({"config.json": [1]}),
    "entry is a string": lambda m: m["files"].update({"config.json": "x"}),
    "bytes are text": lambda m: m["files"]["config.json"].update(bytes="12"),
    "bytes are true": lambda m: m["files"]["config.json"].update(bytes=True),
    "bytes are infinite": lambda m: m["files"]["config.json"].update(bytes=float("inf")),
    "digest is a number": lambda m: m["files"]["config.json"].update(sha256=1),
    "digest is null": lambda m: m["files"]["config.json"].update(sha256=None),
    "parent": _listing("../outside"),
    "hidden parent": _listing("a/../../outside"),
    "absolute": _listing("/etc/passwd"),
    "empty name": _listing(""),
    "dot": _listing("."),
    "backslash": _listing("..\\outside"),
    "nul": _listing("a\0b"),
    "endless name": _listing("a" * 5_000),
    "not there": _listing("more.bin"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_is_not_believed(folder: Path, kind: str) -> None:
    (folder.parent / "outside").write_text("x")
    _manifest(folder, MANIFESTS[kind])
    refused(folder)


IDENTITIES = (
    *("format", "kind", "family", "preset", "class", "worldflux", "torch"),
    *("fingerprint", "parameters", "obs_spec", "action_spec", "slots"),
)
WRONG: dict[str, Any] = {
    **{"list": [1], "object": {"a": [1]}, "number": 1.5, "true": True, "text": "no such"}
}
ACCEPTED = {  # what another save could hold there
    ("preset", "text"), ("class", "text"), ("worldflux", "text"), ("torch", "text"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("field", IDENTITIES)
def test_every_field_of_the_identity_has_its_type(folder: Path, field: str, wrong: str) -> None:
    identity = atomic.read_json(folder / "worldflux.json")
    identity[field] = WRONG[wrong]
    atomic.write_json(folder / "worldflux.json", identity)
    reseal(folder)
    if (field, wrong) in ACCEPTED:
        from_pretrained(folder)
    else:
        refused(folder)


@pytest.mark.parametrize("field", IDENTITIES)
def test_every_field_of_the_identity_must_be_there(folder: Path, field: str) -> None:
    identity = atomic.read_json(folder / "worldflux.json")
    del identity[field]
    atomic.write_json(folder / "worldflux.json", identity)
    reseal(folder)
    refused(folder)


SPECS: dict[str, Any] = {
    "shape of text": {"shape": ["3"]},
    "negative": {"shape": [-1]},
    "fractions": {"shape": [1.5]},
    "ten thousand axes": {"shape": [1] * 10**4},
    "huge": {"shape": [2**62]},
    "no such type": {"shape": [5], "dtype": "float99"},
    "a function's name": {"shape": [5], "dtype": "load"},
    "choices of text": {"shape": [], "n": "many"},
    "no choices": {"shape": [], "n": 0},
    "another field": {"shape": [5], "colour": "red"},
    "bounds of text": {"shape": [5], "low": "low"},
    "another size": {"shape": [6]},
    "a number": 7,
}


@pytest.mark.parametrize("space", ["obs_spec", "action_spec"])
@pytest.mark.parametrize("kind", SPECS)
def test_a_space_must_be_one(folder: Path, space: str, kind: str) -> None:
    identity = atomic.read_json(folder / "worldflux.json")
    identity[space] = {key: SPECS[kind] for key in identity[space]}
    atomic.write_json(folder / "worldflux.json", identity)
    reseal(folder)
    refused(folder)


CONFIGS = {
    "not JSON": "{",
    "empty": "",
    "a list": "[]",
    "a number": "3",
    "null": "null",
    "deep": "[" * 100_000,
    "deep object": '{"a":' * 100_000,
    "misspelt": '{"wdith": 24}',
    "text": '{"width": "wide"}',
    "a list inside": '{"width": [24]}',
    "negative": '{"width": -1}',
    "infinite": '{"width": 1e999}',
    "not a number": '{"width": NaN}',
    "another size": '{"width": 25}',
    "two terabytes": '{"width": 700000}',
    "more than a tensor can hold": '{"width": 10000000000}',
    "more digits than Python reads": '{"width": ' + "9" * 5_000 + "}",
    "the default": "{}",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_is_compared_with_the_weights_first(folder: Path, kind: str) -> None:
    (folder / "config.json").write_text(CONFIGS[kind])
    reseal(folder)
    refused(folder)


class Deep(TinyModel):
    """A model whose configuration says how many layers it has."""

    def __init__(self, config: TinyConfig, *spaces: Any) -> None:
        super().__init__(config.with_(width=4), *spaces)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(config.width))


def test_a_million_layers_are_not_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "load_class", lambda path: Deep)
    (folder / "config.json").write_text('{"width": 1000000}')
    reseal(folder)
    refused(folder, r"asks for more than 1\d\d\d parameters and modules, its weights are 18")


def test_what_the_caller_writes_wrong_stays_a_configuration_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match="has no key 'wdith'"):
        from_pretrained(folder, wdith=3)
    with pytest.raises(ConfigError, match="decoder_module='no:such' cannot be imported"):
        from_pretrained(folder, slots={"decoder_module": "no:such"})


# Weights


def _cast(dtype: torch.dtype) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda weights: weights.update({"policy.bias": weights["policy.bias"].to(dtype)})


def _holding(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["policy.bias"][1] = value

    return change


WEIGHTS = {
    "int32": (_cast(torch.int32), "policy.bias holds int32, this model needs float32"),
    "complex": (_cast(torch.complex64), "policy.bias holds complex64, this model needs float32"),
    "float64": (_cast(torch.float64), "policy.bias holds float64, this model needs float32"),
    "float16": (_cast(torch.float16), "policy.bias holds float16, this model needs float32"),
    "NaN": (_holding(float("nan")), "policy.bias holds 1 numbers that are NaN or infinite"),
    "infinite": (_holding(-float("inf")), "policy.bias holds 1 numbers that are NaN or infinite"),
    "shape": (
        lambda w: w.update({"policy.bias": torch.ones(3, 1)}),
        r"policy.bias has shape \(3, 1\), this model needs \(3,\)",
    ),
    "missing": (lambda w: w.pop("policy.bias"), r"missing \['policy.bias'\], unknown none"),
    "unknown": (lambda w: w.update(more=torch.ones(1)), r"missing none, unknown \['more'\]"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_are_neither_cast_nor_believed(folder: Path, kind: str) -> None:
    change, text = WEIGHTS[kind]
    weights = load_file(folder / "model.safetensors")
    weights = {key: value.clone() for key, value in weights.items()}
    change(weights)  # type: ignore[operator]
    save_file(weights, folder / "model.safetensors")
    reseal(folder)
    refused(folder, text)
    agent = TinyAgent(TinyConfig(width=24), OBS, ACTION)
    before = {key: value.clone() for key, value in agent.state_dict().items()}
    with pytest.raises(StorageError, match=text):
        load_into(agent, folder)
    assert all(torch.equal(before[key], value) for key, value in agent.state_dict().items())


def _file(dtype: str, shape: str, end: int, data: bytes = b"1234") -> bytes:
    text = f'{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}'
    return struct.pack("<Q", len(text)) + text.encode() + data


BROKEN_WEIGHTS = {
    "no header": b"",
    "endless header": struct.pack("<Q", 2**63) + b"{}",
    "header of a list": struct.pack("<Q", 2) + b"[]",
    "beyond the end": _file("F32", "[99999999]", 399999996),
    "too many numbers for its bytes": _file("F32", "[2]", 4),
    "more than can be counted": _file("F32", "[4294967296,4294967296,4294967296]", 4),
    "negative": _file("F32", "[-1]", 4),
    "no such type": _file("F99", "[1]", 4),
    "more bytes than tensors": _file("F32", "[1]", 4, b"12345678"),
    "random": bytes(range(256)) * 40,
}


@pytest.mark.parametrize("kind", BROKEN_WEIGHTS)
def test_weights_that_are_no_safetensors_file(folder: Path, kind: str) -> None:
    (folder / "model.safetensors").write_bytes(BROKEN_WEIGHTS[kind])
    reseal(folder)
    refused(folder, "cannot be read")


def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path) -> None:
    model = TinyModel(TinyConfig(), OBS, ACTION)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(StorageError, match="Nothing was saved: .* holds 1 numbers"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_mask_of_infinities_is_a_buffer_like_any_other(tmp_path: Path) -> None:
    models = [TinyModel(TinyConfig(), OBS, ACTION) for _ in range(2)]
    for model in models:
        model.register_buffer("mask", torch.tensor([0.0, -float("inf")]))
    load_into(models[1], models[0].save_pretrained(tmp_path / "model"))
    models[0].mask.fill_(float("nan"))
    with pytest.raises(StorageError, match="mask holds 2 numbers that are NaN"):
        models[0].save_pretrained(tmp_path / "other")


def test_the_folder_is_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    check_file = atomic.check_file

    def counted(path: Path, *rest: Any) -> None:
        hashed.append(path.name)
        check_file(path, *rest)

    monkeypatch.setattr(atomic, "check_file", counted)
    from_pretrained(folder)
    assert sorted(hashed) == sorted(set(FILES) - {"manifest.json"})


def test_building_twice_leaves_the_random_numbers_where_one_build_does(folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        from_pretrained(folder)
        one = torch.rand(1)
        torch.manual_seed(0)
        worldflux.create_agent("tiny:wide", obs_spec=OBS, action_spec=ACTION)
        assert torch.equal(one, torch.rand(1))


def test_json_stays_json() -> None:
    """The tables above hold what they say."""
    assert json.loads(CONFIGS["two terabytes"])["width"] ** 2 * 4 > 10**12
