"""LeWM in small: blocks of actions, planning toward a goal, learnt from data alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldflux import Batch, LossOutput, State, WorldModel
from worldflux.core.interfaces import ActionConditioner, DynamicsModel, ObservationEncoder
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand, normal
from worldflux.core.source import Source
from worldflux.core.spec import StateSpec
from worldflux.distributed import gather, mean
from worldflux.errors import ContractError
from worldflux.planning.agent import PlanningAgent
from worldflux.planning.config import CEMConfig, PlanningAgentConfig, ScoreConfig
from worldflux.specs import Capability, TensorSpec
from worldflux.testing import check_agent, check_world_model
from worldflux.training import Phase, TrainingPlan

D, A, K, W, T = 6, 2, 5, 3, 4  # features, numbers of an action, actions of a block, window, steps
OBS = {"image": TensorSpec((3, 4, 4), "uint8", low=0, high=255)}
ACTION = {"action": TensorSpec((A,), low=-1.0, high=1.0)}
GOAL = ScoreConfig(goal_key="rep")
CEM = CEMConfig(horizon=3, candidates=8, elites=2, iterations=2, score=GOAL)
Settings = PlanningAgentConfig(planner=CEM, batch=8, length=T)


class Projected(ObservationEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.projector = nn.Linear(48, D), nn.BatchNorm1d(D)

    def forward(self, obs: dict[str, Tensor]) -> State:
        return State({"rep": self.projector(self.net(obs["image"].flatten(1).float() / 255))})


class Blocks(ActionConditioner):
    """Blocks (B, K, A), normalised by the data's statistics, to (B, D)."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(K * A, D)
        self.register_buffer("mean", torch.zeros(A))
        self.register_buffer("std", torch.ones(A))

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        assert action is not None
        return self.net(((action - self.mean) / self.std).flatten(1))


class Predictor(DynamicsModel):
    """The next features from windows of features and of the blocks between them."""

    recurrent = True

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2 * W * D, D)

    def initial(self, batch_size: int, device: torch.device) -> State:
        sizes = {"rep": (D,), "history": (W, D), "blocks": (W - 1, D)}
        return State({k: torch.zeros(batch_size, *s, device=device) for k, s in sizes.items()})

    def transition(
        self, state: State, action: Tensor, *, deterministic: bool = False, rand: Rand | None = None
    ) -> State:
        blocks = torch.cat([state["blocks"], action[:, None]], 1)  # (B, W, D)
        rep = self.net(torch.cat([state["history"], blocks], 2).flatten(1))
        return self.shifted(state, blocks, rep)

    def shifted(self, state: State, blocks: Tensor, rep: Tensor) -> State:
        history = torch.cat([state["history"][:, 1:], rep[:, None]], 1)
        return State({"rep": rep, "history": history, "blocks": blocks[:, 1:]}, state.meta)

    def observe(
        self, state: State, action: Tensor, features: State, is_first: Tensor,
        *, deterministic: bool = False, rand: Rand | None = None,
    ) -> State:  # fmt: skip
        state = self.initial(len(is_first), is_first.device).where(is_first, state)
        action = action.masked_fill(is_first[:, None], 0)
        blocks = torch.cat([state["blocks"], action[:, None]], 1)
        return self.shifted(state, blocks, features["rep"])


class Model(WorldModel):
    capabilities = frozenset({Capability.PLANNING, Capability.GOAL_CONDITIONED})
    composable_support = frozenset({"observation_encoder", "action_conditioner", "dynamics_model"})
    loss_spans_batch = True
    stride = K

    def __init__(self, config: Any, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.fill("observation_encoder", Projected, expects={"rep": (D,)})
        self.fill("action_conditioner", Blocks, expects={"action": (D,)})
        self.fill("dynamics_model", Predictor)

    def state_spec(self) -> StateSpec:
        sizes = {"rep": (D,), "history": (W, D), "blocks": (W - 1, D)}
        return StateSpec({key: TensorSpec(size) for key, size in sizes.items()})

    def loss(
        self, batch: Batch, part: str | None = None, *, rand: Rand | None = None
    ) -> LossOutput:
        seen = self.observe_sequence(batch)  # (B, T, ...); batch.action (B, T, K, A)
        pairs = batch.transitions()
        action = self.condition(pairs.require("action").flatten(0, 1))
        before = State({key: x[:, :-1] for key, x in seen.tensors.items()}).flat()
        guess = self.dynamics_model.transition(before, action)["rep"]
        after = seen["rep"][:, 1:].flatten(0, 1)
        near = mean((guess - after).square().mean(1).unflatten(0, pairs.valid.shape), pairs.valid)
        directions = (rand or Rand()).draw("directions", (D, 16), normal, shared=True)
        along = gather(seen["rep"]).flatten(0, 1) @ (directions / directions.norm(dim=0))
        spread = (along.mean(0).square() + (along.var(0) - 1).square()).mean()
        return LossOutput(near + 0.09 * spread, {"prediction": near, "spread": spread})

    def score(
        self, state: State, actions: Tensor, conditions: ConditionPayload | None = None,
        rand: Rand | None = None,
    ) -> Tensor:  # fmt: skip
        """Actions (B, N, H, K, A) -> (B, N): how near the last features are to the goal's."""
        rows, count = actions.shape[:2]
        blocks = actions.flatten(0, 1).transpose(0, 1)  # (H, B * N, K, A)
        path = self.rollout(state.repeat(count), blocks, deterministic=True)
        last = path.states[-1]["rep"].unflatten(0, (rows, count))
        assert conditions is not None and conditions.goal is not None
        return -(last - conditions.goal[:, None]).square().sum(-1)


class LeWM(PlanningAgent):
    whole_batch, stride = True, K

    def __init__(self, config: Any, obs_spec: Any = None, action_spec: Any = None) -> None:
        super().__init__(Model(config, obs_spec, action_spec), config)

    def training_plan(self) -> TrainingPlan:
        follows = ("world_model.observation_encoder.projector",)
        phase = Phase("model", 8, T, stride=K, boundary="within", updates_per_step=1,
                      trains=("model",), follows=follows)  # fmt: skip
        return TrainingPlan([phase], collect_until=0)

    def begin(self, phase: str, source: Source, rand: Rand | None = None) -> None:
        found, blocks = source.statistics("action"), self.world_model.action_conditioner
        blocks.mean.copy_(torch.from_numpy(found.mean))
        blocks.std.copy_(torch.from_numpy(found.std))


def make() -> LeWM:
    return LeWM(Settings, OBS, ACTION)


def test_blocks_from_data(train_phases: Any, source_of: Any) -> None:
    learner = make()
    source = source_of(learner, (30, 42, 25))
    phase = learner.training_plan().phases[0]
    batch = source.read(source.choose(phase, 0))
    assert batch.obs["image"].shape == (8, T, 3, 4, 4) and batch.action.shape == (8, T, K, A)
    found = train_phases(learner, source)
    assert {"loss/prediction", "loss/spread"} <= found["model"][0].metrics.keys()
    low = source.statistics("action")
    assert torch.equal(learner.world_model.action_conditioner.mean.double(),
                       torch.from_numpy(low.mean).float().double())  # fmt: skip


def test_a_plan_is_executed_block_by_block() -> None:
    learner, rand = make().eval(), Rand.seeded(0)
    seen = {key: torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8) for key in ("image", "goal")}
    first, state, blocks, taken = torch.ones(2, dtype=torch.bool), None, [], []
    for _ in range(K + 1):
        payload, state = learner.act(seen, state, first, rand=rand)
        taken.append(payload.tensor)
        blocks.append(state["planner.action"])
        first = torch.zeros(2, dtype=torch.bool)
    assert all(torch.equal(blocks[0], block) for block in blocks[:K])
    assert torch.equal(torch.stack(taken[:K], 1), blocks[0])
    assert not torch.equal(blocks[0], blocks[K])


def test_the_published_checks_pass() -> None:
    ran = check_agent(make) + check_world_model(lambda: make().world_model)
    assert {"check_acts_on_observations", "check_update", "check_sequence_equals_steps"} <= {*ran}


def test_a_loss_over_the_whole_batch_is_not_accumulated(source_of: Any) -> None:
    learner = make()
    learner.accumulate = 2
    source = source_of(learner, (30, 42, 25))
    batch = source.read(source.choose(learner.training_plan().phases[0], 0))
    with pytest.raises(ContractError, match="needs the whole batch at once"):
        learner.update(batch, "model", rand=Rand.seeded(0))
