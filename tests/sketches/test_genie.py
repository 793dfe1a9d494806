"""Genie in small: video without actions, from which actions are learnt."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux import Batch, Config, LossOutput, Session, State, UpdateResult, WorldModel
from worldflux.columns import Columns, step_columns
from worldflux.core.agent import Learner
from worldflux.core.evaluation import Evaluation
from worldflux.core.interfaces import (
    ActionConditioner,
    Decoder,
    DynamicsModel,
    ObservationEncoder,
)
from worldflux.core.output import metrics
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.rand import Rand, gumbel, randint
from worldflux.core.source import Source
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.distributed import mean, sum
from worldflux.specs import Capability, TensorSpec
from worldflux.testing import check_agent, check_world_model
from worldflux.training import Phase, TrainingPlan

N, V, D, A, T = 4, 8, 10, 8, 4  # tokens of a frame, words, features, latent actions, frames
IMAGE = (3, 8, 8)
OBS = {"image": TensorSpec(IMAGE, "uint8", low=0, high=255)}


class VideoTokenizer(ObservationEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.codes = nn.Conv2d(3, D, 4, 4), nn.Embedding(V, D)

    def features(self, image: Tensor) -> Tensor:
        """(B, 3, Y, X) uint8 -> (B, N, D)."""
        return self.patches(image.float() / 255).flatten(2).transpose(1, 2)

    def forward(self, obs: dict[str, Tensor]) -> State:
        z = self.features(obs["image"])
        return State(
            {"tokens": torch.cdist(z, self.codes.weight.expand(len(z), -1, -1)).argmin(-1)}
        )


class Codes(nn.Module):
    """A code-book that follows what is assigned to it, without a gradient."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(A, D))

    @torch.no_grad()
    def follow(self, z: Tensor, index: Tensor, rand: Rand) -> None:
        """Features (M, D) assigned to index (M,); codes without any start anew at one of z."""
        chosen, z = F.one_hot(index, A).float(), z.float()  # bf16 under autocast
        count, total = sum(chosen.sum(0)), sum(chosen.T @ z)
        moved = torch.lerp(self.table, total / count.clamp(min=1)[:, None], 0.1)
        fresh = z[rand.draw("fresh", (A,), randint(len(z)))]
        self.table.copy_(torch.where(count[:, None] > 0, moved, fresh))


class LatentActions(ActionConditioner):
    """Which of A actions leads from a frame to the next; a choice to its code (B, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.codes, self.next = nn.Linear(384, D), Codes(), nn.Linear(192 + D, 192)

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        assert action is not None
        return action @ self.codes.table if action.is_floating_point() else self.codes.table[action]

    def inferred(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, 3, Y, X) -> features (B, T-1, D) and actions (B, T-1)."""
        x = image.float().flatten(2) / 255
        z = self.pair(torch.cat([x[:, :-1], x[:, 1:]], -1))
        return z, torch.cdist(z, self.codes.table.expand(len(z), -1, -1)).argmin(-1)


class MaskGIT(DynamicsModel):
    """All tokens of the next frame at once, in two rounds; remembers how many frames there were."""

    recurrent = True

    def __init__(self, actions: int) -> None:
        super().__init__()
        self.words = nn.Embedding(V + 1, D)  # the last one: masked
        self.net, self.logits = nn.Linear(2 * N * D + actions, N * D), nn.Linear(D, V)

    def initial(self, batch_size: int, device: torch.device) -> State:
        tokens = torch.zeros(batch_size, N, dtype=torch.int64, device=device)
        return State({"tokens": tokens, "length": tokens[:, 0].clone()})

    def guess(self, tokens: Tensor, action: Tensor, partly: Tensor) -> Tensor:
        """Tokens (B, N), action (B, A') and what is known of the next (B, N) -> (B, N, V)."""
        parts = [self.words(tokens).flatten(1), self.words(partly).flatten(1), action]
        return self.logits(self.net(torch.cat(parts, -1)).unflatten(-1, (N, D)).tanh())

    def transition(
        self, state: State, action: Tensor, *, deterministic: bool = False, rand: Rand | None = None
    ) -> State:
        tokens, B = state["tokens"], state.batch_size
        known = torch.full_like(tokens, V)
        for step in range(2):
            logits = self.guess(tokens, action, known)
            if not deterministic:
                noise = (rand or Rand()).under(f"round{step}/")
                logits = logits + noise.draw("tokens", (B, N, V), gumbel, device=tokens.device)
            best, found = logits.max(-1)
            sure = best >= best.median(1, keepdim=True).values if step == 0 else best.isfinite()
            known = torch.where((known == V) & sure, found, known)
        return State({"tokens": known, "length": state["length"] + 1}, state.meta)

    def observe(
        self, state: State, action: Tensor, features: State, is_first: Tensor,
        *, deterministic: bool = False, rand: Rand | None = None,
    ) -> State:  # fmt: skip
        length = state["length"].masked_fill(is_first, 0) + 1
        return State({"tokens": features["tokens"], "length": length}, state.meta)


class FrameDecoder(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.pixels = nn.Embedding(V, D), nn.ConvTranspose2d(D, 3, 4, 4)

    def image(self, q: Tensor) -> Tensor:
        """(B, N, D) -> (B, 3, Y, X)."""
        return self.pixels(q.transpose(1, 2).unflatten(-1, (2, 2)))

    def forward(
        self, state: State, keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        if keys is not None and "image" not in keys:
            return {}
        return {"image": self.image(self.words(state["tokens"]))}


class Model(WorldModel):
    capabilities = frozenset({Capability.OBS_DECODE, Capability.LATENT_ACTIONS})
    composable_support = frozenset({"dynamics_model", "decoder_module"})

    def __init__(self, config: Config, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.action = TensorSpec((), "int64", n=A)  # latent; action_spec stays empty
        self.fill("observation_encoder", VideoTokenizer, expects={"tokens": (N,)})
        self.fill("action_conditioner", LatentActions)
        self.fill("dynamics_model", lambda: MaskGIT(self.features["action"].size))
        self.fill("decoder_module", FrameDecoder)

    def state_spec(self) -> StateSpec:
        tokens, length = TensorSpec((N,), "int64"), TensorSpec((), "int64")
        return StateSpec({"tokens": tokens, "length": length})

    def prediction_spec(self) -> PredictionSpec:
        return PredictionSpec(dict(self.obs_spec))

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        parts = {}
        if part in (None, "tokenizer"):
            parts["tokenizer"] = self._tokenizer_loss(batch)
        if part in (None, "world"):
            parts["latent_action"], found = self.latent_action_loss(batch)
            acted = replace(batch, action=found["action"])
            parts["dynamics"] = self.dynamics_loss(acted, rand)[0]
        return LossOutput(torch.stack(list(parts.values())).sum(), parts)

    def _tokenizer_loss(self, batch: Batch) -> Tensor:
        image, encoder = batch.obs["image"].flatten(0, 1), self.observation_encoder
        z, index = encoder.features(image), encoder({"image": image})["tokens"]
        q = encoder.codes(index)
        code = self.decoder_module.words(index)
        seen = self.decoder_module.image(code + z - z.detach())
        error = (seen - image.float() / 255).square().mean((1, 2, 3))
        return mean(error + (z.detach() - q).square().mean((1, 2)))

    def latent_action_loss(
        self, batch: Batch, rand: Rand | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        image, part = batch.obs["image"], self.action_conditioner
        z, index = part.inferred(image)
        code = z + (part(index) - z).detach()
        before = image[:, :-1].float().flatten(2) / 255
        guess = part.next(torch.cat([before, code], -1))
        error = (guess - image[:, 1:].float().flatten(2) / 255).square().mean(-1)
        near = (z - part(index)).square().mean(-1)
        action = torch.cat([index, torch.zeros_like(index[:, :1])], 1)  # (B, T)
        loss = mean(error + near, batch.transitions().valid)
        return loss, {"action": action, "z": z}

    def dynamics_loss(
        self, batch: Batch, rand: Rand | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            tokens = self.observe_sequence(batch)["tokens"]  # (B, T, N)
        action = self.condition(batch.require("action")[:, :-1].flatten())
        lead, before, after = tokens[:, :-1].shape, tokens[:, :-1], tokens[:, 1:]
        hide = (rand or Rand()).draw("mask", tuple(lead), randint(2)).bool()
        partly = torch.where(hide, V, after)
        logits = self.dynamics_model.guess(before.flatten(0, 1), action, partly.flatten(0, 1))
        each = F.cross_entropy(logits.transpose(1, 2), after.flatten(0, 1), reduction="none")
        loss = mean(each.mean(1).unflatten(0, lead[:2]), batch.transitions().valid)
        return loss, {"hidden": hide.float().mean()}


class Genie(Learner):
    def __init__(self, config: Config, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.world_model: Model = Model(config, obs_spec, action_spec)
        model = self.world_model
        groups = {
            "tokenizer": [*model.observation_encoder.parameters(),
                          *model.decoder_module.parameters()],
            "latent_action": model.action_conditioner.parameters(),
            "dynamics": model.dynamics_model.parameters(),
        }  # fmt: skip
        self.optimizers = {name: torch.optim.AdamW(own, 1e-2) for name, own in groups.items()}

    @property
    def columns(self) -> Columns:
        return step_columns(self.obs_spec)

    def training_plan(self) -> TrainingPlan:
        shared: dict[str, Any] = {"boundary": "within", "updates_per_step": 1}
        return TrainingPlan(
            [
                Phase("tokenizer", 6, T, end=100, trains=("tokenizer",), **shared),
                Phase("world", 4, T, start=100, trains=("latent_action", "dynamics"),
                      follows=("world_model.action_conditioner.codes",), **shared),
            ],
            collect_until=0,
        )  # fmt: skip

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        if phase == "tokenizer":
            return super().update(batch, phase, rand=rand)
        rand, model = rand or Rand(), self.world_model
        first = self.step("latent_action", model.latent_action_loss, batch, rand.under("lam/"))
        batch = replace(batch, action=first["action"])
        second = self.step("dynamics", model.dynamics_loss, batch, rand.under("dynamics/"))
        z, index = first["z"].flatten(0, 1), first["action"][:, :-1].flatten()
        model.action_conditioner.codes.follow(z, index, rand.under("codes/"))
        return UpdateResult({**metrics(first, "latent_action/"), **metrics(second, "dynamics/")})

    @torch.no_grad()
    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """How much better inferred actions predict the last frame than random ones, in dB."""
        rand, model = rand or Rand(), self.world_model
        batch = source.read(source.choose(self.training_plan().phase("world"), 0))
        start = model.observe_sequence(batch.map(lambda x: x[:, :2])).at(-1)
        index = model.action_conditioner.inferred(batch.obs["image"])[1][:, 1:].T  # (H, B)
        other = rand.draw("other", tuple(index.shape), randint(A))
        real, found = batch.obs["image"][:, -1].float() / 255, {}
        for name, actions in (("inferred", index), ("random", other)):
            path = model.rollout(start, actions, decode=True, rand=rand)
            error = (path.observations["image"][-1] - real).square().mean()
            found[f"psnr/{name}"] = float(-10 * error.log10())
        return Evaluation(found["psnr/inferred"] - found["psnr/random"], found)


def make() -> Genie:
    return Genie(Config(), OBS)


def test_video_alone_is_enough(train_phases: Any, source_of: Any) -> None:
    learner = make()
    assert set(learner.columns) == {"obs.image", "is_first", "is_last", "is_terminal"}
    source = source_of(learner)
    found = train_phases(learner, source)
    assert "dynamics/hidden" in found["world"][0].metrics
    assert learner.steps == {"tokenizer": 2, "latent_action": 2, "dynamics": 2}
    result = learner.evaluate(source, Rand.seeded(0))
    assert result.score == result.metrics["psnr/inferred"] - result.metrics["psnr/random"]


def test_a_session_is_played_with_latent_actions(source_of: Any) -> None:
    learner = make()
    source, model = source_of(learner), learner.world_model
    starts = source.read(source.choose(Phase("starts", 5, 3, boundary="within"), 0))
    assert starts.action is None
    session = Session(model, starts, rows=3)
    assert session.state["length"].tolist() == [3, 3, 3]
    frame = session.step(ActionPayload("latent", latent=torch.tensor([0, 5, 7])))
    assert frame.image.shape == (3, *IMAGE) and frame.reward is None
    session.step(torch.tensor([1, 1, 1]))
    image = {"image": torch.zeros(3, *IMAGE, dtype=torch.uint8)}
    assert session.observe(image, torch.tensor([1, 2, 3])).state["length"].tolist() == [6, 6, 6]


def test_the_published_checks_pass() -> None:
    check_world_model(lambda: make().world_model)
    check_agent(make)
