"""Numbers that are not finite are never learned as a bin, and targets are fp32 under bf16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from worldflux.nn.two_hot import symexp_bins, two_hot, two_hot_loss, two_hot_mean
from worldflux_dreamer.dreamerv3.optim import LaProp


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_target_that_is_not_finite_is_no_bin(value: float) -> None:
    bins = symexp_bins()
    target = torch.tensor([value, 3.0])
    weights = two_hot(target, bins)
    assert weights[0].isnan().any()
    assert float(weights[1] @ bins) == pytest.approx(3.0, rel=1e-5)
    loss = two_hot_loss(torch.zeros(2, 255), target[:, None], [1.0], bins)
    assert loss.isnan().tolist() == [True, False]


def test_the_largest_numbers_stay_in_the_last_bins() -> None:
    bins = symexp_bins()
    assert two_hot(torch.tensor([3e38]), bins)[0, -1] == 1.0


def test_predictions_near_300_are_exact_under_bf16() -> None:
    bins = symexp_bins()
    logits = two_hot(torch.tensor([299.0, 301.0]), bins).log().clamp(min=-50)
    with torch.autocast("cpu", torch.bfloat16):
        found = two_hot_mean(logits, bins)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([299.0, 301.0], rel=1e-4)


def trained(grads: list[list[float | None]]) -> list[float]:
    """Two parameters after LaProp updates with these gradients, None where there is none."""
    params = [nn.Parameter(torch.ones(1)) for _ in grads[0]]
    optimizer = LaProp(params, lr=0.1, warmup=0)
    for step in grads:
        for param, grad in zip(params, step, strict=True):
            param.grad = None if grad is None else torch.tensor([grad])
        optimizer.step()
    return [float(param.detach()) for param in params]


def test_a_parameter_whose_gradients_begin_later_is_corrected_by_its_own_count() -> None:
    late = trained([[0.1, None], [0.2, None], [0.3, 0.1], [0.1, 0.2]])
    alone = trained([[0.1], [0.2]])
    first = trained([[0.1], [0.2], [0.3], [0.1]])
    assert late == pytest.approx([*first, *alone], rel=1e-6)


def test_laprop_without_any_gradient_changes_nothing() -> None:
    assert trained([[None, None]]) == [1.0, 1.0]
