"""Golden files of DIAMOND and DiT (see the pages beside them), and our models in their sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from golden_file import GoldenFile, opened
from torch import Tensor

from worldflux.specs import TensorSpec
from worldflux_diamond.diamond.agent import DiamondAgent
from worldflux_diamond.diamond.config import DiamondConfig
from worldflux_diamond.diamond.reference import load_weights


class Golden(GoldenFile):
    """One golden file: inputs, outputs and weights by name, and the tolerance of each output."""

    @property
    def outputs(self) -> set[str]:
        """The names of all outputs."""
        return {name.removeprefix("out/") for name in self.tensors if name.startswith("out/")}

    def check(self, name: str, ours: Tensor, atol: float | None = None) -> None:
        """Assert that `ours` is output `name`, within its tolerance."""
        expected = self.tensors[f"out/{name}"]
        ours = ours.detach()
        assert ours.numel() == expected.numel(), (name, ours.shape, expected.shape)
        torch.testing.assert_close(
            ours.reshape(expected.shape).to(expected.dtype),
            expected,
            atol=self.atol.get(f"out/{name}", 0.0) if atol is None else atol,
            rtol=self.rtol,
            msg=lambda text: f"{name}: {text}",
        )
        self.checked.add(name)


@pytest.fixture(scope="session")
def golden() -> Golden:
    return opened("diamond", Golden)


@pytest.fixture(scope="session")
def golden_dit() -> Golden:
    return opened("dit", Golden)


def golden_config(found: dict[str, Any]) -> DiamondConfig:
    """Their configuration as ours."""
    inner, rew, ac = found["denoiser"]["inner_model"], found["rew_end_model"], found["actor_critic"]
    sigma, loss = found["sigma_training"], found["actor_critic_loss"]

    def levels(part: dict[str, Any]) -> dict[str, Any]:
        return {
            "cond": part["cond_channels"],
            "channels": part["channels"],
            "depths": part["depths"],
            "attention": [bool(level) for level in part["attn_depths"]],
        }

    denoiser = {
        **levels(inner),
        "history": inner["num_steps_conditioning"],
        "sigma_data": found["denoiser"]["sigma_data"],
        "sigma_offset": found["denoiser"]["sigma_offset_noise"],
        "loc": sigma["loc"],
        "scale": sigma["scale"],
        "train_sigma_min": sigma["sigma_min"],
        "train_sigma_max": sigma["sigma_max"],
    }
    agent = {
        "channels": ac["channels"],
        "down": [bool(level) for level in ac["down"]],
        "lstm": ac["lstm_dim"],
        "gamma": loss["gamma"],
        "lam": loss["lambda_"],
        "value_weight": loss["weight_value_loss"],
        "entropy_weight": loss["weight_entropy_loss"],
        "horizon": found["imagine"]["backup_every"],
        "dream_length": found["imagine"]["horizon"],
    }
    return DiamondConfig.from_dict(
        {
            "model": {
                "denoiser": denoiser,
                "reward_end": {**levels(rew), "lstm": rew["lstm_dim"]},
            },
            "agent": agent,
        }
    )


def spaces(size: int, actions: int) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """A square image, and one choice among several."""
    image = TensorSpec((3, size, size), "uint8", low=0, high=255)
    return {"image": image}, {"action": TensorSpec((), "int64", n=actions)}


@pytest.fixture(scope="session")
def golden_agent(golden: Golden) -> Iterator[DiamondAgent]:
    config = golden_config(golden.config)
    size = golden.config["rew_end_model"]["img_size"]
    with torch.random.fork_rng(devices=[]):
        agent = DiamondAgent(config, *spaces(size, golden.config["actor_critic"]["num_actions"]))
    load_weights(agent, golden.group("w"))
    yield agent
