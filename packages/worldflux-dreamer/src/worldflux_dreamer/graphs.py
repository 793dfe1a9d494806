"""Loss and backward pass as one CUDA graph: the launch of thousands of small kernels costs once.

Written for CUDA and not yet run on it; off by default (`agent.cuda_graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldflux.core.interfaces import Draws
from worldflux.errors import CapabilityError
from worldflux_dreamer.sequences import Sequences

if TYPE_CHECKING:
    from worldflux_dreamer.agent import Losses

WARMUP = 3
"""Runs before capture, so that libraries have chosen their kernels and allocated workspaces."""


class CapturedLoss:
    """`losses(data, draws)` and its backward, captured at the first call for these shapes.

    Gradients stay where the graph writes them: the caller must not set them to None. Results are
    overwritten by the next call.
    """

    def __init__(
        self,
        losses: Callable[[Sequences, Draws], Losses],
        parameters: Iterable[Tensor],
        state: Iterable[Tensor],
    ) -> None:
        self._losses = losses
        self._parameters = list(parameters)
        self._state = list(state)  # buffers that the loss itself changes
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, data: Sequences, draws: Draws) -> Losses:
        """Copy the inputs in, replay, and return the captured results."""
        require_cuda(data.reward.device)
        if self._graph is None:
            self._capture(data, draws)
        assert self._graph is not None
        copy_into(self._data, data)
        for key, value in draws.items():
            self._draws[key].copy_(value, non_blocking=True)
        self._graph.replay()
        return self._found

    def _capture(self, data: Sequences, draws: Draws) -> None:
        self._data = data.map(torch.clone)
        self._draws = {key: value.clone() for key, value in draws.items()}
        kept = [buffer.clone() for buffer in self._state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARMUP):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._found = self._run()
        for buffer, value in zip(self._state, kept, strict=True):
            buffer.copy_(value)
        self._graph = graph

    def _run(self) -> Losses:
        for parameter in self._parameters:
            parameter.grad = None
        found = self._losses(self._data, self._draws)
        found.total.backward()  # type: ignore[no-untyped-call]
        return found


def require_cuda(device: torch.device) -> None:
    """CUDA graphs need CUDA."""
    if device.type != "cuda":
        raise CapabilityError(
            f"agent.cuda_graph needs data on a CUDA device, got {device}. Set train.device=cuda, "
            "or agent.cuda_graph=false."
        )


def copy_into(target: Sequences, source: Sequences) -> None:
    """Overwrite every tensor of `target` by that of `source`."""
    for name, value in source.tensors().items():
        target.tensors()[name].copy_(value, non_blocking=True)
