"""Training from Python: `worldflux_train.train(worldflux_train.resolve(...), "runs/one")`.

Names are imported when first used: the command line lists subcommands without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worldflux_train.api import evaluate_run, imagine_run, load_agent, resume, train
    from worldflux_train.comparison.compare import compare
    from worldflux_train.config import resolve
    from worldflux_train.scoring import score_runs

__all__ = [
    "compare", "evaluate_run", "imagine_run", "load_agent", "resolve", "resume", "score_runs",
    "train",
]  # fmt: skip


def _import(name: str) -> object:
    if name not in __all__:
        raise AttributeError(
            f"module 'worldflux_train' has no attribute {name!r}. It offers: {', '.join(__all__)}."
        )
    if name == "compare":
        from worldflux_train.comparison.compare import compare

        return compare
    if name == "score_runs":
        from worldflux_train.scoring import score_runs

        return score_runs
    from worldflux_train import api

    value: object = getattr(api, name)
    return value


if not TYPE_CHECKING:  # checkers would take a misspelt name for one of type Any
    __getattr__ = _import


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
