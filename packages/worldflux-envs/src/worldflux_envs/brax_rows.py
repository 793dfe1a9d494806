"""Rows of a Brax environment stepped as one batch; a single environment is a batch of one.

Brax draws nothing after `reset`, so an episode follows from its seed and actions. XLA compiles each
batch size by itself: the same episode in batches of different sizes agrees up to rounding.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from worldflux.errors import EnvError, did_you_mean
from worldflux_envs.resume import as_single, pack, unpack
from worldflux_envs.vector.base import Command, EpisodicVectorEnv, Failure, Reply
from worldflux_envs.vector.buffers import plain
from worldflux_envs.wrappers.pixels import Size, as_size

with contextlib.redirect_stdout(io.StringIO()):  # MJX tells of backends that are not here
    from brax import envs

REGISTRY: dict[str, Any] = envs._envs
PHYSICS = ("generalized", "spring", "positional", "mjx")


@cache
def _game(task: Any, physics: str | None) -> tuple[Any, Any, Any, Any]:
    """The environment and its compiled functions of a batch: reset, step, mix."""
    env = task if isinstance(task, envs.Env) else _made(task, physics)

    def reset(seeds: Any) -> Any:  # (B,) uint32
        return jax.vmap(lambda seed: env.reset(jax.random.PRNGKey(seed)))(seeds)

    def mix(mask: Any, new: Any, old: Any) -> Any:  # (B,) bool
        def pick(a: Any, b: Any) -> Any:
            return jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        return jax.tree.map(pick, new, old)

    return env, jax.jit(reset), jax.jit(jax.vmap(env.step)), jax.jit(mix)


def _made(task: str, physics: str | None) -> Any:
    if task not in REGISTRY:
        raise EnvError(
            f"Brax has no task {task!r}.{did_you_mean(task, REGISTRY)} "
            "worldflux.list_envs('brax') lists them."
        )
    if physics is not None and physics not in PHYSICS:
        raise EnvError(
            f"physics={physics!r} is not one of {', '.join(PHYSICS)}."
            f"{did_you_mean(physics, PHYSICS)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Brax's own physics are no longer developed
        return envs.get_environment(task, **({} if physics is None else {"backend": physics}))


class Rows:
    """`count` episodes of one task."""

    def __init__(
        self, task: Any, count: int, *, obs: str = "state", size: Size = 64,
        physics: str | None = None, camera: str | int = -1, max_episode_steps: int = 1000,
    ) -> None:  # fmt: skip
        self.env, self._reset, self._step, self._mix = _game(task, physics)
        self.count, self._obs, self.size = count, obs, as_size(size)
        self._camera, self._limit = camera, max_episode_steps
        self._renderer: Any = None
        self.steps = np.zeros(count, int)
        shapes = jax.eval_shape(self._reset, jax.ShapeDtypeStruct((1,), np.uint32)).obs
        self._keyed = isinstance(shapes, dict)
        vectors = shapes if self._keyed else {"state": shapes}
        parts: dict[str, spaces.Space[Any]] = {}
        if obs != "pixels":
            for key, leaf in vectors.items():
                width = int(np.prod(leaf.shape[1:]))
                parts[key] = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        if obs != "state":
            parts["image"] = spaces.Box(0, 255, (3, *self.size), np.uint8)
        self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.Box(-1.0, 1.0, (self.env.action_size,), np.float32)
        # All rows always exist, so that any of them can be begun or restored by itself.
        self.state = self._reset(np.zeros(count, np.uint32))

    def begin(self, seeds: dict[int, int]) -> None:
        """New episodes in these rows."""
        values = np.zeros(self.count, np.uint32)
        for i, seed in seeds.items():
            values[i] = seed % 2**32
        self._put(self._reset(values), list(seeds))
        self.steps[list(seeds)] = 0

    def advance(self, actions: dict[int, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step these rows: rewards, terminated, truncated, all (B,)."""
        moves = np.zeros((self.count, self.env.action_size), np.float32)
        for i, action in actions.items():
            moves[i] = action
        self._put(self._step(self.state, np.clip(moves, -1.0, 1.0)), list(actions))
        self.steps[list(actions)] += 1
        terminated = np.asarray(self.state.done) > 0.5
        truncated = (self.steps >= self._limit) & ~terminated
        return np.asarray(self.state.reward, np.float64), terminated, truncated

    def observe(self, where: Sequence[int], buffers: dict[str, np.ndarray]) -> None:
        """Write the observations of these rows."""
        found = self.state.obs if self._keyed else {"state": self.state.obs}
        for key, buffer in buffers.items():
            if key in found:
                buffer[where] = np.asarray(found[key]).reshape(buffer.shape)[where]
        if self._obs != "state":
            for i in where:
                buffers["image"][i] = self.picture(i, self.size).transpose(2, 0, 1)

    def picture(self, i: int, size: tuple[int, int]) -> np.ndarray:
        """Row i as MuJoCo draws it, (Y, X, 3) uint8."""
        import mujoco

        system = getattr(self.env.unwrapped, "sys", None)
        if system is None:
            raise EnvError(f"{type(self.env).__name__} has no bodies to draw: use obs='state'.")
        model = system.mj_model
        if self._renderer is None:
            # The picture may be larger than what the model declares.
            model.vis.global_.offheight = max(size[0], model.vis.global_.offheight)
            model.vis.global_.offwidth = max(size[1], model.vis.global_.offwidth)
            self._renderer = mujoco.Renderer(model, *size), mujoco.MjData(model)
        renderer, data = self._renderer
        body = self.state.pipeline_state
        data.qpos, data.qvel = np.asarray(body.q[i]), np.asarray(body.qd[i])
        mujoco.mj_forward(model, data)
        renderer.update_scene(data, camera=self._camera)
        return np.asarray(renderer.render())

    def get_state(self, i: int) -> dict[str, Any]:
        """Row i as arrays."""
        leaves = [np.asarray(leaf)[i] for leaf in jax.tree.leaves(self.state)]
        return {"leaves": leaves, "steps": int(self.steps[i])}

    def set_states(self, states: dict[int, dict[str, Any]]) -> None:
        """Continue these rows from what `get_state` gave."""
        leaves, structure = jax.tree.flatten(self.state)
        arrays = [np.array(leaf) for leaf in leaves]
        for i, state in states.items():
            self.steps[i] = state["steps"]
            for array, saved in zip(arrays, state["leaves"], strict=True):
                array[i] = saved
        self.state = jax.tree.unflatten(structure, [jnp.asarray(array) for array in arrays])

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer[0].close()
            self._renderer = None

    def _put(self, new: Any, where: list[int]) -> None:
        if len(where) < self.count:
            mask = np.zeros(self.count, bool)
            mask[where] = True
            new = self._mix(mask, new, self.state)
        self.state = new


class BraxEnv(gymnasium.Env[dict[str, np.ndarray], Any]):
    """One row; `options` as in `Rows`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - Gymnasium's form

    def __init__(self, task: Any, *, render_mode: str | None = None, **options: Any) -> None:
        self.rows = Rows(task, 1, **options)
        self.render_mode = render_mode
        self.observation_space: spaces.Space[Any] = self.rows.observation_space
        self.action_space = self.rows.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.rows.begin({0: int(self.np_random.integers(2**31)) if seed is None else seed})
        return self._observed(), {}

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        reward, terminated, truncated = self.rows.advance({0: action})
        return self._observed(), float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> np.ndarray:
        """The picture, (Y, X, 3) uint8, as large as the observed images."""
        return self.rows.picture(0, self.rows.size)

    def get_state(self) -> dict[str, Any]:
        """The running episode (see `worldflux_envs.resume`)."""
        return self.rows.get_state(0)

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` gave."""
        self.rows.set_states({0: state})

    def close(self) -> None:
        self.rows.close()

    def _observed(self) -> dict[str, np.ndarray]:
        row = plain(self.rows.observation_space, 1)
        self.rows.observe([0], row)
        return {key: value[0] for key, value in row.items()}


class BraxVec(EpisodicVectorEnv):
    """`num_envs` rows; `options` as in `Rows`."""

    def __init__(
        self, task: Any, num_envs: int, *, copy: bool = True, seed: int | None = None,
        render_mode: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.rows = Rows(task, num_envs, **options)
        super().__init__(
            num_envs, self.rows.observation_space, self.rows.action_space,
            name=f"brax/{task if isinstance(task, str) else type(task).__name__}",
            metadata=BraxEnv.metadata, render_mode=render_mode, copy=copy, seed=seed,
        )  # fmt: skip
        self.buffers = plain(self.rows.observation_space, num_envs)

    def execute(self, indices: Sequence[int], commands: Sequence[Command]) -> list[Reply | Failure]:
        told = dict(zip(indices, commands, strict=True))
        if any(kind == "get_state" for kind, _ in commands):
            states = [as_single(pack(self.rows.get_state(i))) for i in indices]
            return [(0.0, False, False, {"state": state}) for state in states]
        replies: dict[int, Reply] = dict.fromkeys(indices, (0.0, False, False, {}))
        moves = {i: value for i, (kind, value) in told.items() if kind == "step"}
        if moves:
            found = [x.tolist() for x in self.rows.advance(moves)]
            replies |= {i: (found[0][i], found[1][i], found[2][i], {}) for i in moves}
        saved = {
            i: unpack(value[1]["env"]) for i, (kind, value) in told.items() if kind == "set_state"
        }
        if saved:
            self.rows.set_states(saved)
        begun = {i: v[0] for i, (kind, v) in told.items() if kind not in ("step", "set_state")}
        if begun:
            self.rows.begin(begun)
        self.rows.observe(list(indices), self.buffers)
        return [replies[i] for i in indices]

    def render(self) -> tuple[np.ndarray, ...]:
        """The pictures of all rows."""
        return tuple(self.rows.picture(i, self.rows.size) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        self.rows.close()
