"""What a world model imagines beside what really happened, and how the two part over time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldflux.atomic import make_folder, write_file
from worldflux.columns import ACTION, EXTRA, OBS, REWARD, under
from worldflux.core.model import WorldModel
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.core.strides import in_blocks
from worldflux.core.trajectory import Trajectory
from worldflux.episodes import Episode, rows_of
from worldflux.errors import CapabilityError, StorageError
from worldflux.nn.device import device_of
from worldflux.runs import Run
from worldflux.specs import Capability
from worldflux_train.recording import PICTURE, Array, tensors_of
from worldflux_train.seeding import derived

MOST_STARTS = 256
DECODED_AT_ONCE = 512
"""States decoded in one call: 11,800 images at once took some 5 GB."""
Curves = dict[str, list[list[float]]]


@dataclass
class Imagination:
    """One episode's real and imagined steps, and errors over the horizon from many starts.

    After `context` real steps the model sees only the actions. `real` and `imagined` hold vectors
    (T, D) by key, rewards (T, 1) under "reward"; images are in `images` (real, imagined), each
    (T, C, Y, X) in [0, 1]. `error[key][h]` is the error h+1 steps ahead over `starts` starts
    (see `_error`); `still` is the error of predicting no change.
    """

    step: int
    context: int
    horizon: int
    starts: int
    real: Curves = field(default_factory=dict)
    imagined: Curves = field(default_factory=dict)
    error: dict[str, list[float]] = field(default_factory=dict)
    still: dict[str, list[float]] = field(default_factory=dict)
    images: dict[str, tuple[Array, Array]] = field(default_factory=dict, repr=False)
    frames: Array | None = field(default=None, repr=False)
    stages: dict[str, Array] = field(default_factory=dict, repr=False)
    """How the first imagined step came about (`DynamicsModel.stages`): (S, C, Y, X) by name."""

    def save(self, run: Run) -> Path:
        """Write all but the pictures to the run's videos folder."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.repr}
        path = run.videos_path / f"imagined-{self.step:010d}.json"
        make_folder(run.videos_path)
        write_file(path, json.dumps(plain).encode())
        return path


def load_imagination(run: Run) -> Imagination | None:
    """The newest one saved in the run, None if there is none."""
    found = sorted(run.videos_path.glob("imagined-*.json"))
    if not found:
        return None
    try:
        return Imagination(**json.loads(found[-1].read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise StorageError(
            f"{found[-1]} is damaged: {error}. Delete it, or make it anew with: "
            f"worldflux imagine {run.path}"
        ) from error


@torch.no_grad()
def imagine(
    model: WorldModel,
    episodes: list[Episode],
    *,
    step: int,
    context: int,
    horizon: int,
    seed: int,
) -> Imagination:
    """Open-loop rollouts along the episodes' own actions, or none; the longest episode is shown.

    Steps are the model's: under a stride k of the environment's each.
    """
    if not model.supports(Capability.OBS_DECODE) and not model.supports(Capability.REWARD_PRED):
        raise CapabilityError(
            f"{type(model).__name__} predicts neither observations nor rewards: there is nothing "
            "to compare with what really happened."
        )
    if model.dynamics_model is None:
        raise CapabilityError(
            f"{type(model).__name__} has no dynamics: it cannot imagine what comes next."
        )
    if model.starts_anew:
        return _drawn(
            model, episodes, step, Rand.seeded(derived(seed, "samples"), device_of(model))
        )
    episodes = [in_blocks(episode, model.stride) for episode in episodes]
    shown = max(episodes, key=rows_of)
    rows = rows_of(shown)
    context = min(context, max(1, rows // 4))
    horizon = min(horizon, rows - context)
    if horizon < 1:
        raise CapabilityError(f"The longest episode has {rows} steps: too few to imagine.")
    rand = Rand.seeded(derived(seed, "imagination"), device_of(model))
    states, pieces = [], []
    for episode in sorted(episodes, key=lambda item: item is not shown):  # the shown one first
        filtered = _filter(model, episode, rand)
        first = context - 1
        for begin in range(first, rows_of(episode) - horizon, max(1, horizon // 4)):
            states.append(filtered[begin])
            pieces.append((episode, begin))
    found = _compare(
        model, states[:MOST_STARTS], pieces[:MOST_STARTS], step, context, horizon, rand
    )
    found.stages = _stages(model, states[0], pieces[0], rand)
    return found


def _stages(
    model: WorldModel, state: State, piece: tuple[Episode, int], rand: Rand
) -> dict[str, Array]:
    """How the transition from the State (1, ...) of a piece comes about."""
    actions = _actions([piece], 1, state.device)
    if actions is None:
        return {}
    action = model.condition(actions[0], _conditions([piece], state.device))
    found = model.slot("dynamics_model", "stages").stages(state, action, rand=rand.under("stages/"))
    return {name: x[:, 0].float().cpu().numpy() for name, x in found.items()}


def _filter(model: WorldModel, episode: Episode, rand: Rand) -> list[State]:
    """The posterior State (1, ...) at every step of an episode."""
    device = device_of(model)
    states: list[State] = []
    seen = under(OBS, episode)
    for t in range(rows_of(episode)):
        obs = tensors_of({key: episode[name][t] for key, name in seen.items()}, device)
        if not states:
            states.append(model.encode(obs, rand=rand))
            continue
        action = None
        if ACTION in episode:
            action = torch.as_tensor(np.array(episode[ACTION][t - 1])[None]).to(device)
        given = _conditions([(episode, t)], device)
        states.append(model.update(states[-1], action, obs, given, rand=rand))
    return states


def _conditions(pieces: list[tuple[Episode, int]], device: torch.device) -> ConditionPayload | None:
    """The further columns of these steps (labels, say) as conditions (B, ...), where there are."""
    names = [name for name in under(EXTRA, pieces[0][0]).values() if name != PICTURE]
    if not names:
        return None
    extras = {
        f"wf.data.{name.removeprefix(EXTRA)}": torch.as_tensor(
            np.stack([episode[name][t] for episode, t in pieces])
        ).to(device)
        for name in names
    }
    return ConditionPayload(extras=extras)


def _drawn(model: WorldModel, episodes: list[Episode], step: int, rand: Rand) -> Imagination:
    """Of a generator: an image for the label of each first row, beside the real one."""
    pieces = [(episode, 0) for episode in episodes]
    device = device_of(model)
    path = model.rollout(
        model.initial(len(pieces), device), None, _conditions(pieces, device), horizon=1,
        decode=True, rand=rand,
    )  # fmt: skip
    result = Imagination(step, 0, 1, len(pieces))
    for key, value in (path.observations or {}).items():
        real = np.stack([_real(episode, key)[0] for episode in episodes])
        result.images[key] = (real, value[-1].float().cpu().numpy().clip(0, 1))
    return result


def _compare(
    model: WorldModel,
    states: list[State],
    pieces: list[tuple[Episode, int]],
    step: int,
    context: int,
    horizon: int,
    rand: Rand,
) -> Imagination:
    guesses = _guesses(model, states, pieces, horizon, rand)
    result = Imagination(step, context, horizon, len(pieces), frames=pieces[0][0].get(PICTURE))
    for key, guess in guesses.items():
        if _column(key) not in pieces[0][0]:
            continue  # data without rewards, say
        real = np.stack([_real(e, key)[t + 1 : t + 1 + horizon] for e, t in pieces], 1)
        before = np.stack([_real(e, key)[t] for e, t in pieces])  # (B, ...)
        guess = guess.reshape(real.shape)  # (H, B, ...)
        result.error[key] = _error(guess, real)
        result.still[key] = _error(np.broadcast_to(before, real.shape), real)
        _show(result, key, pieces[0][0], guess[:, 0])
    return result


def _guesses(
    model: WorldModel,
    states: list[State],
    pieces: list[tuple[Episode, int]],
    horizon: int,
    rand: Rand,
) -> dict[str, Array]:
    """Predictions (H, B, ...) on the host; only so many starts at once as memory is kind to."""
    found: dict[str, list[Array]] = {}
    at_once = max(1, DECODED_AT_ONCE // (horizon + 1))
    for first in range(0, len(states), at_once):
        part = slice(first, first + at_once)
        actions = _actions(pieces[part], horizon, states[0].device)
        alone: dict[str, Any] = {"horizon": horizon} if actions is None else {}
        path = model.rollout(
            State.cat(states[part]),
            actions,
            _conditions(pieces[part], states[0].device),
            decode=True,
            rand=rand.under(f"start{first}/"),
            **alone,
        )
        for key, tensor in _predicted(path).items():
            found.setdefault(key, []).append(tensor.float().cpu().numpy())
    return {key: np.concatenate(parts, 1) for key, parts in found.items()}


def _actions(
    pieces: list[tuple[Episode, int]], horizon: int, device: torch.device
) -> Tensor | None:
    """Recorded actions (H, B, ...) from each piece on; None where none were recorded."""
    if ACTION not in pieces[0][0]:
        return None
    taken = np.stack([episode[ACTION][t : t + horizon] for episode, t in pieces], 1)
    return torch.as_tensor(taken).to(device)


def _predicted(path: Trajectory) -> dict[str, Tensor]:
    """What the rollout predicts for steps 1 to H: observations (H, B, ...) and rewards (H, B)."""
    found = {key: value[1:] for key, value in (path.observations or {}).items()}
    return found | ({} if path.rewards is None else {"reward": path.rewards})


def _column(key: str) -> str:
    return REWARD if key == "reward" else f"{OBS}{key}"


def _real(episode: Episode, key: str) -> Array:
    value: Array = episode[_column(key)]
    return value.astype(np.float32) / 255 if value.dtype == np.uint8 else value


def _error(guess: Array, real: Array) -> list[float]:
    """RMSE per step ahead (H,), in standard deviations of the real values.

    Every component of a vector has its own scale; one that does not vary is taken as it is.
    """
    spread = real.std((0, 1) if real.ndim == 3 else None)
    scale = np.where(spread > 1e-3, spread, 1.0)
    square = (((guess - real) / scale) ** 2).reshape(len(real), -1)
    return [float(value) for value in np.sqrt(square.mean(1))]


def _show(result: Imagination, key: str, episode: Episode, guess: Array) -> None:
    """Real steps up to the context, then both, of the first piece."""
    end = result.context + result.horizon
    real = _real(episode, key)[:end]
    imagined = np.concatenate([real[: result.context], guess])
    if real.ndim == 4:
        result.images[key] = (real, imagined.clip(0, 1))
        return
    result.real[key] = real.reshape(end, -1).tolist()
    result.imagined[key] = imagined.reshape(end, -1).tolist()
