"""The command-line reference is what the command says of itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

GENERATOR = Path(__file__).parents[2] / "docs" / "cli_reference.py"


def test_the_reference_is_current():
    spec = importlib.util.spec_from_file_location("cli_reference", GENERATOR)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text() == module.reference(), "run: python docs/cli_reference.py"
    assert module.TRAINING.read_text() == module.training(), "run: python docs/cli_reference.py"
    assert "| `train.keep_last` | `2` | integer > 0 | Checkpoints kept" in module.training()
