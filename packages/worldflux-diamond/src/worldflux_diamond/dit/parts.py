"""DiT in the slots of a world model: scaling, labels, sampling, and back to an image."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from worldflux.core.interfaces import ActionConditioner, Decoder, DynamicsModel, ObservationEncoder
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rand import Rand, normal
from worldflux.core.state import State
from worldflux.errors import ContractError
from worldflux.nn.diffusion.betas import linear_betas
from worldflux.nn.diffusion.ddpm import DDPM
from worldflux.nn.diffusion.guidance import guided
from worldflux.specs import TensorSpec
from worldflux_diamond.dit.network import DiTNetwork, TimeEmbedding

if TYPE_CHECKING:
    from worldflux_diamond.dit.world_model import DiTWorldModel

LABEL = "wf.data.label"


class Scaled(ObservationEncoder):
    """An image (B, C, Y, X) as "x" in [-1, 1]; an array of floats is taken as it is."""

    def __init__(self, key: str, spec: TensorSpec) -> None:
        super().__init__()
        self.key, self.bytes = key, spec.image

    def forward(self, obs: dict[str, Tensor]) -> State:
        x = obs[self.key].float()
        return State({"x": x.div(255).mul(2).sub(1) if self.bytes else x})


class Labels(ActionConditioner):
    """A row's label and its absence, embedded one after the other (B, 2 D).

    The labels are the condition "wf.data.label" (B,); `classes` stands for none, as does no
    condition at all. A model without labels has zeros there.
    """

    nothing: Tensor

    def __init__(self, classes: int | None, droppable: bool, width: int) -> None:
        super().__init__()
        self.classes, self.droppable = classes, droppable
        self.register_buffer("nothing", torch.zeros(1, 2 * width), persistent=False)
        if classes is not None:
            self.table = nn.Embedding(classes + droppable, width)
            nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, action: Tensor | None, conditions: ConditionPayload | None = None) -> Tensor:
        label = None if conditions is None else conditions.extras.get(LABEL)
        if self.classes is None:
            return self.nothing if label is None else self.nothing.expand(len(label), -1)
        weight = self.table.weight
        if label is None:
            if not self.droppable:
                raise ContractError(
                    "This DiT was trained with labels alone (class_dropout=0): give it the "
                    f"condition {LABEL!r}."
                )
            label = torch.full((1,), self.classes, device=weight.device)
        own = self.table(label)
        free = weight[-1].expand_as(own) if self.droppable else own
        return torch.cat([own, free], -1)


class DiTDynamics(DynamicsModel):
    """Samples: State "x" (B, C, Y, X). Whatever the State is, a transition is a new image."""

    def __init__(self, model: DiTWorldModel) -> None:
        super().__init__()
        c = self.config = model.config.model
        self.shape, channels = model.image_spec.shape, model.image_spec.shape[0]
        outputs = channels * 2 if c.learn_variance else channels
        self.network = DiTNetwork(c, self.shape, channels, outputs)
        self.time = TimeEmbedding(c.width)
        variance = "learned" if c.learn_variance else "large"
        self.process = DDPM(linear_betas(c.steps), variance=variance)  # type: ignore[arg-type]
        self.sampling = DDPM(linear_betas(c.steps), c.spacing, variance=variance)  # type: ignore[arg-type]

    def initial(self, batch_size: int, device: torch.device) -> State:
        return State({"x": torch.zeros(batch_size, *self.shape, device=device)})

    def output(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The network's output (B, C', Y, X) for x (B, C, Y, X), steps (B,), labels (B, D)."""
        found: Tensor = self.network(x, self.time(t) + label)
        return found

    def guided_output(self, x: Tensor, t: Tensor, own: Tensor, free: Tensor) -> Tensor:
        """The same, pushed away from what no label (B, D) gives towards what `own` (B, D) does.

        Rows come twice (2 B, ...): with the rest of the labelled output, and of the other one.
        """
        c = self.config
        both = self.output(torch.cat([x, x]), torch.cat([t, t]), torch.cat([own, free]))
        labelled, unlabelled = both.chunk(2)
        pushed = guided(labelled, unlabelled, c.guidance, c.guided_channels)
        rest = unlabelled[:, c.guided_channels :]
        return torch.cat([pushed, torch.cat([pushed[:, : c.guided_channels], rest], 1)])

    def transition(
        self,
        state: State,
        action: Tensor,
        *,
        deterministic: bool = False,
        rand: Rand | None = None,
    ) -> State:
        """New images, of the labels in `action` (B, 2 D). Draws: "noise", and those of sampling.

        A deterministic one begins with zeros and goes on without noise.
        """
        c, rand, shape = self.config, rand or Rand(), (state.batch_size, *self.shape)
        own, free = (part.to(state.device) for part in action.expand(shape[0], -1).chunk(2, -1))
        x = torch.zeros(shape, device=state.device)
        if not deterministic:
            x = rand.draw("noise", shape, normal, device=state.device)
        guides = c.guidance != 1 and not torch.equal(own, free)

        def network(x: Tensor, t: Tensor) -> Tensor:
            if guides:
                return self.guided_output(x, t, own, free)[: len(x)]
            return self.output(x, t, own)

        ddim = c.sampler == "ddim" or deterministic
        eta = 0.0 if deterministic else c.eta
        path = self.sampling.sample(network, x, ddim=ddim, eta=eta, clip=c.clip, rand=rand)
        return State({"x": path[-1].to(state["x"].dtype)}, dict(state.meta))


class ToImage(Decoder):
    """State "x" as an image in [0, 1], or as the array of floats that it is."""

    def __init__(self, key: str, spec: TensorSpec) -> None:
        super().__init__()
        self.key, self.bytes = key, spec.image

    def forward(
        self,
        state: State,
        keys: Collection[str] | None = None,
        conditions: ConditionPayload | None = None,
    ) -> dict[str, Tensor]:
        if keys is not None and self.key not in keys:
            return {}
        return {self.key: (state["x"] + 1) / 2 if self.bytes else state["x"]}
