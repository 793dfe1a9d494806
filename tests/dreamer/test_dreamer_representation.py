"""The representation losses of DreamerV3: three choices, and one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldflux.core.batch import Batch
from worldflux.core.output import ModelOutput
from worldflux.core.rand import Rand
from worldflux.errors import CapabilityError, ConfigError, StorageError
from worldflux.factory import create_agent, create_world_model
from worldflux.hub import from_pretrained
from worldflux.specs import Capability, TensorSpec
from worldflux.testing import check_agent, check_world_model
from worldflux.testing.batches import random_batch
from worldflux_dreamer.dreamerv3.agent import DreamerV3Agent
from worldflux_dreamer.dreamerv3.config import ModelConfig
from worldflux_dreamer.dreamerv3.representation.base import Representation
from worldflux_dreamer.dreamerv3.representation.contrastive import info_nce
from worldflux_dreamer.dreamerv3.representation.kinds import KINDS
from worldflux_dreamer.dreamerv3.representation.r2 import barlow_loss
from worldflux_dreamer.dreamerv3.world_model import DreamerV3WorldModel

VECTOR, CONTINUOUS = {"state": TensorSpec((5,))}, {"action": TensorSpec((2,), low=-1.0, high=1.0)}
IMAGE = {"image": TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
TINY: dict[str, Any] = {
    "model.deter": 32, "model.hidden": 16, "model.units": 16, "model.stoch": 4, "model.depth": 2,
    "agent.imag_length": 3, "agent.context": 0,
}  # fmt: skip
WITHOUT_DECODER = ["r2", "contrastive"]


def options(kind: str) -> dict[str, Any]:
    return {"action_spec": CONTINUOUS, "model.representation": kind, **TINY}


def model(kind: str, obs: dict[str, TensorSpec] = VECTOR) -> DreamerV3WorldModel:
    made = create_world_model("dreamerv3:size1m", obs_spec=obs, **options(kind))
    assert isinstance(made, DreamerV3WorldModel)
    return made


def batch(obs: dict[str, TensorSpec] = VECTOR) -> Batch:
    return random_batch(obs, CONTINUOUS, batch=3, length=8)


@pytest.mark.parametrize("kind", WITHOUT_DECODER)
def test_models_without_a_decoder_keep_the_contract(kind: str) -> None:
    assert "check_loss_trains_everything" in check_world_model(lambda: model(kind))
    check_agent(lambda: create_agent("dreamerv3:size1m", obs_spec=VECTOR, **options(kind)))


@pytest.mark.parametrize("kind", WITHOUT_DECODER)
def test_nothing_is_drawn_without_a_decoder(kind: str) -> None:
    made = model(kind, IMAGE)
    with pytest.raises(CapabilityError):
        made.require(Capability.OBS_DECODE)
    predicted = made.decode(made.initial(2)).predictions
    assert set(predicted) == {"reward", "continue"} == set(made.prediction_spec().tensors)
    names = {name for name, _ in made.decoder_module.named_children()}  # type: ignore[union-attr]
    assert names == {"reward", "going_on"}


def test_reconstruction_is_the_default_and_adds_no_parameters() -> None:
    plain = create_world_model("dreamerv3:size1m", action_dim=6)
    assert plain.supports(Capability.OBS_DECODE)
    assert not list(plain.representation.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", WITHOUT_DECODER)
def test_the_projector_is_the_only_addition(kind: str) -> None:
    made = model(kind)
    counts = [p.numel() for p in made.representation.parameters()]
    assert counts == [(32 + 4 * made.config.model.classes) * 16]


@pytest.mark.parametrize("kind", WITHOUT_DECODER)
def test_embeddings_are_targets_only(kind: str) -> None:
    """The encoder learns through the posterior, not by moving what it is compared with."""
    made = model(kind)
    feat, embed = torch.randn(2, 4, 32 + 4 * made.config.model.classes), torch.randn(2, 4, 16)
    embed.requires_grad_()
    data = made.targets(random_batch(VECTOR, CONTINUOUS, batch=2, length=4))
    (term,) = made.representation(feat.requires_grad_(), embed, None, data).values()
    assert term.shape == (2, 4)
    term.mean().backward()
    assert embed.grad is None
    assert feat.grad is not None


def test_the_r2_loss_is_barlow_twins() -> None:
    left, right = torch.randn(40, 5), torch.randn(40, 5)
    total = 0.0
    for i in range(5):
        for j in range(5):
            a, b = left[:, i], right[:, j]
            c = float(((a - a.mean()) / a.std() * ((b - b.mean()) / b.std())).sum() / 40)
            total += (c - 1) ** 2 if i == j else 5e-4 * c**2
    assert barlow_loss(left, right, 5e-4).item() == pytest.approx(total, rel=1e-4)
    same: Tensor = barlow_loss(left, left, 0.0)
    assert same.item() == pytest.approx(5 * (1 / 40) ** 2, rel=1e-2)


def test_the_contrastive_loss_finds_its_own() -> None:
    left, right = torch.randn(6, 4), torch.randn(6, 4)
    for i, ours in enumerate(info_nce(left, right).tolist()):
        scores = [float((left[i] * right[j]).sum()) for j in range(6)]
        expected = torch.tensor(scores).logsumexp(0) - scores[i]
        assert ours == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["reconstruction", *WITHOUT_DECODER])
def test_updates_learn_by_the_chosen_loss(kind: str) -> None:
    agent = create_agent("dreamerv3:size1m", obs_spec=VECTOR, **options(kind))
    assert isinstance(agent, DreamerV3Agent)
    metrics = agent.update(batch(), rand=Rand.seeded(0)).metrics
    name = "state" if kind == "reconstruction" else kind
    assert torch.isfinite(torch.as_tensor(metrics[f"loss/{name}"]))
    others = {"state", *WITHOUT_DECODER} - {name}
    assert not any(f"loss/{other}" in metrics for other in others)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"'contrastiv' is no known loss. Did you mean 'contrasti"
    ):
        model("contrastiv")


class Agreement(Representation):
    """A user's loss: projected features near the embeddings."""

    def __init__(
        self, config: ModelConfig, obs_spec: Mapping[str, TensorSpec], feat: int, embed: int
    ) -> None:
        super().__init__()
        self.map = nn.Linear(feat, embed)

    def scales(self) -> dict[str, float]:
        return {"agreement": 0.5}

    def forward(
        self, feat: Tensor, embed: Tensor, output: ModelOutput, data: Batch
    ) -> dict[str, Tensor]:
        return {"agreement": (self.map(feat) - embed.detach()).square().mean(-1)}


def test_a_users_loss_is_chosen_by_name_trained_and_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(KINDS, "agreement", Agreement)
    check_agent(lambda: create_agent("dreamerv3:size1m", obs_spec=VECTOR, **options("agreement")))
    made = model("agreement")
    found = made.loss(batch(), rand=Rand.seeded(0))
    assert "agreement" in found.components and not made.supports(Capability.OBS_DECODE)
    made.save_pretrained(tmp_path / "model")
    again = from_pretrained(tmp_path / "model")
    assert isinstance(again, DreamerV3WorldModel)
    assert isinstance(again.representation, Agreement)
    monkeypatch.delitem(KINDS, "agreement")
    with pytest.raises(StorageError, match=r"'agreement' is no known loss.*representation.kinds"):
        from_pretrained(tmp_path / "model")
