"""The encoder of the page "Swap a part" learns what the family's own encoder does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from worldflux_train.api import train
from worldflux_train.config import resolve

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "swap.md"
GATE = 0.6
"""That of `rssm-catch` in test_gates.py."""


def test_a_swapped_encoder_reaches_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = re.search(r"```python\n# (my_parts/encoder\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None, "the page has no encoder"
    path = tmp_path / found[1]
    path.parent.mkdir()
    path.write_text(found[2])
    monkeypatch.syspath_prepend(str(tmp_path))
    config = resolve(config="rssm-catch", overrides={"train.eval_every": 0})
    part = {"class": "my_parts.encoder:TokenEncoder", "depth": 1}
    result = train(config, tmp_path / "run", slots={"observation_encoder": part})
    for name in [name for name in sys.modules if name.startswith("my_parts")]:
        del sys.modules[name]
    scores = [row["eval/return"] for row in result.run.metrics() if "eval/return" in row]
    assert scores[-1] >= GATE, scores
