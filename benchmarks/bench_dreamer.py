"""DreamerV3's costs in process CPU time on one thread, raw and normalised (see matmul_peak)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.matmul_peak import Case, measured_rows
from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.core.rollout import unroll
from worldflux.core.state import State
from worldflux.specs import TensorSpec
from worldflux_dreamer.dreamerv3.agent import DreamerV3Agent
from worldflux_dreamer.dreamerv3.config import PRESETS

IMAGE = {"image": TensorSpec((3, 64, 64), "uint8")}
VECTOR = {"state": TensorSpec((24,))}
DISCRETE = {"action": TensorSpec((), "int64", n=6)}
CONTINUOUS = {"action": TensorSpec((6,), low=-1.0, high=1.0)}


def rows() -> list[dict[str, object]]:
    """One row per case: name, cpu_ms, normalised, target, peer (r2dreamer)."""
    return measured_rows(cases)


def cases() -> list[Case]:
    """The operations of the project's benchmark table."""
    small = DreamerV3Agent(PRESETS["size1m"], VECTOR, CONTINUOUS)
    large = DreamerV3Agent(PRESETS["size12m"], IMAGE, DISCRETE)
    small_batch, large_batch = batch(small, 16, 64), batch(large, 4, 16)
    imagination = imagine(large, rows=64)
    policy = policy_step(large)
    return [
        Case("dreamerv3 size1m vector update, B16 T64", lambda: small.update(small_batch)),
        Case(
            "dreamerv3 size12m image update, B4 T16", lambda: large.update(large_batch), 83.0, 149.0
        ),
        Case("dreamerv3 size12m imagination, 64 x H15", imagination, 18.0, 33.0),
        Case("dreamerv3 size12m policy step, batch 1", policy, 0.4, 1.3),
        Case(
            "dreamerv3 size12m image update, B4 T16, bf16",
            lambda: large.update(large_batch),
            50.0,
            bf16=True,
        ),
        Case("dreamerv3 size12m imagination, 64 x H15, bf16", imagination, 8.0, bf16=True),
    ]


def batch(agent: DreamerV3Agent, size: int, length: int) -> Batch:
    """Random sequences of `length` after one context step, with one episode end inside."""
    lead = (size, length + 1)
    first = torch.zeros(lead, dtype=torch.bool)
    first[:, length // 2] = True
    last = first.roll(-1, 1)
    obs = {key: _random(spec, lead) for key, spec in agent.obs_spec.items()}
    model = agent.config.model
    return Batch(
        obs=obs,
        action=_random(agent.action_spec["action"], lead),
        reward=torch.randn(lead),
        is_first=first,
        is_last=last,
        is_terminal=last,
        context=1,
        stored={
            "deter": torch.zeros(size, 1, model.deter),
            "stoch": torch.zeros(size, 1, model.stoch, dtype=torch.uint8),
        },
    )


def _random(spec: TensorSpec, lead: tuple[int, ...]) -> torch.Tensor:
    if spec.image:
        return torch.randint(0, 256, (*lead, *spec.shape), dtype=torch.uint8)
    if isinstance(spec.n, int):
        return torch.randint(0, spec.n, lead)
    return torch.rand(*lead, *spec.shape) * 2 - 1


def imagine(agent: DreamerV3Agent, rows: int) -> Callable[[], object]:
    """H steps of the actor in the model, from `rows` states; no decoding."""
    states = agent.world_model.initial(rows)
    start = State({"deter": torch.randn_like(states["deter"]), "stoch": states["stoch"]})
    rand = Rand.seeded(0)
    horizon = agent.config.agent.imag_length

    @torch.no_grad()
    def run() -> object:
        policy = agent.actor(rand.under("imagined/"))
        rolled = rand.under("imagined/")
        return unroll(agent.world_model, start, policy, horizon=horizon, rand=rolled)

    return run


def policy_step(agent: DreamerV3Agent) -> Callable[[], object]:
    """One action for one observation, State carried along."""
    obs = {key: _random(spec, (1,)) for key, spec in agent.obs_spec.items()}
    rand = Rand.seeded(0)
    going_on = torch.zeros(1, dtype=torch.bool)
    _, state = agent.act(obs, None, ~going_on, "train", rand=rand)
    return lambda: agent.act(obs, state, going_on, "train", rand=rand)


if __name__ == "__main__":
    for row in rows():
        print(row)
