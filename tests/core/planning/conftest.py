"""Two control problems with known optima, as world models that a planner can plan in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from worldflux.config import Config
from worldflux.core.actions import VectorActions
from worldflux.core.interfaces import Decoder, DynamicsModel, ObservationEncoder
from worldflux.core.model import WorldModel
from worldflux.core.output import LossOutput
from worldflux.core.rand import Rand, normal
from worldflux.core.state import State
from worldflux.specs import Capability, TensorSpec

STEP = 0.5
POSITION, VELOCITY, EFFORT = 1.0, 0.1, 0.1


class Observed(ObservationEncoder):
    """The state is the observation, beside the last action's effort."""

    def forward(self, obs: dict[str, Tensor]) -> State:
        x = obs["state"]
        return State({"x": x, "effort": x.new_zeros(x.shape[0])})


class Integrator(DynamicsModel):
    """Position and velocity under a force."""

    def transition(self, state, action, *, deterministic=False, rand=None):
        x, force = state["x"], action[:, :1]
        position, velocity = x[:, :1], x[:, 1:]
        moved = torch.cat([position + STEP * velocity, velocity + STEP * force], 1)
        if not deterministic:
            rand = rand or Rand()
            moved = moved + 0.1 * rand.draw("push", tuple(moved.shape), normal)
        return State({"x": moved, "effort": action.square().sum(1)})


class Cost(Decoder):
    """The negative quadratic cost of a state and of the action that led to it."""

    def forward(self, state, keys=None):
        x = state["x"]
        cost = POSITION * x[:, 0] ** 2 + VELOCITY * x[:, 1] ** 2 + EFFORT * state["effort"]
        found = {"reward": -cost, "continue": torch.ones_like(cost), "value": -10 * x[:, 0] ** 2}
        return {key: found[key] for key in keys or found if key in found}


class DoubleIntegrator(WorldModel):
    """Bring a unit mass to rest at 0; linear dynamics, quadratic cost."""

    capabilities = frozenset({Capability.PLANNING, Capability.REWARD_PRED})

    def __init__(self, low=-1.0, high=1.0, size=1) -> None:
        obs = {"state": TensorSpec((2,))}
        action = {"action": TensorSpec((size,), low=low, high=high)}
        super().__init__(Config(), obs, action)
        self.observation_encoder = Observed()
        self.action_conditioner = VectorActions(action["action"])
        self.dynamics_model = Integrator()
        self.decoder_module = Cost()

    def loss(self, batch, part=None, *, rand=None):
        return LossOutput(torch.zeros(()))

    def optimal_return(self, x: Tensor, horizon: int) -> Tensor:
        """The best return (B,) from states (B, 2), by the Riccati recursion."""
        a = np.array([[1.0, STEP], [0.0, 1.0]])
        b = np.array([[0.0], [STEP]])
        q, r = np.diag([POSITION, VELOCITY]), np.array([[EFFORT]])
        p = q
        for t in reversed(range(horizon)):
            gain = np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)
            p = a.T @ p @ (a - b @ gain) + (q if t else 0.0)
        states = x.double().numpy()
        return -torch.tensor(np.einsum("bi,ij,bj->b", states, p, states)).float()

    def exact_return(self, x: Tensor, plan: Tensor) -> Tensor:
        """The return (B,) of a plan (H, B, A), simulated step by step."""
        state, total = self.encode({"state": x}), torch.zeros(x.shape[0])
        for action in plan:
            state = self.transition(state, action, deterministic=True)
            total = total + self.decode(state).predictions["reward"]
        return total


ROOM = (
    "....",
    ".##.",
    ".#G.",
    "....",
)
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


class Walk(DynamicsModel):
    """A distribution over cells, moved by (a mixture of) moves.

    Walls and edges block, and the goal is not left again.
    """

    def __init__(self) -> None:
        super().__init__()
        side = len(ROOM)
        self.moves = torch.zeros(len(MOVES), side * side, side * side)
        for m, (down, right) in enumerate(MOVES):
            for y in range(side):
                for x in range(side):
                    to_y, to_x = y + down, x + right
                    inside = 0 <= to_y < side and 0 <= to_x < side
                    blocked = not inside or ROOM[to_y][to_x] == "#" or ROOM[y][x] == "G"
                    target = y * side + x if blocked else to_y * side + to_x
                    self.moves[m, y * side + x, target] = 1.0

    def transition(self, state, action, *, deterministic=False, rand=None):
        return State({"cell": torch.einsum("bc,bm,mcd->bd", state["cell"], action, self.moves)})


class OnGoal(Decoder):
    """-1 for each step that does not end on the goal."""

    def forward(self, state, keys=None):
        goal = "".join(ROOM).index("G")
        return {"reward": state["cell"][:, goal] - 1.0}


class CellEncoder(ObservationEncoder):
    """A cell's index to its one-hot vector."""

    def forward(self, obs):
        cells = len(ROOM) ** 2
        return State({"cell": torch.nn.functional.one_hot(obs["state"].long(), cells).float()})


class ShortestPath(WorldModel):
    """Walk around a wall to the goal in as few moves as there are."""

    capabilities = frozenset({Capability.PLANNING, Capability.REWARD_PRED})

    def __init__(self) -> None:
        action = {"action": TensorSpec((), "int64", n=len(MOVES))}
        super().__init__(Config(), {"state": TensorSpec((), "int64", n=len(ROOM) ** 2)}, action)
        self.observation_encoder = CellEncoder()
        self.action_conditioner = VectorActions(action["action"])
        self.dynamics_model = Walk()
        self.decoder_module = OnGoal()

    def loss(self, batch, part=None, *, rand=None):
        return LossOutput(torch.zeros(()))

    def optimal_return(self, cells: Tensor) -> Tensor:
        """The best return (B,), by breadth-first search."""
        goal = "".join(ROOM).index("G")
        steps = {goal: 0}
        queue = [goal]
        reach = self.dynamics_model.moves.sum(0) > 0  # (from, to)
        for cell in queue:
            for near in reach[:, cell].nonzero()[:, 0].tolist():
                if near not in steps:
                    steps[near] = steps[cell] + 1
                    queue.append(near)
        return torch.tensor([-float(max(steps[int(c)] - 1, 0)) for c in cells])

    def exact_return(self, cells: Tensor, plan: Tensor) -> Tensor:
        """The return (B,) of a plan of indices (H, B), walked on the drawn room."""
        side, totals = len(ROOM), []
        for b, start in enumerate(cells.tolist()):
            y, x, total = start // side, start % side, 0.0
            for move in plan[:, b].tolist():
                to_y, to_x = y + MOVES[move][0], x + MOVES[move][1]
                inside = 0 <= to_y < side and 0 <= to_x < side
                if inside and ROOM[to_y][to_x] != "#" and ROOM[y][x] != "G":
                    y, x = to_y, to_x
                total -= ROOM[y][x] != "G"
            totals.append(total)
        return torch.tensor(totals)


def forced(planner, rows, seed=0, explore=False):
    """Every tensor a planner asks for, by name: iterations first where it asks in each."""
    c, size = planner.config, planner.space.size
    plan, generator = (c.horizon, size), torch.Generator().manual_seed(seed)
    noise = {
        "random_shooting": lambda: (rows, c.candidates, *plan),
        "gradient": lambda: (rows, c.candidates - 1, *plan),
        "icem": lambda: (c.iterations, rows, c.candidates, *plan),
        "cem": lambda: (c.iterations, rows, c.candidates - c.proposals, *plan),
        "mppi": lambda: (c.iterations, rows, c.candidates - c.proposals, *plan),
    }[planner.name]()
    shapes = {"noise": noise}
    if planner.name == "icem":
        shapes["tail"] = (rows, planner.kept, c.execute, size)
    if explore:
        shapes["explore"] = (rows, size)
    draws = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if planner.name == "mppi":
        draws["choice"] = torch.empty(rows, c.elites).exponential_(generator=generator)
    return draws


@pytest.fixture
def draws_of():
    return forced


@pytest.fixture
def integrator():
    return DoubleIntegrator


@pytest.fixture
def shortest_path():
    return ShortestPath


@pytest.fixture(autouse=True)
def _own_randomness():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
