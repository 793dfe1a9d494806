"""Means, sums and gathered rows of two processes are those of one, gradients included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from worldflux import distributed

MASK = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()  # three steps on rank 0, one on rank 1

WORKER = """
import sys, torch
from pathlib import Path
from torch import distributed as ranks
from worldflux import distributed

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
ranks.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
x, mask, w = torch.load(folder / "whole.pt", weights_only=True)
w = w.clone().requires_grad_()
own = (x[rank : rank + 1] * w)
loss = distributed.mean(own, mask[rank : rank + 1]) + distributed.gather(own).square().mean()
loss = loss + distributed.sum(own.sum()) * 0.1
loss.backward()
alone, nowhere = (torch.ones(2, 2, requires_grad=True) for _ in range(2))
if rank == 1:
    alone.square().sum().backward()
half = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
(half * (rank + 1)).sum().backward()
distributed.reduce_gradients([alone, w, nowhere, half])
assert nowhere.grad is None and alone.grad.eq(1).all() and half.grad.eq(1.5).all()
torch.save((loss.detach(), w.grad), folder / f"rank{rank}.pt")
ranks.destroy_process_group()
"""


def _loss(x: Tensor, mask: Tensor) -> Tensor:
    return distributed.mean(x, mask) + distributed.gather(x).square().mean() + x.sum() * 0.1


def test_a_masked_mean_on_one_process() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [5.0, 7.0, 9.0]])
    assert distributed.mean(x) == x.mean()
    assert distributed.mean(x, MASK) == 11 / 4  # the mean of the rows' means would be 3.5
    assert distributed.mean(x, torch.zeros_like(MASK)) == 0
    assert distributed.mean(x[..., None].expand(2, 3, 4), MASK) == 11 / 4
    assert distributed.sum(x) is x and distributed.gather(x) is x


def test_gradients_of_one_process_are_its_own() -> None:
    weight = torch.ones(3, requires_grad=True)
    weight.square().sum().backward()  # type: ignore[no-untyped-call]
    own = weight.grad
    distributed.reduce_gradients([weight, torch.ones(1, requires_grad=True)])
    assert weight.grad is own and own is not None and own.eq(2).all()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [5.0, 7.0, 9.0]])
    w = torch.tensor([0.5, 1.0, 2.0])
    torch.save((x, MASK, w), tmp_path / "whole.pt")
    command = [sys.executable, "-c", WORKER]
    started = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    weights = w.clone().requires_grad_()
    loss = _loss(x * weights, MASK)
    loss.backward()  # type: ignore[no-untyped-call]
    for rank in (0, 1):
        found, grad = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, loss.detach())
        torch.testing.assert_close(grad, weights.grad)
