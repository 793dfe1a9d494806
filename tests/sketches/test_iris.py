"""IRIS in small: tokens, a transformer with caches, an actor with a memory of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux import Batch, Config, LossOutput, Session, State, UpdateResult, WorldModel
from worldflux.core.agent import Agent, Mode
from worldflux.core.interfaces import (
    ActionConditioner,
    Decoder,
    DynamicsModel,
    ObservationEncoder,
    Policy,
)
from worldflux.core.output import ModelOutput, metrics
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.rand import Rand, gumbel
from worldflux.core.spec import PredictionSpec, StateSpec
from worldflux.core.trajectory import Trajectory
from worldflux.distributed import mean
from worldflux.specs import Capability, TensorSpec
from worldflux.testing import check_agent, check_world_model
from worldflux.testing.sequences import check_transition_leaves_its_state_alone
from worldflux.training import Phase, TrainingPlan

N, V, D = 4, 8, 12  # tokens of a frame, words of the code-book, features
L = 6 * (N + 1)  # the window, in tokens
OBS = {"image": TensorSpec((3, 8, 8), "uint8", low=0, high=255)}
ACTION = {"action": TensorSpec((), "int64", n=3)}


def sampled(logits: Tensor, noise: Tensor | None) -> Tensor:
    """Indices (B,) from logits (B, K): the likeliest ones without noise (B, K)."""
    return (logits if noise is None else logits + noise).argmax(-1)


class Tokenizer(ObservationEncoder):
    """One patch embedding and a code-book."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, D, 4, 4)
        self.codes = nn.Embedding(V, D)
        self.pixels = nn.ConvTranspose2d(D, 3, 4, 4)

    def features(self, image: Tensor) -> Tensor:
        """(N', 3, Y, X) uint8 -> (N', N, D)."""
        return self.patches(image.float() / 255).flatten(2).transpose(1, 2)

    def nearest(self, z: Tensor) -> Tensor:
        """(N', N, D) -> (N', N)."""
        return torch.cdist(z, self.codes.weight.expand(len(z), -1, -1)).argmin(-1)

    def image(self, q: Tensor) -> Tensor:
        """(N', N, D) -> (N', 3, Y, X)."""
        return self.pixels(q.transpose(1, 2).unflatten(-1, (2, 2)))

    def forward(self, obs: dict[str, Tensor]) -> State:
        return State({"tokens": self.nearest(self.features(obs["image"]))})

    def reconstruction(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Straight-through image (N', 3, Y, X) and code loss (N',)."""
        z = self.features(image)
        q = self.codes(self.nearest(z))
        near = (z.detach() - q).square() + (z - q.detach()).square()
        return self.image(z + (q - z).detach()), near.mean((1, 2))


class ActionTokens(ActionConditioner):
    """Choices (B,) or one-hot (B, A) to tokens (B, D)."""

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__()
        self.table = nn.Embedding(spec.size, D)

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        assert action is not None
        if action.is_floating_point():
            return action @ self.table.weight
        return self.table(action)


class TokenTransformer(DynamicsModel):
    """One attention layer over a window of tokens, kept as keys and values in the State."""

    recurrent = True

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(V, D), nn.Embedding(L, D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.heads = nn.ModuleDict(
            {"token": nn.Linear(D, V), "reward": nn.Linear(D, 3), "end": nn.Linear(D, 2)}
        )

    def initial(self, batch_size: int, device: torch.device) -> State:
        zeros = lambda *shape: torch.zeros(batch_size, *shape, device=device)  # noqa: E731
        return State(
            {
                "tokens": zeros(N).long(), "reward": zeros(), "ended": zeros(),
                "reward_logits": zeros(3), "end_logits": zeros(2),
                "cache.keys": zeros(L, D), "cache.values": zeros(L, D),
                "cache.length": zeros().long(),
            }
        )  # fmt: skip

    def feed(self, cache: dict[str, Tensor], x: Tensor) -> Tensor:
        """Put one token (B, D) into the cache; what it attends to (B, D)."""
        row, length = torch.arange(len(x), device=x.device), cache["cache.length"]
        q, k, v = self.qkv(x + self.places(length)).chunk(3, -1)
        for name, value in (("cache.keys", k), ("cache.values", v)):
            kept = cache[name]  # in its own type, under autocast too
            cache[name] = kept.index_put((row, length), value.to(kept.dtype))
        cache["cache.length"] = length + 1
        held = torch.arange(L, device=x.device) <= length[:, None]
        weights = torch.einsum("bd,bld->bl", q, cache["cache.keys"]) * D**-0.5
        weights = weights.masked_fill(~held, -torch.inf).softmax(-1)
        return self.out(torch.einsum("bl,bld->bd", weights, cache["cache.values"]) + x)

    def window(self, state: State, begin: Tensor | None = None) -> dict[str, Tensor]:
        """The caches with room for a step; full ones begin again with the frame they end with.

        Rows of `begin` (B,) are empty.
        """
        cache = {name: x for name, x in state.tensors.items() if name.startswith("cache.")}
        full = cache["cache.length"] + N + 1 > L
        empty = full if begin is None else full | begin
        cache = {
            name: x.masked_fill(empty.reshape(-1, *[1] * (x.ndim - 1)), 0)
            for name, x in cache.items()
        }
        if not bool(full.any()):
            return cache
        again = dict(cache)
        for i in range(N):
            self.feed(again, self.words(state["tokens"][:, i]))
        chosen = State(again).where(full, State(cache)).tensors
        return chosen

    def transition(
        self, state: State, action: Tensor, *, deterministic: bool = False, rand: Rand | None = None
    ) -> State:
        B, rand = state.batch_size, rand or Rand()
        noise = {
            name: None if deterministic else rand.draw(name, shape, gumbel, device=action.device)
            for name, shape in {"reward": (B, 3), "end": (B, 2), "tokens": (B, N, V)}.items()
        }
        cache = self.window(state)
        out, tokens = self.feed(cache, action), []
        reward, end = self.heads["reward"](out), self.heads["end"](out)
        for i in range(N):
            own = None if noise["tokens"] is None else noise["tokens"][:, i]
            tokens.append(sampled(self.heads["token"](out), own))
            out = self.feed(cache, self.words(tokens[-1]))
        return State(
            {
                "tokens": torch.stack(tokens, 1), "reward_logits": reward, "end_logits": end,
                "reward": sampled(reward, noise["reward"]) - 1.0,
                "ended": sampled(end, noise["end"]).float(), **cache,
            },
            state.meta,
        )  # fmt: skip

    def observe(
        self, state: State, action: Tensor, features: State, is_first: Tensor,
        *, deterministic: bool = False, rand: Rand | None = None,
    ) -> State:  # fmt: skip
        cache = self.window(state, is_first)
        acted = dict(cache)
        self.feed(acted, action)
        cache = State(cache).where(is_first, State(acted)).tensors
        for i in range(N):
            self.feed(cache, self.words(features["tokens"][:, i]))
        seen = self.initial(len(is_first), is_first.device).tensors
        return State({**seen, "tokens": features["tokens"], **cache}, state.meta)

    def sequence(self, tokens: Tensor, action: Tensor, first: Tensor) -> Tensor:
        """Tokens (B, T, N) and actions (B, T, D), all at once: (B, T, N + 1, D), action last."""
        T = first.shape[1]
        x = torch.cat([self.words(tokens), action[:, :, None]], 2).flatten(1, 2)
        where = torch.arange(T * (N + 1), device=x.device)
        episode = first.cumsum(1).repeat_interleave(N + 1, 1)
        held = (where[:, None] >= where) & (episode[:, :, None] == episode[:, None, :])
        q, k, v = self.qkv(x + self.places(where % L)).chunk(3, -1)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=held)
        return self.out(found + x).unflatten(1, (T, N + 1))


class TokenDecoder(Decoder):
    """Tokens to an image through the tokenizer; logits to means; what was sampled in `aux`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = [tokenizer]  # it belongs to the encoder's slot

    def forward(
        self, state: State, keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> ModelOutput:  # fmt: skip
        tokenizer, found = self.tokenizer[0], {}
        if keys is None or "image" in keys:
            found["image"] = tokenizer.image(tokenizer.codes(state["tokens"]))
        if keys is None or "reward" in keys:
            chances = state["reward_logits"].softmax(-1)
            found["reward"] = chances[:, 2] - chances[:, 0]
        if keys is None or "continue" in keys:
            found["continue"] = state["end_logits"].softmax(-1)[:, 0]
        return ModelOutput(found, aux={"ended": state["ended"]})


class Model(WorldModel):
    capabilities = frozenset(
        {Capability.OBS_DECODE, Capability.REWARD_PRED, Capability.CONTINUE_PRED}
    )
    composable_support = frozenset({"action_conditioner", "dynamics_model"})

    def __init__(self, config: Config, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.fill("observation_encoder", Tokenizer, expects={"tokens": (N,)})
        self.fill("action_conditioner", lambda: ActionTokens(self.action_spec["action"]))
        self.fill("dynamics_model", TokenTransformer)
        self.fill("decoder_module", lambda: TokenDecoder(self.observation_encoder))

    def state_spec(self) -> StateSpec:
        return StateSpec(
            {
                "tokens": TensorSpec((N,), "int64"), "reward": TensorSpec(()),
                "ended": TensorSpec(()), "reward_logits": TensorSpec((3,)),
                "end_logits": TensorSpec((2,)),
            }
        )  # fmt: skip

    def prediction_spec(self) -> PredictionSpec:
        scalar = TensorSpec(())
        return PredictionSpec({**self.obs_spec, "reward": scalar, "continue": scalar})

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        parts: dict[str, Tensor] = {}
        if part in (None, "tokenizer"):
            parts |= self._tokenizer_loss(batch)
        if part in (None, "world_model"):
            parts |= self._prediction_loss(batch)
        return LossOutput(torch.stack(list(parts.values())).sum(), parts)

    def _tokenizer_loss(self, batch: Batch) -> dict[str, Tensor]:
        image = batch.obs["image"].flatten(0, 1)
        seen, near = self.observation_encoder.reconstruction(image)
        error = (seen - image.float() / 255).abs().mean((1, 2, 3))
        held = None if batch.mask is None else batch.mask.flatten()
        return {"image": mean(error, held), "codes": mean(near, held)}

    def _prediction_loss(self, batch: Batch) -> dict[str, Tensor]:
        lead, pairs = batch.is_first.shape, batch.transitions()
        with torch.no_grad():
            obs = {key: x.flatten(0, 1) for key, x in batch.obs.items()}
            tokens = self.observation_encoder(obs)["tokens"].unflatten(0, lead)
        action = self.condition(batch.require("action").flatten()).unflatten(0, lead)
        out = self.dynamics_model.sequence(tokens, action, batch.is_first)  # (B, T, N + 1, D)
        heads = self.dynamics_model.heads
        ahead = torch.cat([out[:, :-1, -1:], out[:, 1:, :-2]], 2)  # (B, T-1, N, D)
        acted = out[:, :-1, -1]
        wanted = {
            "tokens": (heads["token"](ahead), tokens[:, 1:]),
            "reward": (heads["reward"](acted), pairs.require("next_reward").sign().long() + 1),
            "end": (heads["end"](acted), pairs.next_terminal.long()),
        }
        found = {}
        for name, (logits, target) in wanted.items():
            flat = F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none")
            found[name] = mean(flat.reshape(*pairs.valid.shape, -1).mean(-1), pairs.valid)
        return found


class Actor(nn.Module):
    """An LSTM over reconstructed frames, with heads for the choice and the value."""

    def __init__(self, choices: int) -> None:
        super().__init__()
        self.frame, self.cell = nn.Linear(192, D), nn.LSTMCell(D, D)
        self.choice, self.value = nn.Linear(D, choices), nn.Linear(D, 1)

    def forward(self, seen: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Frame (B, 3, Y, X) and memory (B, D) twice -> memory."""
        return self.cell(self.frame(seen.flatten(1)).tanh(), (h, c))


class IRIS(Agent):
    remembers = True  # not recurrent in the world model, but in the actor

    def __init__(self, config: Config, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.world_model: Model = Model(config, obs_spec, action_spec)
        model = self.world_model
        self.actor = Actor(self.action_spec["action"].size)
        predicts = [*model.action_conditioner.parameters(), *model.dynamics_model.parameters()]
        groups = {
            "tokenizer": list(model.observation_encoder.parameters()),
            "world_model": predicts,
            "actor_critic": list(self.actor.parameters()),
        }
        self.optimizers = {name: torch.optim.Adam(own, 1e-3) for name, own in groups.items()}

    def training_plan(self) -> TrainingPlan:
        return TrainingPlan(
            [
                Phase("tokenizer", 8, 1, updates_per_step=1, start=10, trains=("tokenizer",)),
                Phase("world_model", 4, 5, pad="after", updates_per_step=1, start=50,
                      trains=("world_model",)),
                Phase("actor_critic", 4, 1, context=3, pad="before", updates_per_step=1, start=100,
                      trains=("actor_critic",)),
            ],
            collect_until=1_000,
        )  # fmt: skip

    def update(self, batch: Batch, phase: str, *, rand: Rand | None = None) -> UpdateResult:
        if phase != "actor_critic":
            return super().update(batch, phase, rand=rand)
        return UpdateResult(metrics(self.step(phase, self._behaviour, batch, rand)))

    def _behaviour(self, b: Batch, r: Rand | None) -> tuple[Tensor, dict[str, Tensor]]:
        r = r or Rand()
        with torch.no_grad():
            start = self.world_model.encode({"image": b.obs["image"][:, -1]})
            seen = self._reconstructed(b.obs["image"])
        h = c = torch.zeros(b.batch_size, D)
        for t in range(b.context):
            after = self.actor(seen[:, t], h, c)
            held = torch.ones(b.batch_size, 1) if b.mask is None else b.mask[:, t : t + 1].float()
            h, c = (new * held for new in after)
        start = start.with_({"actor.h": h, "actor.c": c, "seen": seen[:, -1]})
        path = self.world_model.rollout(
            start, self.policy(r.under("policy/")), horizon=5, rand=r.under("imagined/")
        )
        return self._reinforce(path)

    def _reconstructed(self, image: Tensor) -> Tensor:
        """(B, T, 3, Y, X) uint8 -> the same frames as the dream shows them."""
        states = self.world_model.encode({"image": image.flatten(0, 1)})
        found = self.world_model.decode(states, keys=("image",)).predictions["image"]
        return found.unflatten(0, image.shape[:2])

    def policy(self, rand: Rand) -> Policy:
        """Chooses from what a State shows; remembers by tensors of its own."""

        def choose(state: State, t: int) -> tuple[Tensor, State]:
            if t:
                shown = self.world_model.decode(state, keys=("image",)).predictions["image"]
                state = state.with_({"seen": shown.detach()})
            seen = state["seen"]
            h, c = self.actor(seen, state["actor.h"], state["actor.c"])
            logits = self.actor.choice(h).log_softmax(-1)
            action = sampled(logits, rand.at(t).draw("action", tuple(logits.shape), gumbel))
            own = {
                "actor.h": h, "actor.c": c,
                "actor.logp": logits.gather(1, action[:, None])[:, 0],
                "actor.value": self.actor.value(h)[:, 0],
            }  # fmt: skip
            return action, state.with_(own)

        return choose

    def _reinforce(self, path: Trajectory) -> tuple[Tensor, dict[str, Tensor]]:
        def along(key: str) -> Tensor:
            return torch.stack([state[key] for state in path.states[:-1]])  # (H, B)

        reward, ended = path.to_tensor("reward")[1:], path.to_tensor("ended")[1:]
        value, logp, alive = along("actor.value"), along("actor.logp"), torch.ones(path.batch_size)
        ret, returns = value[-1].detach(), []
        for t in reversed(range(path.horizon)):
            ret = reward[t] + 0.99 * (1 - ended[t]) * ret
            returns.insert(0, ret)
        live = torch.stack([alive, *(1 - ended[:-1])]).cumprod(0)
        gain = torch.stack(returns) - value
        loss = mean(gain.square() - logp * gain.detach(), live)
        return loss, {"return": returns[0], "value": value[0]}

    def act(
        self, obs: Mapping[str, Tensor], state: State | None, is_first: Tensor,
        mode: Mode = "eval", *, rand: Rand | None = None,
    ) -> tuple[ActionPayload, State]:  # fmt: skip
        rows = len(is_first)
        zeros = torch.zeros(rows, D)
        state = state or State({"actor.h": zeros, "actor.c": zeros})
        memory = state.map(lambda x: x.masked_fill(is_first[:, None], 0))
        seen = self._reconstructed(obs["image"][:, None])[:, 0]
        h, c = self.actor(seen, memory["actor.h"], memory["actor.c"])
        logits = self.actor.choice(h)
        noise = (rand or Rand()).draw("action", tuple(logits.shape), gumbel)
        return ActionPayload("discrete", tensor=sampled(logits, noise)), State(
            {"actor.h": h, "actor.c": c}
        )


def make() -> IRIS:
    return IRIS(Config(), OBS, ACTION)


def test_every_phase(train_phases: Any, source_of: Any) -> None:
    found = train_phases(learner := make(), source_of(learner))
    assert {"loss/image", "loss/codes"} <= found["tokenizer"][0].metrics.keys()
    assert {"loss/tokens", "loss/end"} <= found["world_model"][0].metrics.keys()
    assert learner.steps == {"tokenizer": 2, "world_model": 2, "actor_critic": 2}


def test_caches_belong_to_the_last_state_and_are_never_changed() -> None:
    model, rand = Model(Config(), OBS, ACTION), Rand.seeded(0)
    start = model.encode({"image": torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)})
    path = model.rollout(start, torch.zeros(9, 3).long(), rand=rand)  # longer than the window
    assert [("cache.keys" in state) for state in path.states] == [False] * 9 + [True]
    assert path.states[-1]["cache.keys"].shape == (3, L, D)
    action = torch.tensor([0, 1, 2])
    first = model.transition(start, action, rand=Rand.seeded(1))
    model.transition(start, 2 - action, rand=Rand.seeded(2))
    again = model.transition(start, action, rand=Rand.seeded(1))
    assert all(torch.equal(x, again[key]) for key, x in first.tensors.items())


def test_a_session_ends_where_the_model_sampled_an_end(source_of: Any) -> None:
    learner = make()
    source = source_of(learner)
    starts = source.read(source.choose(Phase("starts", batch=6, length=4, pad="after"), 0))
    session = Session(learner.world_model, starts, rows=4, seed=0)
    ended = torch.zeros(4, dtype=torch.bool)
    for t in range(12):
        frame = session.step(torch.tensor([0, 1, 2, t % 3]))
        assert frame.image.shape == (4, 3, 8, 8) and frame.image.dtype == torch.uint8
        assert torch.equal(frame.ended, frame.state["ended"].bool())
        ended |= frame.ended
        session.reset(frame.ended)
    assert bool(ended.any())
    obs = {"image": torch.zeros(4, 3, 8, 8, dtype=torch.uint8)}
    assert session.observe(obs, torch.zeros(4).long()).image.shape == (4, 3, 8, 8)


class LeakyTransformer(TokenTransformer):
    """Broken: writes into the caches of the State it starts from."""

    def feed(self, cache: dict[str, Tensor], x: Tensor) -> Tensor:
        own = {name: cache[name] for name in ("cache.keys", "cache.values")}
        out = super().feed(cache, x)
        for name, tensor in own.items():
            cache[name] = tensor.copy_(cache[name])
        return out

    def window(self, state: State, begin: Tensor | None = None) -> dict[str, Tensor]:
        return {name: x for name, x in state.tensors.items() if name.startswith("cache.")}


class LeakyModel(Model):
    def fill(self, slot: str, default: Any, **options: Any) -> None:
        super().fill(slot, LeakyTransformer if slot == "dynamics_model" else default, **options)


def test_a_cache_that_leaks_is_refused() -> None:
    model = LeakyModel(Config(), OBS, ACTION)
    with pytest.raises(AssertionError, match=r"writes into the State .* cache.keys, cache.values"):
        check_transition_leaves_its_state_alone(model)


def test_the_published_checks_pass() -> None:
    check_world_model(lambda: Model(Config(), OBS, ACTION))
    check_agent(make)
