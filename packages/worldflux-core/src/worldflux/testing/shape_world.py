"""A known world without time: drawn shapes whose class has to be found again.

It is what families of single images learn (their phases take sequences of one step). From the State
of an encoder the class is read out linearly; a generator (`WorldModel.starts_anew`) draws images,
whose nearest real one has to be of the class that was asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux.core.agent import Learner
from worldflux.core.batch import Batch
from worldflux.core.model import WorldModel
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand
from worldflux.core.state import CACHE
from worldflux.nn.modes import evaluating
from worldflux.shapes import CLASSES, draw_shapes
from worldflux.specs import TensorSpec
from worldflux.testing.phases import as_sampled
from worldflux.training import Phase

CLASSES_USED = 4
IMAGE = {"image": TensorSpec((3, 32, 32), "uint8", low=0, high=255)}
SMALL_IMAGE = {"image": TensorSpec((1, 16, 16), "uint8", low=0, high=255)}
LABEL = TensorSpec((), "int64", n=CLASSES_USED, labels=CLASSES[:CLASSES_USED])
_HALF = 0.5
_LOOK = 25  # updates between two looks
_SEEN = 400  # images that a read-out is fitted to, and as many that it is tried on
_SAMPLES = 48
_COLLAPSED = 0.01
"""States of images that differ by less than this share of their size are all the same."""
_SPREAD = 0.2
"""How far places and sizes differ: there is little time to learn them."""


def without_time(learner: Learner) -> bool:
    """Whether the learner is one of single images: all its phases take single steps of an image."""
    phases = learner.training_plan().phases
    single = all(phase.context + phase.length == 1 for phase in phases)
    return single and any(spec.image for spec in learner.obs_spec.values())


def check_learns_shapes(learner: Learner, updates: int = 300, rows: int = 16) -> None:
    """After `updates` of each phase the class is found: half of the errors of a guess at most.

    A generator may be done earlier; a representation may collapse late, so that it may not. Most
    encoders tell these classes apart untrained: of them the check finds States that collapsed or
    lost the image, not whether they learn.
    """
    learner.total = {**dict.fromkeys(learner.optimizers, updates), **learner.total}  # schedules
    early = learner.world_model.starts_anew
    for phase in learner.training_plan().phases:
        for step in range(updates):
            learner.update(shape_batch(learner, phase, rows, seed=step), phase.name)
            look = early and step % _LOOK == _LOOK - 1
            if look and error_of_class(learner) < _required():
                return
    error, model = error_of_class(learner), learner.world_model
    if error < _required():
        return
    what = (
        "samples are nearest to an image of another class than they were asked for"
        if model.starts_anew
        else "images are given another class by a linear read-out of encode's State"
    )
    raise AssertionError(
        f"the drawn shapes are not learnt: after {updates} updates {error:.0%} of the {what} "
        f"(required: below {_required():.0%}, half of what guessing gives). {_diagnosis(learner)}"
    )


def _required() -> float:
    return _HALF * (1 - 1 / CLASSES_USED)


def shape_batch(learner: Learner, phase: Phase, rows: int, seed: int) -> Batch:
    """A Batch (rows, 1) of drawn shapes in the form of the learner's image."""
    images, labels = _drawn(learner.world_model, rows, seed)
    flag = torch.ones(rows, 1, dtype=torch.bool)
    batch = Batch(
        obs={key: images[:, None] for key in learner.obs_spec},
        is_first=flag, is_last=flag.clone(), is_terminal=~flag, extra={"label": labels[:, None]},
    )  # fmt: skip
    return as_sampled(learner, phase, batch)


def _drawn(model: WorldModel, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (N, C, Y, X) and labels (N,)."""
    channels, size, _ = next(iter(model.obs_spec.values())).shape
    found = draw_shapes(
        count, seed, classes=CLASSES_USED, size=size, channels=channels, spread=_SPREAD
    )
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


@torch.no_grad()
def error_of_class(learner: Learner) -> float:
    """The share of unseen images, or of samples, whose class is not found; published weights."""
    model = learner.world_model
    with evaluating(learner), learner.as_published():
        return _sampled_error(model) if model.starts_anew else _read_out_error(model)


def _read_out_error(model: WorldModel) -> float:
    images, labels = _drawn(model, 2 * _SEEN, 10**6)
    features = _features(model, images)
    if _collapsed(features):
        return 1 - 1 / CLASSES_USED
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    wanted = torch.nn.functional.one_hot(labels, CLASSES_USED).double() - 1 / CLASSES_USED
    seen, unseen = features[:_SEEN], features[_SEEN:]
    inner = seen @ seen.T
    ridge = 1e-2 * inner.diagonal().mean().clamp(min=1e-9) * torch.eye(_SEEN).double()
    weights = torch.linalg.solve(inner + ridge, wanted[:_SEEN])
    found = (unseen @ seen.T @ weights).argmax(1)
    return float((found != labels[_SEEN:]).double().mean())


@torch.no_grad()
def _features(model: WorldModel, images: Tensor) -> Tensor:
    """Every number of the States of images (N, C, Y, X), as (N, D)."""
    parts = [
        model.encode(dict.fromkeys(model.obs_spec, x), deterministic=True)
        for x in images.split(100)
    ]
    keys = [k for k, x in parts[0].tensors.items() if x.is_floating_point() and CACHE not in k]
    return torch.cat([torch.cat([part[k].flatten(1).double() for part in parts]) for k in keys], 1)


def _collapsed(features: Tensor) -> bool:
    """Whether features (N, D) hardly differ, for what they are."""
    spread = features.std(0).square().mean().sqrt()
    return bool(spread < _COLLAPSED * features.square().mean().sqrt().clamp(min=1e-12))


def _sampled_error(model: WorldModel) -> float:
    """Of samples (N, C, Y, X): those whose nearest of many real images is of another class."""
    labels = torch.arange(_SAMPLES) % CLASSES_USED
    taken = {f"wf.data.{key}": labels for key in model.condition_spec if key == "label"}
    conditions = ConditionPayload(extras=taken) if taken else None
    path = model.rollout(
        model.initial(_SAMPLES), None, conditions, horizon=1, decode=True, rand=Rand.seeded(1)
    )
    assert path.observations is not None, "a generator decodes what it draws"
    samples = next(iter(path.observations.values()))[-1]
    real, classes = _drawn(model, 2 * _SEEN, 10**6)
    near = classes[torch.cdist(_forms(samples), _forms(real.float() / 255)).argmin(1)]
    if taken:
        return float((near != labels).double().mean())
    return 1 - len(near.unique()) / CLASSES_USED  # nothing was asked for: each has to appear


def _forms(images: Tensor) -> Tensor:
    """Images (N, C, Y, X) as vectors (N, Y * X) of the same length, without colours."""
    grey = images.mean(1).flatten(1).double()
    grey = grey - grey.mean(1, keepdim=True)
    return grey / (grey.norm(dim=1, keepdim=True) + 1e-6)


def _diagnosis(learner: Learner) -> str:
    model = learner.world_model
    if not model.starts_anew and _collapsed(_features(model, _drawn(model, 50, 7)[0])):
        return (
            "The representation collapsed: all images get the same State. Look for what keeps it "
            "from that (a target that follows slowly, a penalty)."
        )
    if model.starts_anew and not model.condition_spec:
        return "Its samples show too few of the classes."
    return (
        "Are the labels (batch.extra['label']) those of the images? If it only learns slowly, give "
        "the family quicker settings in ModelSpec.check."
    )
