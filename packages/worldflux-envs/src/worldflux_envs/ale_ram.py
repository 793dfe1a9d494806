"""Atari games seen by the console's memory in place of its screen: `obs="ram"`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from ale_py import ALEInterface, LoggerMode, roms
from gymnasium import spaces

from worldflux_envs.ale import rom
from worldflux_envs.boundary.actions import Choices
from worldflux_envs.stack import FRAMES

BYTES = 128


class RamEnv(gymnasium.Env[Any, Any]):
    """One game whose observation is its 128 bytes, as numbers in [0, 1].

    The options are those of the screen's (`worldflux_envs.backends.atari`). A game resumes by
    replaying its actions.
    """

    def __init__(
        self,
        game: str,
        *,
        frame_skip: int = 4,
        noops: int = 30,
        sticky: float = 0.25,
        full_action_space: bool = False,
        life_loss: bool = False,
        clip_rewards: bool = False,
        max_frames: int = 108_000,
        render_mode: str | None = None,
    ) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 60 / frame_skip}
        self.metadata[FRAMES] = frame_skip
        self.render_mode = render_mode
        found = roms.get_rom_path(rom(game))
        assert found is not None, "`rom` names one that is there"
        self._rom = found
        self._skip, self._noops, self._most = frame_skip, noops, max_frames
        self._life_loss, self._clip = life_loss, clip_rewards
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self._ale = ALEInterface()
        self._ale.setFloat("repeat_action_probability", sticky)
        self._ale.loadROM(self._rom)
        whole = self._ale.getLegalActionSet() if full_action_space else None
        self._actions = whole or self._ale.getMinimalActionSet()
        names = tuple(action.name for action in self._actions)
        self.action_space = Choices(len(names), names)
        self.observation_space = spaces.Box(0, 1, (BYTES,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:  # the console takes its seed when a cartridge is put in
            self._ale.setInt("random_seed", seed)
            self._ale.loadROM(self._rom)
        self._ale.reset_game()
        for _ in range(int(self.np_random.integers(self._noops + 1))):
            self._ale.act(0)
        return self._seen(), {"lives": self._ale.lives()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        lives, reward = self._ale.lives(), 0.0
        for _ in range(self._skip):
            reward += self._ale.act(self._actions[int(action)])
            if self._ale.game_over():
                break
        lost = self._life_loss and self._ale.lives() < lives
        over = bool(self._ale.game_over(with_truncation=False) or lost)
        cut = not over and self._ale.getEpisodeFrameNumber() >= self._most
        reward = float(np.sign(reward)) if self._clip else reward
        return self._seen(), reward, over, cut, {"lives": self._ale.lives()}

    def render(self) -> Any:
        return self._ale.getScreenRGB()

    def _seen(self) -> Any:
        return self._ale.getRAM().astype(np.float32) / 255
