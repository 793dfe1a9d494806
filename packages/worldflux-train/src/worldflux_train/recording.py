"""Whole episodes of an agent, kept step by step, with the pictures an environment draws of them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldflux.columns import ACTION, EXTRA, FLAGS, OBS, REWARD
from worldflux.core.agent import Agent
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.episodes import Episode
from worldflux.errors import EnvError
from worldflux.factory import get_env_spec, make_env
from worldflux.nn.device import device_of
from worldflux_train.assembly import evaluation_options
from worldflux_train.config import RunConfig
from worldflux_train.seeding import derived

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0
Array = NDArray[Any]


PICTURE = f"{EXTRA}picture"
"""Column of recorded episodes: what the environment drew, uint8 (T, Y, X, 3), where it can."""
LATENT = f"{EXTRA}latent."
"""What the columns of an agent's States begin with."""


@torch.no_grad()
def record_episodes(
    config: RunConfig,
    agent: Agent,
    count: int,
    most_steps: int,
    seed: int,
    stop: Callable[[], bool] = lambda: False,
    most_seconds: float = math.inf,
    seeds: Sequence[int] | None = None,
    latents: bool = False,
) -> list[Episode]:
    """`count` episodes with mode "eval", each cut after `most_steps`; how far it is, is logged.

    They start from `seeds`, by default from such as follow from `seed`. With `latents` the agent's
    State after each observation is kept too, in columns `LATENT` + its name (T, ...). No further
    episode begins after `most_seconds`, but there is always one. `KeyboardInterrupt` as soon as
    `stop` is true.
    """
    env = _drawing_env(config)
    rand = Rand.seeded(derived(seed, "recorder"), device_of(agent))
    try:
        seeds = seeds or [derived(seed, "recorded episode", i) for i in range(count)]
        found: list[Episode] = []
        began = time.monotonic()
        for each in seeds:
            found.append(_record(env, agent, most_steps, each, rand, stop, latents))
            if stop():
                raise KeyboardInterrupt
            if not _goes_on(len(found), count, time.monotonic() - began, most_seconds):
                break
        if not any(PICTURE in episode for episode in found):
            logger.info("%s draws no pictures of itself.", config.env_id)
        return found
    finally:
        env.close()


def _goes_on(done: int, count: int, seconds: float, most_seconds: float) -> bool:
    """Whether there is time for another episode; tells how far it is where that is long."""
    if done < count and seconds > most_seconds:
        logger.info("recorded %d of %d episodes: they take %.0f s each",
                    done, count, seconds / done)  # fmt: skip
        return False
    if done < count and seconds > SECONDS_BETWEEN_LINES:
        left = min(seconds * (count - done) / done, most_seconds - seconds)
        logger.info("recording: %d of %d episodes, about %.0f s left", done, count, left)
    return True


def _record(
    env: Any,
    agent: Agent,
    most_steps: int,
    seed: int,
    rand: Rand,
    stop: Callable[[], bool],
    latents: bool,
) -> Episode:
    obs, _ = env.reset(seed=seed)
    seen, rewards, frames = [obs], [0.0], [_picture(env)]
    actions: list[Any] = []
    state: State | None = None
    states: list[State] = []
    over = terminated = False
    while not over and len(actions) < most_steps:
        tensors = tensors_of(obs, device_of(agent))
        first = torch.full((1,), not actions, device=device_of(agent))
        payload, state = agent.act(tensors, state, first, "eval", rand=rand)
        states += [state] if latents else []
        chosen = payload.require()[0].cpu().numpy()
        obs, reward, terminated, truncated, _ = env.step(chosen)
        over = bool(terminated or truncated) or stop()
        for items, item in zip(
            (seen, actions, rewards, frames), (obs, chosen, reward, _picture(env)), strict=True
        ):
            items.append(item)  # type: ignore[attr-defined]
    if latents:  # of the last observation too, after which nothing is done
        no = torch.zeros(1, dtype=torch.bool, device=device_of(agent))
        last = tensors_of(obs, device_of(agent))
        states.append(agent.act(last, state, no, "eval", rand=rand)[1])
    found = _episode(seen, actions, rewards, frames, bool(terminated))
    return found | _latents(states)


def _latents(states: list[State]) -> Episode:
    """Columns (T, ...) of States (1, ...); what a cache holds is no latent."""
    names = [name for name in states[0].tensors if not name.startswith("cache.")] if states else []
    return {
        f"{LATENT}{name}": np.stack([of.tensors[name][0].cpu().float().numpy() for of in states])
        for name in names
    }


def _episode(
    seen: list[dict[str, Any]],
    actions: list[Any],
    rewards: list[float],
    frames: list[Any],
    terminated: bool,
) -> Episode:
    """T observations, the T-1 actions between them and the rewards they came with, as columns."""
    found: Episode = {f"{OBS}{key}": np.stack([each[key] for each in seen]) for key in seen[0]}
    found[ACTION] = np.stack([*actions, np.zeros_like(actions[-1])])
    found[REWARD] = np.asarray(rewards, np.float32)
    step, last = np.arange(len(seen)), len(seen) - 1
    flags = (step == 0, step == last, (step == last) & terminated)
    pictures = _stacked(frames)
    drawn = {} if pictures is None else {PICTURE: pictures}
    return found | dict(zip(FLAGS, flags, strict=True)) | drawn


def tensors_of(obs: dict[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """One observation as tensors (1, ...)."""
    return {key: torch.as_tensor(np.asarray(value)[None]).to(device) for key, value in obs.items()}


def _drawing_env(config: RunConfig) -> Any:
    """The environment, asked to draw itself if its backend lets it."""
    alone = get_env_spec(config.env_id).vector  # what means nothing to a single environment
    options = {k: v for k, v in evaluation_options(config).items() if k not in alone}
    try:
        return make_env(config.env_id, **{"render_mode": "rgb_array", **options})
    except (EnvError, TypeError):
        return make_env(config.env_id, **options)


def _picture(env: Any) -> Any:
    """What the environment draws, None where it cannot."""
    try:
        return env.render()
    except NotImplementedError:
        return None


def _stacked(frames: Iterable[Any]) -> Array | None:
    found = [frame for frame in frames if isinstance(frame, np.ndarray) and frame.ndim == 3]
    if not found or any(frame.shape != found[0].shape for frame in found):
        return None
    return np.stack(found)
