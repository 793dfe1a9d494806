"""The model card that is written beside saved weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worldflux.core.agent import Learner
    from worldflux.core.model import WorldModel


def model_card(identity: Mapping[str, Any], saved: WorldModel | Learner) -> str:
    """Markdown with the front matter hub sites read; only facts about these weights."""
    name = ":".join(part for part in (identity["family"], identity["preset"]) if part)
    name = name or identity["class"].partition(":")[2]
    what = "world model" if identity["kind"] == "world_model" else "agent with its world model"
    spaces = "\n".join(
        f"| {role} `{key}` | {_space(spec)} |"
        for role, specs in (
            ("observation", identity["obs_spec"]),
            ("action", identity["action_spec"]),
        )
        for key, spec in specs.items()
    )
    slots = "\n".join(f"* `{slot}`: `{part['class']}`" for slot, part in identity["slots"].items())
    replaced = f"\n## Replaced components\n\n{slots}\n" if slots else ""
    return f"""---
library_name: worldflux
tags:
  - world-model
  - reinforcement-learning
---

# {name}

A {what} saved by WorldFlux {identity["worldflux"]} (torch {identity["torch"]}), with
{identity["parameters"]:,} trainable parameters and contract `{identity["fingerprint"]}`.

```python
import worldflux

saved = worldflux.from_pretrained("path/or/repository")
```

| space | value |
|---|---|
{spaces}
{replaced}
## Configuration

```json
{saved.config.to_json()}
```
"""


def _space(spec: Mapping[str, Any]) -> str:
    if spec["n"] is not None:
        return f"discrete, {spec['n']} choices"
    return f"{spec['dtype']} {tuple(spec['shape'])}"
