"""How the published checks are run: each on a new module, with torch's generator fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from worldflux.testing.inputs import check_constructor_leaves_seeds_alone

_M = TypeVar("_M", bound=nn.Module)


def run_checks(
    make: Callable[[], _M],
    checks: Iterable[Callable[[_M], None]],
    applies: Callable[[Callable[[_M], None], _M], bool],
) -> list[str]:
    """Run the constructor's check and those of `checks` that apply; the names of what ran.

    Raises `AssertionError` naming the first check that fails.
    """
    seeds = check_constructor_leaves_seeds_alone
    _named(seeds.__name__, lambda: seeds(make))
    ran = [seeds.__name__]
    for check in checks:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = make()
            if applies(check, made):
                _named(check.__name__, lambda check=check, made=made: check(made))  # type: ignore[misc]
                ran.append(check.__name__)
    return ran


def _named(name: str, check: Callable[[], None]) -> None:
    try:
        check()
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error
