"""Training from Python: `worldflux_train.train(worldflux_train.resolve(...), "runs/one")`.

Names are imported when first used: the command line lists subcommands without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worldflux_train.api import evaluate_run, imagine_run, load_agent, resume, train
    from worldflux_train.comparison.compare import compare
    from worldflux_train.config import resolve

__all__ = ["compare", "evaluate_run", "imagine_run", "load_agent", "resolve", "resume", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(
            f"module 'worldflux_train' has no attribute {name!r}. It offers: {', '.join(__all__)}."
        )
    if name == "compare":
        from worldflux_train.comparison.compare import compare

        return compare
    from worldflux_train import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
