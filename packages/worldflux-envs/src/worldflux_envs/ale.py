"""Atari on ALE's own vector engine: one environment and many are the same code, so the same games.

The engine does frame skip, max-pooling of the last two frames, no-op starts, sticky actions and
resizing (area), as the standard wrappers do. Seeds and episode ends are ours: the engine is told to
reset a game with the seed of its episode. It has no state to save, so a game resumes by replaying
its actions from its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces

from worldflux.errors import EnvError, did_you_mean
from worldflux_envs.boundary.actions import Choices
from worldflux_envs.images import FILTERS, Filter
from worldflux_envs.images import resize as filtered
from worldflux_envs.resume import as_single, pack, unpack
from worldflux_envs.stack import FRAMES
from worldflux_envs.vector.base import Command, EpisodicVectorEnv, Failure, Reply

SCREEN = (210, 160)  # rows, columns


class Engine:
    """`num_envs` games, stepped together; single ones are reset with a seed of their own."""

    def __init__(
        self,
        game: str,
        num_envs: int,
        *,
        size: tuple[int, int] = (64, 64),
        resize: Filter = "area",
        gray: bool = False,
        frame_stack: int = 1,
        frame_skip: int = 4,
        max_pool: bool = True,
        noops: int = 30,
        sticky: float = 0.25,
        fire_reset: bool = False,
        full_action_space: bool = False,
        life_loss: bool = False,
        clip_rewards: bool = False,
        max_frames: int = 108_000,
        threads: int = 0,
    ) -> None:
        if resize not in FILTERS:
            raise EnvError(f"There is no filter {resize!r}: choose one of {', '.join(FILTERS)}.")
        # The engine filters by area; for another filter it gives the screen as it is.
        self._size, self._filter = size, resize
        drawn = size if resize == "area" else SCREEN
        self.vec = AtariVectorEnv(
            rom(game), num_envs, num_threads=threads, img_height=drawn[0], img_width=drawn[1],
            grayscale=gray, stack_num=frame_stack, frameskip=frame_skip, maxpool=max_pool,
            # The engine draws from [0, noop_max), the papers from [0, noops].
            noop_max=noops + 1 if noops else 0, repeat_action_probability=sticky,
            use_fire_reset=fire_reset, full_action_space=full_action_space,
            reward_clipping=clip_rewards, max_num_frames_per_episode=max_frames,
        )  # fmt: skip
        self.num_envs, self.life_loss = num_envs, life_loss
        meanings = tuple(action.name for action in self.vec.ale.get_action_set())
        self.action_space = Choices(len(meanings), meanings)
        channels = frame_stack * (1 if gray else 3)
        self.image_space = spaces.Box(0, 255, (channels, *size), np.uint8)
        # Games in progress: the seed of each, and its actions so far.
        self.seeds = [0] * num_envs
        self.actions: list[list[int]] = [[] for _ in range(num_envs)]
        self.lives = np.zeros(num_envs, int)
        self.life_lost = np.zeros(num_envs, bool)
        self.images = np.zeros((num_envs, *self.image_space.shape), np.uint8)

    def advance(self, actions: dict[int, int], seeds: dict[int, int]) -> tuple[Any, Any, Any]:
        """Step some games, begin others: rewards, terminated, truncated, all (num_envs,).

        A game of which only a life was lost is not begun anew but goes on with a no-op.
        """
        if not seeds:
            return self._step(actions)
        going_on = {i: 0 for i in seeds if self.life_lost[i]}
        new = {i: seed for i, seed in seeds.items() if i not in going_on}
        rewards, ended = np.zeros(self.num_envs), list(np.zeros((2, self.num_envs), bool))
        if moves := actions | going_on:
            rewards, *ended = (part.copy() for part in self._step(moves))
            new |= {i: seeds[i] for i in going_on if ended[0][i] or ended[1][i]}
            begun = list(seeds)
            rewards[begun], ended[0][begun], ended[1][begun] = 0.0, False, False
        if new:
            self._start(new)
        return rewards, ended[0], ended[1]

    def get_state(self, i: int) -> dict[str, Any]:
        """Game i: its seed and all it was told since."""
        return {
            "seed": self.seeds[i],
            "actions": np.array(self.actions[i], np.uint8),
            "life_lost": bool(self.life_lost[i]),
        }

    def set_states(self, states: dict[int, dict[str, Any]]) -> None:
        """Bring these games to where they were; the others are to be begun before they are used."""
        self._start(dict.fromkeys(range(self.num_envs), 0))  # the engine wants them all at first
        longest = max(len(state["actions"]) for state in states.values())
        # All are told something at every step, so each begins just in time to end with the rest.
        for left in range(longest, -1, -1):
            starting = {i: s["seed"] for i, s in states.items() if len(s["actions"]) == left}
            if starting:
                self._start(starting)
            playing = {i: s["actions"] for i, s in states.items() if len(s["actions"]) >= left > 0}
            if playing:
                self._step({i: int(actions[-left]) for i, actions in playing.items()})
        for i, state in states.items():
            self.life_lost[i] = state["life_lost"]

    def _step(self, actions: dict[int, int]) -> tuple[Any, Any, Any]:
        moves = np.zeros(self.num_envs, np.int64)
        for i, action in actions.items():
            moves[i] = action
            self.actions[i].append(action)
        images, rewards, terminated, truncated, info = self.vec.step(moves)
        self._show(images)
        if self.life_loss:
            self.life_lost = (info["lives"] < self.lives) & ~(terminated | truncated)
            terminated = terminated | self.life_lost
        self.lives = info["lives"]
        return rewards, terminated, truncated

    def _start(self, seeds: dict[int, int]) -> None:
        order = sorted(seeds)
        mask = np.zeros(self.num_envs, bool)
        mask[order] = True
        everyone = len(order) == self.num_envs
        options = None if everyone else {"reset_mask": mask}
        images, info = self.vec.reset(seed=np.array([seeds[i] for i in order]), options=options)
        self._show(images)
        for i in order:
            self.seeds[i], self.actions[i] = seeds[i], []
            self.lives[i] = info["lives"][i]
            self.life_lost[i] = False

    def _show(self, images: np.ndarray) -> None:
        if images.ndim == 5:  # (N, stack, Y, X, 3)
            rows, columns = images.shape[2:4]
            images = images.transpose(0, 1, 4, 2, 3).reshape(self.num_envs, -1, rows, columns)
        self.images = (
            images if self._filter == "area" else filtered(images, self._size, self._filter)
        )


def rom(game: str) -> str:
    """The engine's name of `Pong`, `ms_pacman` or `ALE/MsPacman-v5`."""
    plain = game.removeprefix("ALE/").removesuffix("-v5").replace("_", "").lower()
    known = {name.replace("_", ""): name for name in roms.get_all_rom_ids()}
    if plain not in known:
        raise EnvError(
            f"ALE has no game {game!r}.{did_you_mean(plain, known)} "
            "worldflux.list_envs('atari') lists them."
        )
    return known[plain]


class AtariEnv(gymnasium.Env[Any, Any]):
    """One game; with `render_mode="rgb_array"` a second one beside it draws the whole screen."""

    canonical = True  # new arrays at every step, and the contract's spaces
    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 - Gymnasium's form

    def __init__(self, game: str, *, render_mode: str | None = None, **options: Any) -> None:
        self.render_mode = render_mode
        self._engine = Engine(game, 1, threads=1, **options)
        self.metadata = {**self.metadata, FRAMES: options.get("frame_skip", 4)}
        self._screen: Engine | None = None
        if render_mode is not None:
            whole = {**options, "size": SCREEN, "gray": False, "frame_stack": 1, "resize": "area"}
            self._screen = Engine(game, 1, threads=1, **whole)
        self.action_space = self._engine.action_space
        self.observation_space = spaces.Dict({"image": self._engine.image_space})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**31 - 1)) if seed is None else seed
        self._advance({}, {0: chosen})
        return self._observed()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        rewards, terminated, truncated = self._advance({0: int(action)}, {})
        obs, info = self._observed()
        return obs, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> Any:
        if self._screen is None:
            raise EnvError("Make the environment with render_mode='rgb_array' to render it.")
        return self._screen.images[0].transpose(1, 2, 0).copy()

    def get_state(self) -> dict[str, Any]:
        """The game's seed and actions."""
        return self._engine.get_state(0)

    def set_state(self, state: dict[str, Any]) -> None:
        """Play the game again up to there."""
        for engine in filter(None, (self._engine, self._screen)):
            engine.set_states({0: state})

    def _advance(self, actions: dict[int, int], seeds: dict[int, int]) -> tuple[Any, Any, Any]:
        if self._screen is not None:
            self._screen.advance(actions, seeds)
        return self._engine.advance(actions, seeds)

    def _observed(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        # The engine gives new arrays at every step.
        return {"image": self._engine.images[0]}, {"lives": int(self._engine.lives[0])}


class NativeAtari(EpisodicVectorEnv):
    """Many games in the engine's own threads."""

    restarts_rows = False

    def __init__(
        self,
        game: str,
        num_envs: int,
        *,
        copy: bool = True,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        self._engine = Engine(game, num_envs, **options)
        super().__init__(
            num_envs,
            spaces.Dict({"image": self._engine.image_space}),
            self._engine.action_space,
            name=f"atari/{game}",
            metadata={**AtariEnv.metadata, FRAMES: options.get("frame_skip", 4)},
            render_mode=None,
            copy=copy,
            seed=seed,
        )

    def execute(self, indices: Sequence[int], commands: Sequence[Command]) -> list[Reply | Failure]:
        engine = self._engine
        told = dict(zip(indices, commands, strict=True))
        if any(kind == "get_state" for kind, _ in commands):
            states = [as_single(pack(engine.get_state(i))) for i in indices]
            return [(0.0, False, False, {"state": state}) for state in states]
        restored = {i: unpack(x[1]["env"]) for i, (kind, x) in told.items() if kind == "set_state"}
        if restored:
            engine.set_states(restored)
            rewards, terminated, truncated = np.zeros((3, self.num_envs))
        else:
            rewards, terminated, truncated = engine.advance(
                {i: int(action) for i, (kind, action) in told.items() if kind == "step"},
                {i: argument[0] for i, (kind, argument) in told.items() if kind != "step"},
            )
        self.buffers = {"image": engine.images}
        flags = zip(rewards.tolist(), terminated.tolist(), truncated.tolist(), strict=True)
        lives = [{"lives": count} for count in engine.lives.tolist()]
        rows = [(*flag, info) for flag, info in zip(flags, lives, strict=True)]
        return [rows[i] for i in indices]
