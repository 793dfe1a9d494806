"""States in shared memory, mostly between real processes that exit, crash and misbehave."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from worldflux.core.state import State
from worldflux.errors import StateError

SHM = pathlib.Path("/dev/shm")
NAMESPACE = f"wf-test-{os.getpid()}"

pytestmark = pytest.mark.skipif(not SHM.is_dir(), reason="looks into Linux's /dev/shm")


def segments() -> set[str]:
    return {path.name for path in SHM.glob(f"{NAMESPACE}-*")}


@pytest.fixture(autouse=True)
def no_segment_is_left() -> Iterator[None]:
    yield
    left = segments()
    for name in left:
        (SHM / name).unlink()
    assert not left


def latent() -> State:
    tensors = {
        "mask": torch.tensor([True, False, True]),
        "deter": torch.arange(12.0).reshape(4, 3).t(),
        "none": torch.zeros(3, 0),
        "half": torch.tensor([1.5, 2.5, 3.5], dtype=torch.bfloat16),
    }
    return State(tensors, {"step": 7, "pair": (1, 2)})


def shared(state: State | None = None) -> dict[str, Any]:
    """A descriptor that went through JSON, as between processes."""
    return json.loads(json.dumps((state or latent()).to_shared_memory(NAMESPACE)))


PREAMBLE = """
import json, os, sys, torch
from worldflux.core.state import State
from worldflux.errors import StateError
def say(value): print(json.dumps(value), flush=True)
descriptor = json.loads(sys.argv[1])
"""


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a script in a process of its own; it is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(script: str, argument: Any = None) -> subprocess.Popen[str]:
        path = tmp_path / f"script{len(started)}.py"
        path.write_text(PREAMBLE + textwrap.dedent(script))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, str(path), json.dumps(argument)]
        started.append(subprocess.Popen(command, text=True, **pipes))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> list[Any]:
    """What the process said; it must end well and without a word on stderr."""
    out, err = process.communicate(timeout=180)
    assert (process.returncode, err) == (0, ""), err
    return [json.loads(line) for line in out.splitlines()]


def assert_same(found: State, expected: State) -> None:
    assert list(found.tensors) == list(expected.tensors)
    for name, tensor in expected.tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@pytest.mark.parametrize("copy", [False, True])
def test_attach_in_the_same_process(copy: bool):
    state = latent()
    descriptor = state.to_shared_memory(namespace=NAMESPACE)
    assert descriptor["name"].startswith(NAMESPACE + "-")
    attached = State.from_shared_memory(descriptor, copy=copy)
    assert_same(attached, state)
    assert attached.meta == {"step": 7, "pair": [1, 2]}
    attached.close_shared_memory(unlink=True)
    assert copy == (len(attached.tensors) == 4)


def test_the_producer_exits_first(start: Callable[..., Any]):
    [descriptor] = finish(
        start(f"""
        state = State({{"deter": torch.arange(6.).reshape(2, 3)}}, {{"step": 7}})
        say(state.to_shared_memory({NAMESPACE!r}))
        """)
    )
    attached = State.from_shared_memory(descriptor)
    assert attached["deter"].tolist() == [[0, 1, 2], [3, 4, 5]] and attached.meta == {"step": 7}
    attached.close_shared_memory(unlink=True)


def test_consumers_exit_first_and_see_each_others_writes(start: Callable[..., Any]):
    state = latent()
    descriptor = shared(state)
    script = """
    state = State.from_shared_memory(descriptor)
    before = state["deter"][0].tolist()
    state["deter"][0] = 5
    say([before, os.getpid()])
    """
    first, second = finish(start(script, descriptor)), finish(start(script, descriptor))
    assert first[0][0] == [0, 3, 6, 9] and second[0][0] == [5, 5, 5, 5]
    assert first[0][1] != second[0][1]
    assert segments() == {descriptor["name"]}  # no resource tracker destroyed it
    attached = State.from_shared_memory(descriptor)
    assert attached["deter"][0].tolist() == [5] * 4 and state["deter"][0].tolist() == [0, 3, 6, 9]
    state.close_shared_memory(unlink=True)
    assert attached["deter"][1].tolist() == [1, 4, 7, 10]  # an unlinked segment lives while mapped


def test_two_consumers_at_once(start: Callable[..., Any]):
    descriptor = shared()
    script = """
    state = State.from_shared_memory(descriptor)
    say("attached")
    sys.stdin.readline()
    say(state["deter"].sum().item())
    """
    consumers = [start(script, descriptor) for _ in range(2)]
    for consumer in consumers:
        assert json.loads(consumer.stdout.readline()) == "attached"
    State.unlink_shared_memory(descriptor)
    assert [finish(consumer) for consumer in consumers] == [[66.0], [66.0]]


def test_a_killed_consumer_leaves_the_segment(start: Callable[..., Any]):
    descriptor = shared()
    consumer = start(
        'state = State.from_shared_memory(descriptor); say("attached"); sys.stdin.readline()',
        descriptor,
    )
    assert json.loads(consumer.stdout.readline()) == "attached"
    consumer.send_signal(signal.SIGKILL)
    assert consumer.wait(timeout=180) == -signal.SIGKILL
    assert_same(State.from_shared_memory(descriptor, copy=True), latent())
    State.unlink_shared_memory(descriptor)


def test_a_forked_consumer_exits_without_harm():
    # A forked child shares its parent's resource tracker, the case where unregistering goes wrong.
    descriptor = shared()
    pid = os.fork()
    if pid == 0:
        os._exit(int(State.from_shared_memory(descriptor)["deter"].sum().item()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 66
    assert_same(State.from_shared_memory(descriptor, copy=True), latent())
    State.unlink_shared_memory(descriptor)


def test_use_after_close_is_an_error_and_never_a_crash(start: Callable[..., Any]):
    [refused, view, after, left] = finish(
        start(
            """
            state = State.from_shared_memory(descriptor)
            view = state["deter"][1]
            try:
                state.close_shared_memory()
            except StateError as error:
                say(str(error))
            say(view.tolist())
            del view
            state.close_shared_memory()
            try:
                state["deter"]
            except StateError as error:
                say(str(error))
            kept = State.from_shared_memory(descriptor)["half"]  # the State is gone, its tensor not
            State.unlink_shared_memory(descriptor)
            say(kept.tolist())
            """,
            shared(),
        )
    )
    assert "a caller still holds a tensor" in refused
    assert view == [1, 4, 7, 10]
    assert "this State's shared memory was closed" in after
    assert left == [1.5, 2.5, 3.5]


def test_a_refused_close_changes_nothing():
    state = latent()
    attached = State.from_shared_memory(shared(state))
    attached.tensors["mine"] = torch.ones(3)
    attached.tensors["part"] = attached["deter"][:, 1::2]
    attached.tensors["empty"] = attached["deter"][:, :0]
    names, part, view = list(attached.tensors), attached["part"].tolist(), attached["half"][1:]
    with pytest.raises(StateError, match=r"cannot close .* still holds .* hold a clone\(\)"):
        attached.close_shared_memory(unlink=True)
    assert list(attached.tensors) == names and len(segments()) == 1
    assert attached["part"].tolist() == part and attached["mine"].tolist() == [1] * 3
    attached["half"][2] = 9
    assert view.tolist() == [2.5, 9]  # still the shared memory, not a copy
    del view
    attached.close_shared_memory(unlink=True)
    assert not attached.tensors
    attached.close_shared_memory(unlink=True)  # twice is no error


def test_a_view_in_a_reference_cycle_does_not_keep_memory_from_closing():
    attached = State.from_shared_memory(shared())
    cycle: list[Any] = [attached["deter"]]
    cycle.append(cycle)
    del cycle
    attached.close_shared_memory(unlink=True)


CLOSED = [State.validate, lambda s: s.batch_size, lambda s: s["deter"], State.serialize]
CLOSED += [State.clone, State.detach, State.to_shared_memory, lambda s: s.to("cpu")]
CLOSED += [State.flat, lambda s: s.at(0), lambda s: s.with_({}), lambda s: s.only(["deter"])]
CLOSED += [lambda s: State.stack([s, s]), lambda s: s.get("deter"), lambda s: s.where(MASK, s)]
MASK = torch.ones(1, dtype=torch.bool)


@pytest.mark.parametrize("use", CLOSED)
def test_a_closed_state_says_so(use: Callable[[State], Any]):
    attached = State.from_shared_memory(shared())
    attached.close_shared_memory()
    with pytest.raises(StateError, match="this State's shared memory was closed"):
        use(attached)
    attached.close_shared_memory(unlink=True)


def test_copies_of_an_attached_state():
    attached = State.from_shared_memory(shared())
    twin, deep = attached.detach(), copy.deepcopy(attached)
    twin.close_shared_memory(unlink=True)  # holds no segment: nothing to close or unlink
    assert len(segments()) == 1
    with pytest.raises(StateError, match="a caller still holds a tensor"):
        attached.close_shared_memory()
    del twin
    attached.close_shared_memory(unlink=True)
    assert_same(deep, latent())


def test_every_segment_of_a_producer_is_unlinked_at_once():
    state = latent()
    names = {state.to_shared_memory(NAMESPACE)["name"] for _ in range(3)}
    assert segments() == names
    state.close_shared_memory()
    assert segments() == names and len(state.tensors) == 4
    state.close_shared_memory(unlink=True)


def test_unlinking_twice_is_no_error_and_attaching_then_says_why():
    descriptor = shared()
    State.unlink_shared_memory(descriptor)
    State.unlink_shared_memory(descriptor)
    with pytest.raises(
        StateError, match="cannot attach to .*: No such file .* It was unlinked, or"
    ):
        State.from_shared_memory(descriptor)


def changed(descriptor: dict[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    entries = [t | changes if t["name"] == name else t for t in descriptor["tensors"]]
    return descriptor | {"tensors": entries}


FORGED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "shape": (lambda d: changed(d, "deter", shape=[4, 3]), r"not hold what .* shape=\(4, 3\)"),
    "dtype": (lambda d: changed(d, "deter", dtype="int32"), "not hold what .* dtype='int32'"),
    "larger": (lambda d: changed(d, "deter", shape=[3, 400], nbytes=4800), "not hold what"),
    "inconsistent": (lambda d: changed(d, "deter", nbytes=4800), "takes 48 bytes, .* says 4800"),
    "unknown dtype": (lambda d: changed(d, "deter", dtype="float23"), "unknown dtype 'float23'"),
    "one tensor less": (
        lambda d: d | {"tensors": d["tensors"][:-1], "order": ["deter", "none", "half"]},
        "not hold what its descriptor says: None against TensorRecord",
    ),
    "order": (lambda d: d | {"order": sorted(d["order"])}, "not hold what its descriptor says"),
    "meta": (lambda d: d | {"meta": {"step": 8}}, "not hold what its descriptor says"),
    "size": (lambda d: d | {"nbytes": 10**12}, "holds .* bytes, the descriptor says 1000000000000"),
    "small": (lambda d: d | {"nbytes": d["nbytes"] - 1}, "holds .* bytes, the descriptor says"),
    "tiny": (lambda d: d | {"nbytes": 3}, "has an impossible size: 3"),
    "size text": (lambda d: d | {"nbytes": "9"}, "has an impossible size: '9'"),
    "path": (lambda d: d | {"name": "../etc/passwd"}, "is not the name of a shared-memory State"),
    "other's": (lambda d: d | {"name": "psm_12ab34cd"}, "is not the name of a shared-memory State"),
    "no name": (lambda d: {"nbytes": 5}, "not a shared-memory descriptor: no 'name' in"),
    "no size": (lambda d: {"name": d["name"]}, "not a shared-memory descriptor: no 'nbytes' in"),
    "no tensors": (lambda d: {k: d[k] for k in ("name", "nbytes")}, "must hold tensors, order and"),
    "text": (lambda d: d["name"], "not a shared-memory descriptor"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_descriptor_is_an_error_before_any_read(case: str):
    descriptor = shared()
    forge, text = FORGED[case]
    try:
        with pytest.raises(StateError, match=text):
            State.from_shared_memory(forge(descriptor))
    finally:
        State.unlink_shared_memory(descriptor)


@pytest.mark.parametrize("content", [b"", bytes(200), b"WFST\x01" + bytes(195)])
def test_a_segment_that_holds_something_else_is_refused(content: bytes):
    descriptor = shared()
    (SHM / descriptor["name"]).write_bytes(content)
    try:
        with pytest.raises(StateError):
            State.from_shared_memory(descriptor | {"nbytes": max(len(content), 10)})
    finally:
        State.unlink_shared_memory(descriptor)


def test_a_segment_with_more_than_its_tensors_is_refused():
    descriptor = shared()
    with (SHM / descriptor["name"]).open("ab") as file:
        file.write(b"x")
    larger = descriptor["nbytes"] + 1
    try:
        with pytest.raises(StateError, match=f"{larger} bytes against {larger - 1}"):
            State.from_shared_memory(descriptor | {"nbytes": larger})
    finally:
        State.unlink_shared_memory(descriptor)


@pytest.mark.parametrize("name", ["../x", "psm_12ab34cd", "", None])
def test_only_segments_of_ours_are_unlinked(name: Any):
    with pytest.raises(StateError, match="is not the name of a shared-memory State"):
        State.unlink_shared_memory({"name": name})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_tensors_are_copied_when_allowed():
    state = latent().to("cuda")
    with pytest.raises(StateError, match="are on cuda:0"):
        state.to_shared_memory(NAMESPACE)
    descriptor = state.to_shared_memory(NAMESPACE, allow_copy_from_cuda=True)
    assert_same(State.from_shared_memory(descriptor), latent())
    state.close_shared_memory(unlink=True)


def test_a_state_of_one_gigabyte(start: Callable[..., Any]):
    if os.statvfs(SHM).f_bavail * os.statvfs(SHM).f_frsize < 2**31:
        pytest.skip("/dev/shm has less than 2 GB free")
    state = State({"big": torch.zeros(2**28)})
    state["big"][-3:] = torch.tensor([1.0, 2.0, 3.0])
    descriptor = shared(state)
    script = """
    import resource
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state = State.from_shared_memory(descriptor)
    say([state["big"].shape[0], state["big"][-3:].tolist()])
    say(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    found, kilobytes = finish(start(script, descriptor))
    State.unlink_shared_memory(descriptor)
    assert found == [2**28, [1, 2, 3]]
    assert kilobytes < 50_000  # attached, not copied
