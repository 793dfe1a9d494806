"""Sums and means over all ranks of a distributed run; on one process they are torch's own.

The mean of ranks' masked means is wrong where their masks differ: every masked mean and batch
statistic of a loss goes through here. All are differentiable. Each rank computes the same loss of
the whole batch, and its backward counts a rank's part once for each rank: gradients that are then
averaged over ranks are those of that loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as ranks

_T = TypeVar("_T")


def world_size() -> int:
    """Number of ranks; 1 outside a distributed run."""
    return ranks.get_world_size() if ranks.is_available() and ranks.is_initialized() else 1


def rank() -> int:
    """The number of this rank, from 0; 0 outside a distributed run."""
    return ranks.get_rank() if world_size() > 1 else 0


def agreed(wanted: bool) -> bool:
    """Whether any rank wants something (to stop, say): the same answer on all of them."""
    if world_size() == 1:
        return wanted
    votes = torch.tensor([float(wanted)], device=_device())
    ranks.all_reduce(votes)
    return bool(votes.item() > 0)


def total(count: int) -> int:
    """The sum of all ranks' counts (of steps, say), on all of them."""
    if world_size() == 1:
        return count
    found = torch.tensor([count], device=_device())
    ranks.all_reduce(found)
    return int(found.item())


def told(value: _T) -> _T:
    """Rank 0's `value`, which JSON can hold, on all ranks; theirs is not looked at."""
    if world_size() == 1:
        return value
    text = json.dumps(value).encode() if rank() == 0 else b""
    size = torch.tensor([len(text)], device=_device())
    ranks.broadcast(size, 0)
    held = torch.zeros(int(size.item()), dtype=torch.uint8)
    if text:
        held = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    held = held.to(_device())
    ranks.broadcast(held, 0)
    found: _T = json.loads(bytes(held.cpu().numpy()))
    return found


def wait() -> None:
    """Go on once every rank is here."""
    if world_size() > 1:
        ranks.barrier()


def _device() -> torch.device:
    """Where the ranks exchange what lies on no device: NCCL knows GPUs alone."""
    return torch.device("cuda" if ranks.get_backend() == "nccl" else "cpu")


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Rank 0's values of `tensors`, each of any shape, in place on all ranks, in this order."""
    for tensor in tensors if world_size() > 1 else ():
        held = tensor.contiguous()
        ranks.broadcast(held, 0)
        tensor.copy_(held)


def sum(x: Tensor) -> Tensor:
    """Sum of x (...) over the ranks, element by element, (...)."""
    if world_size() == 1:
        return x
    from torch.distributed.nn.functional import all_reduce

    total: Tensor = all_reduce(x.contiguous())  # type: ignore[no-untyped-call]
    return total


def mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean (0-d) of x (...) over all elements of all ranks, of those alone where `mask` holds.

    `mask` (...) has leading axes of x, and applies to all that is behind them. It is 0 if no
    element counts anywhere.
    """
    if mask is None and world_size() == 1:
        return x.mean()
    if mask is None:
        weight = torch.ones_like(x)
    else:
        weight = mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim)).to(x).expand_as(x)
    return sum((x * weight).sum()) / sum(weight.sum()).clamp(min=1)


def gather(x: Tensor) -> Tensor:
    """The rows (B, ...) of all ranks, in their order, (ranks * B, ...); B must be equal on all."""
    count = world_size()
    if count == 1:
        return x
    own = ranks.get_rank()
    before, after = x.new_zeros(own * len(x), *x.shape[1:]), (count - own - 1) * len(x)
    return sum(torch.cat([before, x, x.new_zeros(after, *x.shape[1:])]))


def reduce_gradients(params: Iterable[Tensor]) -> None:
    """Average the gradients of `params` over the ranks, in place; one process keeps its own.

    A parameter without a gradient on some ranks counts as 0 there; without one anywhere it stays
    so, as an optimiser makes a difference between the two.
    """
    count = world_size()
    if count == 1:
        return
    found = list(params)
    if not found:
        return
    has = torch.tensor([p.grad is not None for p in found], device=found[0].device).float()
    ranks.all_reduce(has)
    used = [parameter for parameter, anywhere in zip(found, has.tolist(), strict=True) if anywhere]
    for parameter in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for dtype in dict.fromkeys(parameter.dtype for parameter in used):  # the same order everywhere
        grads = [p.grad for p in used if p.grad is not None and p.dtype == dtype]
        flat = torch.cat([grad.flatten() for grad in grads])
        ranks.all_reduce(flat)
        pieces = (flat / count).split([grad.numel() for grad in grads])
        for grad, piece in zip(grads, pieces, strict=True):
            grad.copy_(piece.view_as(grad))
