"""Acting waits for its weights, and on a GPU not for the updates queued after them."""

from __future__ import annotations

import time

import pytest
import torch

from worldflux_train.acting_stream import ActingStream

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_without_streams_nothing_changes():
    stream = ActingStream(torch.device("cpu"))
    stream.weights_written()
    with stream.acting():
        assert torch.ones(2).sum() == 2
    assert stream.stream is None


def _busy(seconds: float) -> None:
    """Queue work that takes the GPU about so long."""
    torch.cuda._sleep(int(seconds * 1.5e9))  # cycles


@needs_gpu
def test_an_action_does_not_wait_for_updates_queued_after_its_weights():
    stream, weights = ActingStream(torch.device("cuda")), torch.zeros(8, device="cuda")
    _busy(0.2)
    weights.fill_(3.0)  # behind work that takes a while: what acts has to wait for it
    stream.weights_written()
    _busy(1.0)
    began = time.perf_counter()
    with stream.acting():
        found = weights.cpu()
    assert bool((found == 3).all())
    waited = time.perf_counter() - began
    torch.cuda.synchronize()
    assert waited < 0.7 * (time.perf_counter() - began)


@needs_gpu
def test_on_one_stream_it_would_wait():
    weights = torch.zeros(8, device="cuda")
    _busy(0.5)
    began = time.perf_counter()
    weights.cpu()
    assert time.perf_counter() - began > 0.1
