"""DIAMOND in small: frames by diffusion, and dreams that live on from update to update."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux import Batch, Config, LossOutput, Session, State, UpdateResult, WorldModel
from worldflux.core.actions import VectorActions
from worldflux.core.agent import Agent, Mode
from worldflux.core.interfaces import Decoder, DynamicsModel, ObservationEncoder
from worldflux.core.output import ModelOutput, metrics
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.rand import Rand, gumbel, normal
from worldflux.core.schedules import Schedule
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.distributed import mean
from worldflux.specs import Capability, TensorSpec
from worldflux.testing import check_agent, check_world_model
from worldflux.training import Phase, TrainingPlan

K, D = 4, 6  # frames that are looked back at, units of a memory
FRAME = (3, 4, 4)
OBS = {"image": TensorSpec(FRAME, "uint8", low=0, high=255)}
ACTION = {"action": TensorSpec((), "int64", n=3)}
QUARTER = (0.1, 0.1, 0.1, 0.7)


class Scaled(ObservationEncoder):
    def forward(self, obs: dict[str, Tensor]) -> State:
        return State({"frame": obs["image"].float() / 127.5 - 1})


class Denoiser(DynamicsModel):
    """The next frame out of noise, one step; reward and end by an LSTM beside it."""

    recurrent = True

    def __init__(self, actions: int) -> None:
        super().__init__()
        pixels = FRAME[0] * FRAME[1] * FRAME[2]
        self.actions = actions
        self.net = nn.Linear((K + 1) * pixels + K * actions, pixels)
        self.cell = nn.LSTMCell(pixels + actions, D)
        self.heads = nn.ModuleDict({"reward": nn.Linear(D, 3), "end": nn.Linear(D, 2)})

    def initial(self, batch_size: int, device: torch.device) -> State:
        sizes = {
            "frames": (K, *FRAME), "actions": (K, self.actions), "reward.h": (D,), "reward.c": (D,),
            "reward_logits": (3,), "end_logits": (2,), "reward": (), "ended": (),
        }  # fmt: skip
        return State({k: torch.zeros(batch_size, *s, device=device) for k, s in sizes.items()})

    def denoised(self, noisy: Tensor, frames: Tensor, actions: Tensor) -> Tensor:
        """Noisy (B, C, Y, X), frames (B, K, C, Y, X), actions (B, K, A) -> (B, C, Y, X)."""
        x = torch.cat([noisy.flatten(1), frames.flatten(1), actions.flatten(1)], -1)
        return torch.tanh(self.net(x)).unflatten(-1, FRAME)

    def acted(self, state: State, action: Tensor) -> Tensor:
        """The actions (B, K, A), the last one being what was done at the last frame."""
        return torch.cat([state["actions"][:, :-1], action[:, None]], 1)

    def advanced(self, state: State, actions: Tensor, frame: Tensor) -> State:
        """The State whose last frame is `frame`; what is done there is not known yet."""
        x = torch.cat([frame.flatten(1), actions[:, -1]], -1)
        h, c = self.cell(x, (state["reward.h"], state["reward.c"]))
        moved = {
            "frames": torch.cat([state["frames"][:, 1:], frame[:, None]], 1),
            "actions": torch.cat([actions[:, 1:], torch.zeros_like(actions[:, :1])], 1),
            "reward.h": h, "reward.c": c,
            "reward_logits": self.heads["reward"](h), "end_logits": self.heads["end"](h),
        }  # fmt: skip
        return state.only(()).with_(moved)

    def transition(
        self, state: State, action: Tensor, *, deterministic: bool = False, rand: Rand | None = None
    ) -> State:
        rand, B, actions = rand or Rand(), state.batch_size, self.acted(state, action)
        draw = lambda name, shape, sampler: (  # noqa: E731
            torch.zeros(shape, device=action.device)
            if deterministic
            else rand.draw(name, shape, sampler, device=action.device)
        )
        noise = draw("noise", (B, *FRAME), normal)
        after = self.advanced(state, actions, self.denoised(noise, state["frames"], actions))
        reward = (after["reward_logits"] + draw("reward", (B, 3), gumbel)).argmax(-1) - 1.0
        ended = (after["end_logits"] + draw("end", (B, 2), gumbel)).argmax(-1).float()
        return after.with_({"reward": reward, "ended": ended})

    def observe(
        self, state: State, action: Tensor, features: State, is_first: Tensor,
        *, deterministic: bool = False, rand: Rand | None = None,
    ) -> State:  # fmt: skip
        state = self.initial(len(is_first), is_first.device).where(is_first, state)
        action = action.masked_fill(is_first[:, None], 0)
        after = self.advanced(state, self.acted(state, action), features["frame"])
        zeros = torch.zeros_like(is_first, dtype=torch.float32)
        return after.with_({"reward": zeros, "ended": zeros.clone()})


class Shown(Decoder):
    def forward(
        self, state: State, keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> ModelOutput:  # fmt: skip
        chances = state["reward_logits"].softmax(-1)
        found = {
            "image": (state["frames"][:, -1] + 1) / 2,
            "reward": chances[:, 2] - chances[:, 0],
            "continue": state["end_logits"].softmax(-1)[:, 0],
        }
        wanted = {key: x for key, x in found.items() if keys is None or key in keys}
        return ModelOutput(wanted, aux={"ended": state["ended"]})


class Model(WorldModel):
    capabilities = frozenset(
        {Capability.OBS_DECODE, Capability.REWARD_PRED, Capability.CONTINUE_PRED}
    )
    composable_support = frozenset({"observation_encoder", "action_conditioner", "dynamics_model"})

    def __init__(self, config: Config, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.fill("observation_encoder", Scaled, expects={"frame": FRAME})
        self.fill("action_conditioner", lambda: VectorActions(self.action_spec["action"]))
        self.fill("dynamics_model", lambda: Denoiser(self.features["action"].size))
        self.fill("decoder_module", Shown)

    def state_spec(self) -> StateSpec:
        tensors = self.dynamics_model.initial(1, torch.device("cpu")).tensors
        return StateSpec({key: TensorSpec(tuple(x.shape[1:])) for key, x in tensors.items()})

    def prediction_spec(self) -> PredictionSpec:
        scalar = TensorSpec(())
        return PredictionSpec({**self.obs_spec, "reward": scalar, "continue": scalar})

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        rand, seen = rand or Rand(), self.observe_sequence(batch, rand=rand)
        batch, parts = batch.without_context(), {}
        pairs = batch.transitions()
        if part in (None, "denoiser"):
            before = State({key: x[:, :-1] for key, x in seen.tensors.items()}).flat()
            action = self.condition(pairs.require("action").flatten(0, 1))
            clean = seen["frames"][:, 1:, -1].flatten(0, 1)
            lead = (batch.batch_size, batch.length - 1)
            noise = rand.draw("noise", (*lead, *FRAME), normal).flatten(0, 1)
            found = self.dynamics_model.denoised(
                clean + noise, before["frames"], self.dynamics_model.acted(before, action)
            )
            error = (found - clean).square().flatten(1).mean(1).unflatten(0, lead)
            parts["denoiser"] = mean(error, pairs.valid)
        if part in (None, "reward_end"):
            wanted = {
                "reward": (seen["reward_logits"][:, 1:], pairs.require("next_reward").sign() + 1),
                "end": (seen["end_logits"][:, 1:], pairs.next_terminal),
            }
            for name, (logits, target) in wanted.items():
                each = F.cross_entropy(logits.transpose(1, 2), target.long(), reduction="none")
                parts[name] = mean(each, pairs.valid)
        return LossOutput(torch.stack(list(parts.values())).sum(), parts)


class Actor(nn.Module):
    """An LSTM over the last frame, with a choice and a value."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.choice, self.value = nn.LSTMCell(48, D), nn.Linear(D, 3), nn.Linear(D, 1)

    def forward(self, frame: Tensor, state: State) -> State:
        """Frame (B, C, Y, X) and State with actor.h, actor.c (B, D): the State that remembers."""
        h, c = self.cell(frame.flatten(1), (state["actor.h"], state["actor.c"]))
        return state.with_({"actor.h": h, "actor.c": c})

    def chosen(self, state: State, rand: Rand) -> Tensor:
        logits = self.choice(state["actor.h"])
        return (logits + rand.draw("action", tuple(logits.shape), gumbel)).argmax(-1)


class DIAMOND(Agent):
    def __init__(self, config: Config, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.world_model: Model = Model(config, obs_spec, action_spec)
        self.actor, dynamics = Actor(), self.world_model.dynamics_model
        groups = {
            "denoiser": dynamics.net.parameters(),
            "reward_end": [*dynamics.cell.parameters(), *dynamics.heads.parameters()],
            "actor_critic": self.actor.parameters(),
        }
        self.optimizers = {name: torch.optim.AdamW(own, 1e-3) for name, own in groups.items()}
        self.clip_norm = {"denoiser": 1.0, "reward_end": 100.0, "actor_critic": 100.0}
        rate = Schedule("constant", peak=1e-3, warmup=100)
        self.schedules = {f"{name}.lr": rate for name in groups}

    def training_plan(self) -> TrainingPlan:
        shared: dict[str, Any] = {"weights": QUARTER, "start": 50, "updates_per_step": 4}
        return TrainingPlan(
            [
                Phase("denoiser", 4, 2, context=K, pad="before", updates=10,
                      trains=("denoiser",), **shared),
                Phase("reward_end", 4, 5, context=K, pad="both", updates=10,
                      trains=("reward_end",), **shared),
                Phase("actor_critic", 8, 1, context=3, pad="before", updates=5,
                      trains=("actor_critic",), start=50, updates_per_step=4),
            ],
            collect_until=1_000,
        )  # fmt: skip

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        if phase != "actor_critic":
            return super().update(batch, phase, rand=rand)
        rows: dict[str, Any] = {"pool": batch}
        if self.carry is not None:
            rows["dreams"] = self.carry
        out = self.step(phase, self._behaviour, rows, rand)
        self.carry = out["dreams"]
        return UpdateResult(metrics(out))

    def _start(self, batch: Batch, rand: Rand) -> State:
        """What a dream may begin from (B, ...): the last step, its actor having seen the rest."""
        with torch.no_grad():
            start = self.world_model.observe_sequence(batch, rand=rand).at(-1)
        zeros = torch.zeros(batch.batch_size, D)
        state = start.with_({"actor.h": zeros, "actor.c": zeros})
        frames = batch.obs["image"].float() / 127.5 - 1
        held = torch.ones(frames.shape[:2]) if batch.mask is None else batch.mask
        for t in range(batch.context):
            state = self.actor(frames[:, t], state).where(held[:, t].bool(), state)
        return state

    def _behaviour(self, rows: Mapping[str, Any], r: Rand | None) -> tuple[Tensor, dict[str, Any]]:
        r = r or Rand()
        pool = self._start(rows["pool"], r.under("start/"))
        half = pool.batch_size // 2
        dreams, used = (rows["dreams"], 0) if "dreams" in rows else (pool.rows(slice(half)), half)
        live, terms, masked = torch.ones(half, dtype=torch.bool), [], torch.zeros(())
        for t in range(4):
            now = r.under("imagined/").at(t)
            dreams = self.actor(dreams["frames"][:, -1], dreams)
            logp, value = self.actor.choice(dreams["actor.h"]).log_softmax(-1), dreams["actor.h"]
            action = self.actor.chosen(dreams, now)
            with torch.no_grad():
                after = self.world_model.transition(dreams, action, rand=now)
            memory = {key: dreams[key] for key in ("actor.h", "actor.c")}
            after = after.with_(memory)
            gain = after["reward"] - self.actor.value(value)[:, 0]
            chosen = logp.gather(1, action[:, None])[:, 0]
            terms.append((gain.square() - chosen * gain.detach(), live))
            ended = after["ended"].bool() & live
            index = used + ended.cumsum(0) - 1  # the next ones of the pool, in order
            there = ended & (index < pool.batch_size)
            fresh = pool.rows(index.clamp(0, pool.batch_size - 1))
            dreams, used = fresh.where(there, after), used + int(ended.sum())
            live = live & (~ended | there)
            masked = masked + (~live).float().sum()
        loss = mean(*(torch.stack(x) for x in zip(*terms, strict=True)))
        return loss, {"dreams": dreams.detach(), "dreams/masked": masked}

    def acting_weights(self) -> dict[str, Tensor]:
        return {k: x for k, x in self.state_dict().items() if k.startswith("actor.")}

    def act(
        self, obs: Mapping[str, Tensor], state: State | None, is_first: Tensor,
        mode: Mode = "eval", *, rand: Rand | None = None,
    ) -> tuple[ActionPayload, State]:  # fmt: skip
        zeros = torch.zeros(len(is_first), D)
        none = State({"actor.h": zeros, "actor.c": zeros})
        state = none.where(is_first, state or none)
        state = self.actor(obs["image"].float() / 127.5 - 1, state)
        return ActionPayload("discrete", tensor=self.actor.chosen(state, rand or Rand())), state


def make() -> DIAMOND:
    return DIAMOND(Config(), OBS, ACTION)


def test_every_phase_and_dreams_that_live_on(train_phases: Any, source_of: Any) -> None:
    learner = make()
    found = train_phases(learner, source_of(learner))
    assert {"loss/reward", "loss/end"} <= found["reward_end"][0].metrics.keys()
    assert "dreams/masked" in found["actor_critic"][1].metrics
    assert learner.carry.batch_size == 4 and "actor.h" in learner.carry
    twin = make()
    twin.load_state_dict(learner.state_dict())
    twin.load_training_state(learner.training_state())
    assert all(torch.equal(x, twin.carry[key]) for key, x in learner.carry.tensors.items())


def test_accumulation_cuts_the_pool_and_the_dreams_alike(source_of: Any) -> None:
    learner = make()
    source, phase = source_of(learner), learner.training_plan().phase("actor_critic")
    learner.accumulate = 2
    for update in range(3):
        learner.update(source.read(source.choose(phase, update)), phase.name, rand=Rand.seeded(0))
        assert learner.carry.batch_size == 4


def test_an_actor_is_handed_its_own_weights_alone() -> None:
    learner = make()
    assert learner.remembers  # its actor does; random steps keep the State up
    assert all(name.startswith("actor.") for name in learner.acting_weights())


def test_a_session(source_of: Any) -> None:
    learner = make()
    source = source_of(learner)
    phase = Phase("starts", batch=5, length=2, context=3, pad="before")
    session = Session(learner.world_model, source.read(source.choose(phase, 0)), rows=2)
    frame = session.step(torch.tensor([0, 2]))
    assert frame.image.shape == (2, *FRAME) and frame.reward.shape == frame.ended.shape == (2,)
    session.reset(torch.tensor([True, False]))
    assert session.state["actions"][0, -1].sum() == 0  # what is done at the last frame is open


def test_the_published_checks_pass() -> None:
    check_world_model(lambda: Model(Config(), OBS, ACTION))
    check_agent(make)
