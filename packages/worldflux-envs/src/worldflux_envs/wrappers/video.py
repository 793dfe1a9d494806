"""Episodes as MP4 files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from worldflux.errors import EnvError
from worldflux_envs.wrappers.layer import Layer

# Small observations are enlarged by whole pixels up to about this size.
_SMALLEST_SIDE = 192


class VideoWriter:
    """Frames (Y, X, 3) uint8 to an MP4 that has its name once it is complete."""

    def __init__(self, path: str | Path, fps: float) -> None:
        try:
            import av
        except ModuleNotFoundError as error:
            raise EnvError(
                'Videos need PyAV. Install: pip install "worldflux-envs[video]"'
            ) from error
        self._av, self.path = av, Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._container = av.open(str(self._partial), "w", format="mp4")
        self._stream: Any = self._container.add_stream("libx264", rate=max(1, round(fps)))
        self._stream.options = {"crf": "20", "preset": "veryfast"}
        self._stream.pix_fmt = "yuv420p"
        self._started = False

    def write(self, frame: np.ndarray) -> None:
        """Add one frame."""
        frame = _printable(frame)
        if not self._started:
            self._stream.height, self._stream.width = frame.shape[:2]
            self._started = True
        picture = self._av.VideoFrame.from_ndarray(frame, format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def close(self) -> Path:
        """Finish the file; its path."""
        if self._started:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        os.replace(self._partial, self.path)
        return self.path

    def discard(self) -> None:
        """Give the file up."""
        self._container.close()
        self._partial.unlink(missing_ok=True)


class VideoRecorder(Layer):
    """Writes `folder/episode-000000.mp4` for every `every`-th episode.

    Shows what `render()` draws, else the observation under `key`. An episode that is broken off by
    `close` or another `reset` is kept as far as it went.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        folder: str | Path,
        *,
        every: int = 1,
        fps: float | None = None,
        key: str = "image",
    ) -> None:
        super().__init__(env, folder=str(folder), every=every, fps=fps, key=key)
        if every < 1:
            raise EnvError(f"VideoRecorder needs every >= 1, got {every}.")
        if env.render_mode != "rgb_array" and key not in getattr(
            env.observation_space, "spaces", {}
        ):
            raise EnvError(
                f"VideoRecorder has nothing to show: the environment's render_mode is "
                f"{env.render_mode!r}, and it has no observation {key!r}."
            )  # fmt: skip
        self._folder, self._every, self._key = Path(folder), every, key
        self._fps = fps or env.metadata.get("render_fps") or 30
        self._writer: VideoWriter | None = None
        self.episode = -1
        self.paths: list[Path] = []

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._finish()
        obs, info = self.env.reset(**kwargs)
        self.episode += 1
        if self.episode % self._every == 0:
            path = self._folder / f"episode-{self.episode:06d}.mp4"
            self._writer = VideoWriter(path, self._fps)
            self._show(obs)
        return obs, info

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self._writer is not None:
            self._show(obs)
            if terminated or truncated:
                self._finish()
        return obs, reward, terminated, truncated, info

    def close(self) -> None:
        self._finish()
        self.env.close()

    def _show(self, obs: Any) -> None:
        assert self._writer is not None
        if self.env.render_mode == "rgb_array":
            self._writer.write(np.asarray(self.env.render()))
        else:
            self._writer.write(obs[self._key].transpose(1, 2, 0))

    def _finish(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            self.paths.append(writer.close())


def _printable(frame: np.ndarray) -> np.ndarray:
    """(Y, X, 3) with even sides, not tiny; the last three channels of a stack of frames."""
    if frame.shape[-1] % 3:
        frame = np.repeat(frame[..., -1:], 3, axis=-1)
    scale = max(1, _SMALLEST_SIDE // min(frame.shape[:2]))
    frame = frame[..., -3:].repeat(scale, axis=0).repeat(scale, axis=1)
    rows, columns = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
    return np.ascontiguousarray(frame[:rows, :columns])
