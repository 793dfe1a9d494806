"""Weights of the published implementation (danijar/dreamerv3): read and written by its names.

Names are ninjax paths such as `dyn/dynin0/kernel`. Linear and block kernels have the same layout
here; image kernels are (Y, X, in, out) there and (out, in, Y, X) here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldflux.errors import StorageError, did_you_mean
from worldflux_dreamer.dreamerv3.agent import DreamerV3Agent
from worldflux_dreamer.dreamerv3.images import Conv, ImageDecoder, ImageEncoder
from worldflux_dreamer.dreamerv3.networks import DreamerDecoder, Encoder, Head, VectorDecoder
from worldflux_dreamer.dreamerv3.policy import ActorHead
from worldflux_dreamer.dreamerv3.rssm import RSSM
from worldflux_dreamer.layers import MLP, BlockLinear, Linear


@dataclass(frozen=True)
class Entry:
    """One tensor of ours under its published name; `image` kernels change their axis order."""

    name: str
    tensor: Tensor
    image: bool = False

    def published(self) -> Tensor:
        """The value in the published axis order."""
        value = self.tensor.detach()
        return value.permute(2, 3, 1, 0).contiguous() if self.image else value

    def assign(self, value: Tensor) -> None:
        """Overwrite with a value in the published axis order: kernels of images (Y, X, in, out)."""
        value = value.permute(3, 2, 0, 1) if self.image else value
        with torch.no_grad():
            self.tensor.copy_(value)


def entries(agent: DreamerV3Agent) -> dict[str, Entry]:
    """Every parameter (and the return norm's state) by its published name."""
    model = agent.world_model
    encoder, dynamics, decoder = (
        model.observation_encoder,
        model.dynamics_model,
        model.decoder_module,
    )
    assert isinstance(encoder, Encoder)
    assert isinstance(dynamics, RSSM)
    assert isinstance(decoder, DreamerDecoder)
    action = next(iter(agent.action_spec))
    parts = [
        *encoder_entries("enc", encoder),
        *_dynamics("dyn", dynamics),
        *decoder_entries("dec", decoder),
        *_head("rew", decoder.reward, "logits"),
        *_head("con", decoder.going_on, "logit"),
        *_policy("pol", agent.policy, action),
        *_head("val", agent.value, "logits"),
        *_head("slowval", agent.slow_value, "logits"),
        Entry("retnorm/lo", agent.return_norm.low),
        Entry("retnorm/hi", agent.return_norm.high),
    ]
    return {entry.name: entry for entry in parts}


def encoder_entries(at: str, encoder: Encoder) -> Iterator[Entry]:
    """Published names of an encoder under the path `at`."""
    if encoder.vectors:
        for i, layer in enumerate(encoder.vector.layers):
            yield from _linear(f"{at}/mlp{i}", layer.linear)
            yield Entry(f"{at}/mlp{i}norm/scale", layer.norm.scale)
    if encoder.images:
        image: ImageEncoder = encoder.image
        for i, (conv, norm) in enumerate(image.stages()):
            yield from _conv(f"{at}/cnn{i}", conv)
            yield Entry(f"{at}/cnn{i}norm/scale", norm.scale)


def decoder_entries(at: str, decoder: DreamerDecoder) -> Iterator[Entry]:
    """Published names of a decoder of observations under the path `at`."""
    if decoder.vectors:
        vector: VectorDecoder = decoder.vector
        yield from _mlp(f"{at}/mlp", vector.mlp)
        for key, out in vector.named_outs():
            kind = "logits" if decoder.obs_spec[key].discrete else "pred"
            yield from _linear(f"{at}/vec/{key}/{kind}", out)
    if decoder.images:
        yield from _image_decoder(at, decoder.image)


def _image_decoder(at: str, image: ImageDecoder) -> Iterator[Entry]:
    yield from _linear(f"{at}/sp0", image.from_deter)
    yield from _linear(f"{at}/sp1", image.from_stoch.linear)
    yield Entry(f"{at}/sp1norm/scale", image.from_stoch.norm.scale)
    yield from _linear(f"{at}/sp2", image.to_map)
    yield Entry(f"{at}/spnorm/scale", image.map_norm.scale)
    count = len(image.convs)
    for i, (conv, norm) in enumerate(image.stages()):
        stage = count - 1 - i
        yield from _conv(f"{at}/conv{stage}", conv)
        yield Entry(f"{at}/conv{stage}norm/scale", norm.scale)
    yield from _conv(f"{at}/imgout", image.out)


def _dynamics(at: str, rssm: RSSM) -> Iterator[Entry]:
    core = rssm.core
    for i, layer in enumerate((core.from_deter, core.from_stoch, core.from_action)):
        yield from _linear(f"{at}/dynin{i}", layer.linear)
        yield Entry(f"{at}/dynin{i}norm/scale", layer.norm.scale)
    for i, (hidden, norm) in enumerate(core.layers()):
        yield from _linear(f"{at}/dynhid{i}", hidden)
        yield Entry(f"{at}/dynhid{i}norm/scale", norm.scale)
    yield from _linear(f"{at}/dyngru", core.gates)
    for name, layers, logit in (
        ("prior", rssm.prior, rssm.prior_logit),
        ("obs", rssm.posterior, rssm.posterior_logit),
    ):
        for i, layer in enumerate(layers.layers):
            yield from _linear(f"{at}/{name}{i}", layer.linear)
            yield Entry(f"{at}/{name}{i}norm/scale", layer.norm.scale)
        yield from _linear(f"{at}/{name}logit", logit)


def _policy(at: str, policy: ActorHead, action: str) -> Iterator[Entry]:
    yield from _mlp(f"{at}/mlp", policy.mlp)
    if policy.spec.discrete:
        yield from _linear(f"{at}/head/{action}/logits", policy.logits)
    else:
        yield from _linear(f"{at}/head/{action}/mean", policy.mean)
        yield from _linear(f"{at}/head/{action}/stddev", policy.stddev)


def _head(at: str, head: Head, name: str) -> Iterator[Entry]:
    yield from _mlp(f"{at}/mlp", head.mlp)
    yield from _linear(f"{at}/head/{name}", head.out)


def _mlp(at: str, mlp: MLP) -> Iterator[Entry]:
    for i, layer in enumerate(mlp.layers):
        yield from _linear(f"{at}/linear{i}", layer.linear)
        yield Entry(f"{at}/norm{i}/scale", layer.norm.scale)


def _linear(at: str, linear: Linear | BlockLinear) -> Iterator[Entry]:
    yield Entry(f"{at}/kernel", linear.kernel)
    yield Entry(f"{at}/bias", linear.bias)


def _conv(at: str, conv: Conv) -> Iterator[Entry]:
    yield Entry(f"{at}/kernel", conv.weight, image=True)
    yield Entry(f"{at}/bias", conv.bias)


def to_reference(agent: DreamerV3Agent) -> dict[str, Tensor]:
    """The agent's weights by published name, in published axis order."""
    return {name: entry.published() for name, entry in entries(agent).items()}


def load_weights(found: Mapping[str, Entry], weights: Mapping[str, Tensor], source: str) -> None:
    """Assign `weights` by published name.

    The return norm's state and the slow critic may be absent; the latter is then the critic's.
    """
    weights = dict(weights)
    for name in [name for name in found if name.startswith("slowval/") and name not in weights]:
        weights[name] = weights.get("val" + name.removeprefix("slowval"), found[name].tensor)
    missing = [name for name in found if name not in weights and not name.startswith("retnorm/")]
    unknown = [name for name in weights if name not in found]
    if missing or unknown:
        name, what = (missing[0], "lacks") if missing else (unknown[0], "has unexpected")
        near = did_you_mean(name, weights if missing else found)
        raise StorageError(
            f"{source} {what} {name!r} ({len(missing)} missing, {len(unknown)} unexpected).{near} "
            "Build the agent with the sizes and spaces the weights were trained with."
        )
    for name, value in weights.items():
        entry = found[name]
        if entry.published().shape != value.shape:
            raise StorageError(
                f"{source}: {name!r} has shape {tuple(value.shape)}, this agent needs "
                f"{tuple(entry.published().shape)}. Is it another preset?"
            )
        entry.assign(value)


_NOT_WEIGHTS = ("opt/", "slowval_count", "valnorm/", "advnorm/")


def read_reference(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a published checkpoint in safetensors or npz; optimiser state is left out."""
    path = Path(path)
    if not path.is_file():
        raise StorageError(f"No file {str(path)!r}: pass a .safetensors or .npz file of weights.")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as data:
            tensors = {name: torch.from_numpy(data[name]) for name in data.files}
    elif path.suffix == ".safetensors":
        tensors = load_file(path)
    else:
        raise StorageError(f"{str(path)!r} is neither .safetensors nor .npz: convert it first.")
    return {name: x for name, x in tensors.items() if not name.startswith(_NOT_WEIGHTS)}


def load_reference(agent: DreamerV3Agent, path: str | Path) -> None:
    """Overwrite the agent's weights with those of a published checkpoint file."""
    load_weights(entries(agent), read_reference(path), str(path))


def save_reference(agent: DreamerV3Agent, path: str | Path) -> None:
    """Write the agent's weights with published names, as safetensors."""
    path = Path(path)
    draft = path.with_name(path.name + ".tmp")
    save_file({name: value.contiguous() for name, value in to_reference(agent).items()}, draft)
    draft.replace(path)
