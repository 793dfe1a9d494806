"""LaProp with adaptive gradient clipping: clip, normalise by the running RMS, then momentum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


class LaProp(torch.optim.Optimizer):
    """Gradient -> AGC -> RMS scaling -> momentum -> learning rate (agent.py:_make_opt).

    Momentum averages *normalised* gradients, unlike Adam. The learning rate of update k, counted
    from 0, is lr * min(1, k / warmup): with a warmup the first update changes nothing. Both
    averages are bias-corrected. There is no weight decay.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 4e-5,
        warmup: int = 1000,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        agc: float = 0.3,
        pmin: float = 1e-3,
    ) -> None:
        defaults = {
            "lr": lr,
            "warmup": warmup,
            "betas": betas,
            "eps": eps,
            "agc": agc,
            "pmin": pmin,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for count, same in self._advance(params).items():
                self._step_together(same, count, group)
        return loss

    def _step_together(self, params: list[Tensor], count: int, group: dict[str, Any]) -> None:
        """Update `count` of each of these parameters."""
        grads = [p.grad for p in params if p.grad is not None]
        norms = torch._foreach_norm(grads)
        clips = agc_factors(norms, torch._foreach_norm(params), group["agc"], group["pmin"])
        states = [self.state[p] for p in params]
        parts = [params, grads, [s["square"] for s in states], [s["momentum"] for s in states]]
        in_parts = params[0].device.type == "cpu"
        step = _step_in_parts if in_parts else _step_foreach
        step(*parts, clips.unbind(), count, group)  # type: ignore[arg-type,call-arg]

    def last_update(self, param: Tensor) -> Tensor:
        """What the last step added to `param`, in the same shape."""
        group = next(g for g in self.param_groups if any(p is param for p in g["params"]))
        state = self.state[param]
        return state["momentum"] * _step_size(int(state["step"]), group)

    def _advance(self, params: list[Tensor]) -> dict[int, list[Tensor]]:
        """Count this update; the parameters by their own count, as gradients may begin later."""
        found: dict[int, list[Tensor]] = {}
        for param in params:
            if not self.state[param]:
                self.state[param]["step"] = torch.zeros(())
                self.state[param]["square"] = torch.zeros_like(param)
                self.state[param]["momentum"] = torch.zeros_like(param)
            count = int(self.state[param]["step"]) + 1
            self.state[param]["step"] = torch.tensor(float(count))
            found.setdefault(count, []).append(param)
        return found


def agc_factors(
    grad_norms: Iterable[Tensor], param_norms: Iterable[Tensor], agc: float, pmin: float
) -> Tensor:
    """Factor (N,) per tensor that keeps |grad| <= agc * max(pmin, |param|) (opt.py:clip_by_agc)."""
    norms = torch.stack(list(grad_norms))
    if not agc:
        return torch.ones_like(norms)
    upper = agc * torch.stack(list(param_norms)).clamp(min=pmin)
    return 1 / (norms / upper).clamp(min=1.0)


def _step_foreach(
    params: list[Tensor],
    grads: list[Tensor],
    squares: list[Tensor],
    momenta: list[Tensor],
    clips: Sequence[Tensor],
    count: int,
    group: dict[str, Any],
) -> None:
    """p <- p - lr m / (1 - b1^t), m <- b1 m + (1 - b1) g / (sqrt(v / (1 - b2^t)) + eps)."""
    beta1, beta2 = group["betas"]
    unbiased = math.sqrt(1 - beta2**count)
    grads = list(torch._foreach_mul(grads, list(clips)))
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, group["eps"] * unbiased)
    torch._foreach_mul_(momenta, beta1)
    torch._foreach_addcdiv_(momenta, grads, roots, value=(1 - beta1) * unbiased)
    torch._foreach_add_(params, momenta, alpha=_step_size(count, group))


PART = 1 << 16
"""Elements that are taken through all operations at once, so that they stay in the cache."""


def _step_in_parts(
    params: list[Tensor],
    grads: list[Tensor],
    squares: list[Tensor],
    momenta: list[Tensor],
    clips: Sequence[Tensor],
    count: int,
    group: dict[str, Any],
) -> None:
    """`_step_foreach`, part by part: on CPU the time goes into memory traffic."""
    for param, grad, square, momentum, clip in zip(
        params, grads, squares, momenta, clips, strict=True
    ):
        arrays = [array.view(-1).split(PART) for array in (param, grad, square, momentum)]
        for p, g, s, m in zip(*arrays, strict=True):
            _step_foreach([p], [g], [s], [m], [clip], count, group)


def _step_size(count: int, group: dict[str, Any]) -> float:
    """Factor on the momentum in update `count` (from 1): learning rate and bias correction."""
    warmup = group["warmup"]
    lr = group["lr"] * (min(1.0, (count - 1) / warmup) if warmup else 1.0)
    return -float(lr / (1 - group["betas"][0] ** count))
