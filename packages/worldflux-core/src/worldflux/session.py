"""A session with any world model: step it by hand, read what it shows, put it back onto reality."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.observations import Observation, image_or_first
from worldflux.core.output import ModelOutput
from worldflux.core.payloads import ActionPayload, ConditionPayload
from worldflux.core.rand import Rand, uniform
from worldflux.core.state import State
from worldflux.errors import CapabilityError, ContractError
from worldflux.nn.device import device_of
from worldflux.specs import TensorSpec

Starts = Batch | State | Callable[[int, Rand], State]
"""Real sequences (R, T, ...), States (R, ...), or a function of a number of rows and a Rand."""
_SCALARS = ("reward", "continue")


class Frame:
    """What a session shows after one step, for B rows; decoded when it is read, and only once."""

    def __init__(
        self, session: Session, before: State | None, action: Tensor | ActionPayload | None
    ) -> None:
        self._model, self._conditions = session.model, session.conditions
        self._before, self._action = before, action
        self._seed = session.frame_seed
        self.state = session.state

    @cached_property
    def obs(self) -> dict[str, Tensor]:
        """Every decoded observation (B, ...) by key, in its space: images are uint8."""
        specs = self._model.obs_spec
        found = self._decoded(tuple(specs)).predictions
        return {key: _in_space(spec, found[key]) for key, spec in specs.items() if key in found}

    @property
    def image(self) -> Tensor:
        """The decoded image (B, C, Y, X), uint8."""
        key = image_or_first(self._model.obs_spec)
        if key is None or not self._model.obs_spec[key].image:
            raise CapabilityError(f"{type(self._model).__name__} imagines no image.")
        return self.obs[key]

    @property
    def reward(self) -> Tensor | None:
        """The predicted reward (B,) of the step that led here; None where none is predicted."""
        return None if self._before is None else self._scalars.predictions.get("reward")

    @property
    def continues(self) -> Tensor | None:
        """The predicted probability (B,) that the episode goes on; None where none is predicted."""
        return self._scalars.predictions.get("continue")

    @cached_property
    def ended(self) -> Tensor | None:
        """Whether each row (B,) ended here: what the model sampled, else drawn from "continue"."""
        if self._before is None:
            return None
        sampled: Tensor | None = self._scalars.aux.get("ended")
        go_on = self._scalars.predictions.get("continue")
        if sampled is not None or go_on is None:
            return None if sampled is None else sampled.bool()
        shape, device = tuple(go_on.shape), go_on.device
        return self._rand().draw("continue", shape, uniform, device=device) >= go_on

    @torch.no_grad()
    def uncertainty(self, samples: int = 4) -> Tensor:
        """How little the model knows here (B,); costs nothing unless it is asked for.

        The model's own measure where it gives one; else the standard deviation of the predicted
        reward over `samples` sampled next States (0 for a deterministic model).
        """
        own = self._scalars.uncertainty
        if own is not None:
            return own
        if self._before is None or self.reward is None:
            return torch.zeros(self.state.batch_size, device=self.state.device)
        rewards, rand = [self.reward], self._rand()
        for i in range(samples - 1):
            other = self._model.transition(
                self._before, self._action, self._conditions, rand=rand.under(f"other{i}/")
            )
            rewards.append(self._model.decode(other, keys=("reward",)).predictions["reward"])
        return torch.stack(rewards).std(0, correction=0)

    def _rand(self) -> Rand:
        """This frame's random numbers from the first on: what else was read makes no difference."""
        return Rand.seeded(self._seed, device_of(self._model))

    @cached_property
    def _scalars(self) -> ModelOutput:
        if self._model.decoder_module is None:  # then nothing is predicted
            return ModelOutput({})
        return self._decoded(_SCALARS)

    @torch.no_grad()
    def _decoded(self, keys: tuple[str, ...]) -> ModelOutput:
        return self._model.decode(self.state, self._conditions, keys=keys)


class Session:
    """B rows of imagination in `model`, each from one of `starts`, advanced by hand.

    Rows take their starts in a seeded order, one after another and round again; a real sequence
    (R, T, ...) is observed to its last step. Nothing restarts by itself: see `reset`. Where
    `starts` is a function of (rows, rand), it is asked anew every time.
    """

    def __init__(
        self,
        model: WorldModel,
        starts: Starts,
        rows: int = 1,
        seed: int = 0,
        conditions: ConditionPayload | None = None,
    ) -> None:
        if rows < 1:
            raise ContractError(f"A session needs at least one row, got rows={rows}.")
        self.model, self.rows, self.conditions = model.eval(), rows, conditions
        self._starts = starts
        self.seed(seed)
        self.state = self._fresh(rows)

    def seed(self, seed: int) -> None:
        """All random numbers from now on, and the order of starts, follow from `seed`."""
        self._seed, self._steps, self._used = seed, 0, 0
        self._rand = Rand.seeded(seed, device_of(self.model))

    @torch.no_grad()
    def step(self, action: Tensor | ActionPayload | None = None) -> Frame:
        """One imagined step of every row by `action` (B, ...); None where the model takes none."""
        before = self.state
        if isinstance(action, Tensor):
            action = action.to(device_of(self.model))
        self.state = self.model.transition(before, action, self.conditions, rand=self._rand)
        self._steps += 1
        return Frame(self, before, action)

    def frame(self) -> Frame:
        """What the session shows now, without a step: after a start, `reset` or `observe`."""
        return Frame(self, None, None)

    def reset(self, mask: Tensor | None = None) -> Frame:
        """Rows where `mask` (B,) holds (all, if None) take the next starts; the others stay."""
        if mask is None:
            self.state = self._fresh(self.rows)
        elif bool(mask.any()):
            chosen = mask.to(self.state.device).nonzero()[:, 0]
            fresh = self._fresh(len(chosen))
            # A first State may lack what a step adds (a prior's logits), and the other way round:
            # what both have is what the next step goes on from.
            both = self.state.only(fresh.tensors.keys())
            self.state = both.with_(
                {key: _placed(old, chosen, fresh[key]) for key, old in both.tensors.items()}
            )
        return self.frame()

    @torch.no_grad()
    def observe(self, obs: Observation, action: Tensor | ActionPayload) -> Frame:
        """Back onto reality: `action` (B, ...) was executed and led to `obs` (B, ...)."""
        self.state = self.model.update(self.state, action, obs, self.conditions, rand=self._rand)
        return self.frame()

    @property
    def frame_seed(self) -> int:
        """The seed of the present frame alone: reading it changes nothing that follows."""
        return self._seed * 1_000_003 + self._steps

    @torch.no_grad()
    def _fresh(self, count: int) -> State:
        if not isinstance(self._starts, Batch | State):
            return self._starts(count, self._rand)
        total = self._starts.batch_size
        shuffled = torch.randperm(total, generator=torch.Generator().manual_seed(self._seed))
        index = shuffled[torch.arange(self._used, self._used + count) % total]
        self._used += count
        if isinstance(self._starts, State):
            return self._starts.rows(index.to(self._starts.device))
        chosen = self._starts.map(lambda tensor: tensor[index.to(tensor.device)])
        seen = self.model.observe_sequence(chosen.to(device_of(self.model)), rand=self._rand)
        return seen.at(-1)


def _placed(old: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    return old.index_copy(0, rows, new.to(old))


def _in_space(spec: TensorSpec, predicted: Tensor) -> Tensor:
    """A prediction in the space of the observation: images in [0, 1] become uint8."""
    if spec.dtype == "uint8":
        return (predicted.clamp(0, 1) * 255).round().to(torch.uint8)
    return predicted.float()
