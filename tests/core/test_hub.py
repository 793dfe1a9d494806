"""Saved folders: what comes back, what is refused, and publishing to a hub on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import load_file, save_file

import worldflux
from worldflux import atomic
from worldflux.errors import ConfigError, StorageError
from worldflux.hub import from_pretrained, load_into
from worldflux.runs import AGENT, Run
from worldflux.saved_folder import read_identity
from worldflux.slots import built, read_slots
from worldflux.testing import check_family
from worldflux.testing.dummies import TinyAgent, TinyConfig, TinyDecoder, TinyModel
from worldflux.testing.family import SPACES
from worldflux.trust import TrustError

OBS, ACTION = SPACES[1][1:]


class OtherDecoder(TinyDecoder):
    """A replaced slot that can be built from the model alone, as `Class(model)`."""

    def __init__(self, model):
        super().__init__(model.obs_spec, model.config.width)


REFERENCE = "worldflux_test_slots:OtherDecoder"


@pytest.fixture
def saved(tiny_family, tmp_path):
    with torch.random.fork_rng(devices=[]):
        agent = worldflux.create_agent("tiny:wide", obs_spec=OBS, action_spec=ACTION, lr=0.01)
    return agent, agent.save_pretrained(tmp_path / "saved")


def test_an_agent_comes_back_whole(saved):
    agent, folder = saved
    loaded = from_pretrained(folder)
    assert isinstance(loaded, TinyAgent) and loaded.config == agent.config
    assert loaded.obs_spec == OBS and loaded.action_spec == ACTION
    for name, value in agent.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert read_identity(folder)["preset"] == "wide"
    assert loaded.provenance == agent.provenance


def test_a_kind_is_checked_and_an_agents_world_model_can_be_asked_for(saved):
    _, folder = saved
    assert isinstance(from_pretrained(folder, kind=worldflux.Agent), TinyAgent)
    model = from_pretrained(folder, kind=worldflux.WorldModel)
    assert isinstance(model, TinyModel)
    with pytest.raises(StorageError, match="holds a TinyModel, which is no Agent. Leave out"):
        from_pretrained(model.save_pretrained(folder.parent / "model"), kind=worldflux.Agent)


def test_a_run_gives_its_best_checkpoint_else_the_newest(saved, tmp_path):
    agent, _ = saved
    run = Run.create(tmp_path / "run")
    run.config_path.write_text("id: tiny\n")
    with pytest.raises(StorageError, match="no intact checkpoint yet"):
        from_pretrained(run.path)
    for tick, score in ((1, None), (2, None)):
        add_checkpoint(run, agent, tick, score)
    assert weight_of(from_pretrained(run.path)) == 2.0  # no evaluation: the newest
    add_checkpoint(run, agent, 3, 0.5)
    add_checkpoint(run, agent, 4, 0.1)
    assert weight_of(from_pretrained(str(run.path))) == 3.0


def add_checkpoint(run, agent, tick, score):
    with torch.no_grad():
        agent.policy.weight.fill_(tick)
    with run.new_checkpoint(tick, score=score) as folder:
        agent.save_pretrained(folder / AGENT)


def weight_of(agent) -> float:
    return agent.policy.weight.flatten()[0].item()


def test_the_card_states_facts(saved):
    agent, folder = saved
    card = (folder / "README.md").read_text()
    assert "# tiny:wide" in card and f"{agent.parameter_count():,} trainable" in card
    assert "discrete, 3 choices" in card and '"width": 24' in card
    assert "library_name: worldflux" in card


def test_saving_again_replaces_and_foreign_folders_are_left_alone(saved, tmp_path):
    agent, folder = saved
    with torch.no_grad():
        agent.policy.weight.fill_(3.0)
    agent.save_pretrained(folder)
    assert from_pretrained(folder).policy.weight[0, 0].item() == 3.0
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(StorageError, match="was not written by save_pretrained: nothing was"):
        agent.save_pretrained(tmp_path / "mine")


def test_overrides_are_applied_or_refused(saved):
    _, folder = saved
    assert from_pretrained(folder, lr=0.5).config.lr == 0.5
    with pytest.raises(ConfigError, match="TinyConfig has no key 'rl'. Did you mean 'lr'"):
        from_pretrained(folder, rl=1)
    with pytest.raises(StorageError, match=r"was saved with contract .* spaces, state"):
        from_pretrained(folder, width=8)


def _reseal(folder):
    atomic.seal(folder, format=1)


@pytest.mark.parametrize("what", ["missing", "unknown", "shape"])
def test_weights_must_fit(saved, what):
    _, folder = saved
    weights = load_file(folder / "model.safetensors")
    if what == "missing":
        weights.pop("policy.bias")
    elif what == "unknown":
        weights["policy.gain"] = torch.ones(1)
    else:
        weights["policy.bias"] = torch.ones(7)
    save_file(weights, folder / "model.safetensors")
    _reseal(folder)
    text = {
        "missing": r"missing \['policy.bias'\], unknown none",
        "unknown": r"missing none, unknown \['policy.gain'\]",
        "shape": r"policy.bias has shape \(7,\), this model needs \(3,\)",
    }[what]
    with pytest.raises(StorageError, match=text):
        from_pretrained(folder)


def test_damage_is_found(saved):
    _, folder = saved
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(StorageError, match="is damaged"):
        from_pretrained(folder)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StorageError, match="does not match its sha256"):
        from_pretrained(folder)
    path.write_bytes(b"\xff" * len(whole))
    _reseal(folder)
    with pytest.raises(StorageError, match="cannot be read"):
        from_pretrained(folder)


@pytest.mark.parametrize("file", ["config.json", "worldflux.json", "manifest.json"])
def test_every_flipped_byte_is_a_storage_error(saved, file):
    _, folder = saved
    whole = (folder / file).read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 25)):
        for bit in (1, 0x80):
            (folder / file).write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            with pytest.raises(StorageError, match="is damaged"):
                from_pretrained(folder)
    for other in (b"", b"[]", b"[" * 100_000, b"\xff\xfe"):
        (folder / file).write_bytes(other)
        with pytest.raises(StorageError, match="is damaged"):
            from_pretrained(folder)


def test_other_folders_are_explained(tmp_path, saved):
    with pytest.raises(StorageError, match="There is no folder"):
        from_pretrained(tmp_path / "nothing")
    with pytest.raises(StorageError, match="There is no folder"):
        from_pretrained("./nothing/here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match=r"holds no worldflux.json"):
        from_pretrained(tmp_path / "empty")
    atomic.write_json(tmp_path / "empty" / "worldflux.json", {"format": 9})
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "empty" / name).touch()
    _reseal(tmp_path / "empty")
    with pytest.raises(StorageError, match="has format 9; this worldflux reads 1"):
        from_pretrained(tmp_path / "empty")


def test_a_model_of_no_family_is_loaded_into(tmp_path):
    model, twin = (TinyModel(TinyConfig(), OBS, ACTION) for _ in range(2))
    folder = model.save_pretrained(tmp_path / "model")
    with pytest.raises(StorageError, match="belongs to no model family. Build the model yourself"):
        from_pretrained(folder)
    load_into(twin, folder)
    assert torch.equal(
        twin.decoder_module.heads["reward"].weight, model.decoder_module.heads["reward"].weight
    )


@pytest.fixture
def slots_module(monkeypatch):
    module = type(sys)("worldflux_test_slots")
    module.OtherDecoder = OtherDecoder
    monkeypatch.setitem(sys.modules, "worldflux_test_slots", module)


def test_weights_bring_no_code(tiny_family, tmp_path, slots_module):
    model = worldflux.create_world_model(
        "tiny", obs_spec=OBS, action_spec=ACTION, slots={"decoder_module": REFERENCE}
    )
    folder = model.save_pretrained(tmp_path / "model")
    with pytest.raises(TrustError, match="OtherDecoder is imported and made") as error:
        from_pretrained(folder)
    assert str(error.value).endswith(": pass trust=('worldflux_test_slots',)")
    with pytest.raises(TrustError):
        from_pretrained(folder, trust=("worldflux_test",))
    repeated = from_pretrained(folder, slots={"decoder_module": REFERENCE})
    assert type(repeated.decoder_module) is OtherDecoder
    loaded = from_pretrained(folder, trust=("worldflux_test_slots",))
    assert type(loaded.decoder_module) is OtherDecoder
    assert loaded.slot_overrides == {"decoder_module": {"class": REFERENCE}}


def test_a_slot_that_cannot_be_imported_cannot_be_saved(tmp_path):
    class Local(TinyDecoder):
        pass

    parts = read_slots({"decoder_module": Local(OBS, 16)})
    model = built(lambda: TinyModel(TinyConfig(), OBS, ACTION), parts)
    with pytest.raises(ConfigError, match="cannot be imported again. Define the class"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_shared_tensors_are_written(tmp_path):
    class Tied(TinyModel):
        def __init__(self, *args):
            super().__init__(*args)
            self.tied = torch.nn.Linear(3, 3)
            self.other = torch.nn.Linear(3, 3)
            self.other.weight = self.tied.weight

    model = Tied(TinyConfig(), OBS, ACTION)
    folder = model.save_pretrained(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(weights["tied.weight"], weights["other.weight"])


def test_the_tiny_family_conforms(tiny_family):
    assert "check_slots_take_effect" in check_family("tiny")


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as creating, committing to and downloading a model needs."""

    files: dict[str, bytes] = {}
    commit = "a" * 40

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            self._json({"url": f"{self._here()}/me/tiny"})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
            ]
            self._json({"files": modes})
        elif "/commit/" in self.path:
            for line in body.decode().splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    self.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            url = f"{self._here()}/me/tiny/commit/{self.commit}"
            self._json({"commitUrl": url, "commitOid": self.commit, "success": True})
        else:
            self._json({"errors": [], "warnings": []})

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        if "/resolve/" in self.path:
            data = self.files[self.path.split("/", 5)[5]]
            self._send(data if body else b"", {
                "X-Repo-Commit": self.commit,
                "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
                "Content-Length": str(len(data)),
            })  # fmt: skip
        elif "/tree/" in self.path:
            self._json([
                {"type": "file", "path": p, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for p, d in self.files.items()
            ])  # fmt: skip
        else:
            siblings = [{"rfilename": path} for path in self.files]
            self._json({"id": "me/tiny", "sha": self.commit, "siblings": siblings})

    def _here(self):
        return "http://{}:{}".format(*self.server.server_address)

    def _json(self, value):
        data = json.dumps(value).encode()
        self._send(data, {"Content-Type": "application/json", "Content-Length": str(len(data))})

    def _send(self, data, headers):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


SCRIPT = """
import torch, worldflux
from worldflux.hub import push_to_hub
model = worldflux.create_world_model("tiny", obs_shape=(5,), action_dim=2)
push_to_hub(model, "me/tiny")
loaded = worldflux.from_pretrained("me/tiny")
assert all(torch.equal(a, b) for a, b in
           zip(model.state_dict().values(), loaded.state_dict().values(), strict=True))
"""


def test_publishing_and_loading_through_a_hub(tiny_site, tmp_path):
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "PYTHONPATH": str(tiny_site),
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_TOKEN": "hf_test",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert "worldflux.json" in FakeHub.files and "README.md" in FakeHub.files


def test_without_the_extra_the_install_line_is_given(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r'pip install "worldflux-core\[hub\]"'):
        from_pretrained("me/tiny")
