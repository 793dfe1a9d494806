"""The golden file of Genie: its tensors and tolerances, and our model with its weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from golden_file import GoldenFile, opened
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.specs import TensorSpec
from worldflux_genie.agent import GenieLearner
from worldflux_genie.config import PRESETS, GenieConfig
from worldflux_genie.reference import load_weights
from worldflux_genie.world_model import GenieWorldModel

SMALL: dict[str, Any] = {
    "model.frames": 5,
    "model.tokenizer.patch": 4,
    "model.tokenizer.quantizer": {"kind": "vq", "codes": 24, "dim": 6, "reset": 3},
    "model.latent_action.patch": 8,
    "model.latent_action.quantizer": {"codes": 5, "dim": 6, "reset": 3, "open": 0},
    "model.dynamics.steps": 4,
    **{
        f"model.{part}": {"dim": 16, "ffn": 24, "blocks": 2, "heads": 2}
        for part in (
            "tokenizer.encoder", "tokenizer.decoder", "latent_action.encoder",
            "latent_action.decoder", "dynamics.transformer",
        )
    },
    **{
        f"agent.{phase}": {"steps": 4, "batch": 3, "lr": 1e-3, "warmup": 0, "decay": 0}
        for phase in ("tokenizer", "latent_action", "dynamics")
    },
}  # fmt: skip
OBS = {"image": TensorSpec((3, 16, 12), "uint8", low=0, high=255)}


def small_config(**overrides: Any) -> GenieConfig:
    """A Genie of two narrow blocks everywhere, 12 tokens of 24 and 5 actions."""
    return PRESETS["tiny"].with_(**{**SMALL, **overrides})


def small_learner(**overrides: Any) -> GenieLearner:
    """A learner of 16 x 12 images, its weights from the global generator."""
    return GenieLearner(small_config(**overrides), OBS)


class Jasmine(GoldenFile):
    """The file of p-doom/jasmine, as our configuration, model and batches."""

    learner = staticmethod(small_learner)

    def genie_config(self, kind: str = "maskgit") -> GenieConfig:
        """Our configuration of the file's sizes."""
        c = self.config

        def net(part: dict[str, Any]) -> dict[str, int]:
            names = {"dim": "model_dim", "ffn": "ffn_dim", "blocks": "num_blocks"}
            return {ours: part[theirs] for ours, theirs in {**names, "heads": "num_heads"}.items()}

        quantizer = {"kind": "vq", "dim": c["latent_dim"], "beta": c["vq_beta"], "dropout": 0.0}
        sample = c["sample"]
        model = {
            "frames": c["frames"],
            "tokenizer": {
                "patch": c["tokenizer"]["patch_size"],
                "encoder": net(c["tokenizer"]),
                "decoder": net(c["tokenizer"]),
                "quantizer": {**quantizer, "codes": c["tokenizer"]["num_latents"]},
            },
            "latent_action": {
                "patch": c["lam"]["patch_size"],
                "encoder": net(c["lam"]),
                "decoder": net(c["lam"]),
                "quantizer": {
                    **quantizer, "codes": c["lam"]["num_latents"], "reset": c["lam_reset_threshold"]
                },
            },
            "dynamics": {
                "transformer": net(c["dynamics" if kind == "maskgit" else "causal"]),
                "kind": kind,
                "mask_low": c["dynamics"]["mask_limit"],
                "steps": sample["steps"],
                "temperature": sample["temperature"],
            },
        }  # fmt: skip
        return GenieConfig().with_(model=model)

    @property
    def obs_spec(self) -> dict[str, TensorSpec]:
        """The file's images."""
        c = self.config
        shape = (c["channels"], c["height"], c["width"])
        return {"image": TensorSpec(shape, "uint8", low=0, high=255)}

    def weights(self, kind: str = "maskgit") -> dict[str, Tensor]:
        """Their weights of one dynamics or the other, under `dynamics/` both times."""
        found = {k: v for k, v in self.group("w").items() if not k.startswith("action_embed")}
        if kind == "causal":
            found = {k: v for k, v in found.items() if not k.startswith("dynamics/")}
            return {k.replace("causal/", "dynamics/", 1): v for k, v in found.items()}
        return {k: v for k, v in found.items() if not k.startswith("causal/")}

    def model(self, kind: str = "maskgit") -> GenieWorldModel:
        """Our model with their weights."""
        model = GenieWorldModel(self.genie_config(kind), self.obs_spec)
        load_weights(model, self.weights(kind))
        return model


@pytest.fixture(scope="session")
def small() -> Any:
    """A function that makes a small learner, given overrides."""
    return small_learner


@pytest.fixture(scope="session")
def batch() -> Any:
    """A function that makes a Batch of videos (B, T, C, Y, X)."""
    return batch_of


def batch_of(video: Tensor) -> Batch:
    """Videos (B, T, C, Y, X) as a Batch of one episode each."""
    first = torch.zeros(video.shape[:2], dtype=torch.bool)
    first[:, 0] = True
    last = torch.zeros_like(first)
    return Batch(obs={"image": video}, is_first=first, is_last=last, is_terminal=last.clone())


@pytest.fixture(scope="session")
def jasmine() -> Jasmine:
    """The golden file of jasmine, or a skip that says where it was looked for."""
    return opened("genie", Jasmine)


@pytest.fixture(scope="session")
def tinyworlds() -> GoldenFile:
    """The golden file of tinyworlds, likewise."""
    return opened("tinyworlds", GoldenFile)


@pytest.fixture(autouse=True)
def _forked_rng() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
