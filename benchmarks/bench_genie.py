"""Genie's costs in process CPU time on one thread, raw and normalised (see matmul_peak).

The sizes are those of the small published implementation (tinyworlds: 64 x 64 frames in patches of
4, four frames, about 0.4 million parameters in all).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.matmul_peak import Case, measured_rows
from worldflux.core.rand import Rand
from worldflux.specs import TensorSpec
from worldflux.testing import random_batch
from worldflux_genie.agent import GenieLearner
from worldflux_genie.config import PRESETS, GenieConfig

OBS = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
BATCH, FRAMES, GENERATED = 4, 4, 8


def config(frames: int) -> GenieConfig:
    """The published sizes: width 32, four blocks, eight heads, patches of 4, FSQ of 4 x 5."""
    net = {"dim": 32, "ffn": 128, "blocks": 4, "heads": 8}
    parts = ("tokenizer.encoder", "tokenizer.decoder", "latent_action.encoder",
             "latent_action.decoder", "dynamics.transformer")  # fmt: skip
    return PRESETS["tiny"].with_(
        **{
            "model.frames": frames, "model.tokenizer.patch": 4, "model.latent_action.patch": 4,
            "model.dynamics.steps": 10, **{f"model.{part}": net for part in parts},
        }
    )  # fmt: skip


def rows() -> list[dict[str, object]]:
    """One row per case: name, cpu_ms, normalised, target, peer (AlmondGod/tinyworlds)."""
    return measured_rows(cases)


def cases() -> list[Case]:
    """The operations of the project's benchmark table."""
    return [
        Case(f"genie tokenizer update, B{BATCH} T{FRAMES}", update_step(), target=43.0, peer=107.0),
        Case(f"genie {GENERATED} frames, 10 rounds", generate(True), target=150.0, peer=697.0),
        Case(f"genie {GENERATED} frames, nothing kept", generate(False)),
    ]


def update_step() -> Callable[[], object]:
    """One update of the tokenizer."""
    learner, rand = GenieLearner(config(FRAMES), OBS), Rand.seeded(0)
    learner.total = dict.fromkeys(learner.optimizers, 10**6)
    batch = random_batch(OBS, None, BATCH, FRAMES, boundary=False)
    return lambda: learner.update(batch, "tokenizer", rand=rand)


@torch.no_grad()
def generate(kept: bool) -> Callable[[], object]:
    """Frames after a prompt of one, with and without the keys and values of finished frames."""
    model, rand = GenieLearner(config(GENERATED + 1), OBS).world_model.eval(), Rand.seeded(0)
    start = model.encode(random_batch(OBS, None, 1, 1).obs["image"][:, 0])
    actions = torch.zeros(GENERATED, 1, dtype=torch.int64)

    def played() -> object:
        state = start
        with torch.no_grad():
            for action in actions:
                state = state if kept else state.without_caches()
                state = model.transition(state, action, rand=rand)
            return model.decoder_module.of_tokens(state["tokens"])

    return played


if __name__ == "__main__":
    for row in rows():
        print(row)
