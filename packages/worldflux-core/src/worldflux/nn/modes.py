"""Modules in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In here `module` is in eval mode (no dropout, learnt norms); afterwards it is as it was."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
