"""Who learns: a world model, all that trains it, and the steps of its optimisers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from worldflux.columns import Columns, step_columns
from worldflux.config import Config
from worldflux.core import accumulation
from worldflux.core.accumulation import Computed
from worldflux.core.batch import Batch
from worldflux.core.evaluation import Evaluation, held_out_batches
from worldflux.core.model import WorldModel
from worldflux.core.output import UpdateResult, metrics
from worldflux.core.rand import Rand
from worldflux.core.schedules import Rates, Schedule, set_rates, value_now
from worldflux.core.seam import LEARNER_ENTRIES, Seam
from worldflux.core.source import Source
from worldflux.core.state import State
from worldflux.core.training_state import load_training_state, training_state
from worldflux.distributed import reduce_gradients
from worldflux.errors import ContractError
from worldflux.nn.device import device_of
from worldflux.saving import save_pretrained
from worldflux.specs import TensorSpec
from worldflux.training import Phase, TrainingPlan

_Rows = TypeVar("_Rows")  # a Batch, a State or a mapping of them


class Learner(Seam, nn.Module, ABC):
    """Owns a world model and everything that trains it.

    Trainable parameters are exactly those with `requires_grad`; target copies, statistics and
    schedules are buffers or frozen parameters, so that `state_dict` is complete. Optimisers go
    into `self.optimizers`, by name, and are checkpointed beside it; `update` uses them through
    `step`, which clips gradients to `clip_norm[name]` and counts `steps[name]`. `precision` and
    `accumulate` are set by whoever trains: "bf16" computes under autocast, a batch is computed in
    so many parts; so is `total[name]`, the steps of an optimiser in the whole run.

    `schedules` are values over `steps` and `total`. "<optimizer>.lr" and "<optimizer>.weight_decay"
    scale what the optimiser's groups were built with (rate = base * value / largest value); names
    of one's own are read with `scheduled`. `factors` multiply the same rates by what whoever trains
    has found meanwhile (a plateau), and are kept by them. `carry` is what a learner keeps between
    updates beside its buffers, of any size (None at first); it is saved with the training state.
    """

    def __init__(
        self,
        config: Config,
        obs_spec: Mapping[str, TensorSpec],
        action_spec: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.obs_spec = dict(obs_spec)
        self.action_spec = dict(action_spec or {})
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.clip_norm: dict[str, float] = {}
        self.schedules: dict[str, Schedule] = {}
        self.factors: dict[str, float] = {}
        self.steps: dict[str, int] = {}
        self.total: dict[str, int] = {}
        self.carry: State | None = None
        self.precision: Literal["fp32", "bf16"] = "fp32"
        self.accumulate = 1
        self._held: dict[str, list[Tensor]] | None = None
        self.provenance: dict[str, Any] = {}
        self._rates: dict[str, Rates] = {}

    entries = LEARNER_ENTRIES
    world_model: WorldModel
    whole_batch: bool = False
    """Of a learner whose loss needs the whole batch at once (percentiles, batch norm)."""
    ignores_terminations: str = ""
    """Of a learner that takes no notice of episodes terminating: what to do where they do."""

    @property
    def columns(self) -> Columns:
        """What a step of this learner's data must hold; replay, readers and checks follow it.

        By default observations, the action and a reward if there are actions, flags,
        `replay_spec`, and what the model is conditioned on (`WorldModel.condition_spec`). A learner
        from data without rewards says so with `worldflux.columns.step_columns`.
        """
        extra = self.world_model.condition_spec if hasattr(self, "world_model") else None
        return step_columns(self.obs_spec, self.action_spec, self.replay_spec, extra=extra)

    @property
    def replay_spec(self) -> Mapping[str, TensorSpec]:
        """Extra columns this learner keeps in replay (latents, say), per step."""
        return {}

    @abstractmethod
    def training_plan(self) -> TrainingPlan:
        """How this learner wants to be trained."""

    def update(
        self,
        batch: Batch,
        phase: str,
        *,
        rand: Rand | None = None,
    ) -> UpdateResult:
        """One gradient update of `phase` (a name in the training plan).

        By default one step, of the optimiser that the phase `trains`, on the model's loss: on the
        phase's part of it, where the plan has several phases.
        """
        plan = self.training_plan()
        names = plan.phase(phase).trains or tuple(self.optimizers)
        if len(names) != 1:
            raise ContractError(
                f"Phase {phase!r} trains {', '.join(names) or 'nothing'}: the inherited update "
                "takes one step of one optimiser. Name it in the phase's `trains`, or write update."
            )
        part = () if len(plan.phases) == 1 else (phase,)
        found = self.step(
            names[0], lambda b, r: self.world_model.loss(b, *part, rand=r), batch, rand
        )
        return UpdateResult(metrics(found))

    def begin(self, phase: str, source: Source, rand: Rand | None = None) -> None:
        """Called once, right before a phase's first update; never when a run is resumed there.

        For statistics of the data, teacher copies, the start of a code-book. It may change only
        what is checkpointed: buffers and copies are made in the constructor and filled here.
        """

    def published(self) -> dict[str, Tensor]:
        """The weights that evaluation and `save_pretrained` use in place of those in training.

        Names of `state_dict`; those that are missing stay (an averaged model, say, is given under
        the names of the model it averages).
        """
        return {}

    @contextmanager
    def as_published(self) -> Iterator[None]:
        """In here the published weights are in place; afterwards those in training again."""
        own = self.state_dict()
        given = {name: tensor.detach().clone() for name, tensor in self.published().items()}
        before = {name: own[name].clone() for name in given}
        try:
            _copy_into(own, given)
            yield
        finally:
            _copy_into(own, before)

    @torch.no_grad()
    def evaluate(self, source: Source, rand: Rand | None = None, limit: int = 10) -> Evaluation:
        """How good this is on the held-out `source`, from at most `limit` batches of each phase.

        By default the mean of the model's loss, and no score: losses of different moments need
        not compare (targets move). The loss is that of the phase, where a plan has several; a
        learner with a phase that does not train the model says here what it is judged by.
        """
        phases = self.training_plan().phases
        return Evaluation(metrics=self.held_out_losses(phases, source, rand, limit))

    def held_out_losses(
        self, phases: Sequence[Phase], source: Source, rand: Rand | None, limit: int
    ) -> dict[str, float]:
        """Means of the model's loss in these phases, by name where the plan has several."""
        found: dict[str, float] = {}
        several = len(self.training_plan().phases) > 1
        for phase in phases:
            part = (phase.name,) if several else ()
            losses = []
            for batch in held_out_batches(source, phase, limit):
                with self.autocast():
                    losses.append(self.world_model.loss(batch, *part, rand=rand).loss.float())
            if losses:
                found["/".join(("loss", *part))] = float(torch.stack(losses).mean())
        return found

    def autocast(self) -> torch.autocast:
        """The compute type of `precision`, for forward passes outside `step`."""
        return torch.autocast(
            device_of(self).type, torch.bfloat16, enabled=self.precision == "bf16"
        )

    def step(
        self,
        name: str,
        compute: Callable[[_Rows, Rand | None], Computed],
        batch: _Rows,
        rand: Rand | None = None,
    ) -> dict[str, Any]:
        """One step of optimiser `name` on what `compute(batch, rand)` returns, a scalar loss first.

        `batch` is a Batch, a State or a mapping of them, rows first. `compute` runs under
        autocast, its backward pass outside; only the parameters of `name` get gradients, which
        `clip` may limit. Afterwards autocast's copies of the old weights are dropped, so that
        what an update computes next uses the new ones. Returns the outputs, detached, with "loss"
        and "grad_norm"; a LossOutput's parts are under "loss/<part>".

        With `accumulate` the batch is cut by its rows: gradients are those of the whole as long as
        `compute` takes its numbers from the `rand` it is given, and averages over unpadded steps.
        """
        optimizer = self.optimizers[name]
        params = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        self._check_held(name, params)
        for parameter in params:
            parameter.grad = None
        with torch.enable_grad():
            loss, outputs = self._gradients(compute, batch, rand, params)
        reduce_gradients(params)
        norm = self.clip(name, params)
        if self._held is None:
            self._move(name)
        else:
            self._held[name] = params
        return {**outputs, "loss": loss, "grad_norm": norm.detach()}

    @contextmanager
    def together(self) -> Iterator[None]:
        """Optimisers that `step` in here move at its end, in that order.

        So all their gradients are those of the weights before, whatever one computes from what
        another one's step returned (DreamerV1). If an error ends it, nothing moves.
        """
        if self._held is not None:
            raise ContractError(f"{type(self).__name__}.together() is already open: leave it once.")
        self._held = {}
        try:
            yield
            for name in self._held:
                self._move(name)
        finally:
            self._held = None

    def _move(self, name: str) -> None:
        set_rates(self, name, self._rates)
        self.optimizers[name].step()
        self.steps[name] = self.steps.get(name, 0) + 1
        torch.clear_autocast_cache()

    def _check_held(self, name: str, params: list[Tensor]) -> None:
        """Refuse a step whose gradients would replace those of one that waits in `together`."""
        own = set(map(id, params))
        for other, waiting in (self._held or {}).items():
            if own & set(map(id, waiting)):
                raise ContractError(
                    f"Optimisers {other!r} and {name!r} step together, but share parameters: the "
                    "second's gradients would replace the first's. Take one step after the other."
                )

    def _gradients(
        self,
        compute: Callable[[_Rows, Rand | None], Computed],
        batch: _Rows,
        rand: Rand | None,
        params: list[Tensor],
    ) -> tuple[Tensor, dict[str, Any]]:
        """The gradients of `params`; the loss and outputs, detached."""
        if self.accumulate > 1 and self.whole_batch:
            raise ContractError(
                f"The loss of {type(self).__name__} needs the whole batch at once: "
                f"train.accumulate={self.accumulate} would change it. Use 1."
            )
        parts = accumulation.cut(batch, self.accumulate) if self.accumulate > 1 else [batch]
        rands = (rand or Rand()).parts(len(parts)) if len(parts) > 1 else iter([rand])
        weights = accumulation.shares(parts) if len(parts) > 1 else [1.0]
        losses, outputs = [], []
        for part, own, weight in zip(parts, rands, weights, strict=True):
            with self.autocast():
                loss, found = accumulation.loss_and_outputs(compute(part, own))
            if params:  # a user may have frozen all of them
                (loss * weight).backward(inputs=params)  # type: ignore[no-untyped-call]
            losses.append(loss.detach() * weight)
            outputs.append({key: accumulation.detached(value) for key, value in found.items()})
        if len(outputs) == 1:
            return losses[0], outputs[0]
        return torch.stack(losses).sum(), accumulation.joined(outputs, weights)

    def clip(self, name: str, params: Iterable[Tensor]) -> Tensor:
        """Limit the gradients of optimiser `name` to `clip_norm[name]`; their norm before that."""
        return nn.utils.clip_grad_norm_(params, self.clip_norm.get(name, float("inf")))

    def scheduled(self, name: str) -> float:
        """The value of `schedules[name]` now: after so many steps of its optimiser.

        That is the one before the dot; a name without one belongs to the only optimiser.
        """
        return value_now(self, name)

    def parameter_count(self) -> int:
        """Number of trainable parameters, of the world model and everything beside it."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def training_state(self) -> dict[str, Tensor]:
        """All that going on needs beside a saved folder, as flat named tensors.

        The optimisers' state and counts, `carry`, and the weights in training wherever
        `save_pretrained` writes `published` ones in their place.
        """
        return training_state(self)

    def load_training_state(self, flat: Mapping[str, Tensor]) -> None:
        """Restore what `training_state` gave; a name that does not belong is a `StorageError`.

        `carry` is None afterwards unless it was saved.
        """
        load_training_state(self, flat)

    def save_pretrained(self, path: str | Path) -> Path:
        """Write the published weights, configuration and identity to folder `path`.

        See `worldflux.saving`.
        """
        return save_pretrained(self, path)


@torch.no_grad()
def _copy_into(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    for name, tensor in given.items():
        own[name].copy_(tensor)
