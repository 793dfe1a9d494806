"""One sentence on a tensor of the wrong shape: name, expected, actual, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from worldflux.specs import TensorSpec

Lead = Sequence[str | int]
"""Leading axes: letters, or sizes where these are known."""


def misshapen(
    name: str, actual: tuple[int, ...], spec: TensorSpec, lead: Lead = ("B",), letters: str = ""
) -> str:
    """The sentence on tensor `name` (*lead, *shape) of space `spec`.

    `lead` may hold sizes in place of letters; `letters` names the space's axes, such as "A".
    """
    first = [axis if isinstance(axis, str) else "BT"[at] for at, axis in enumerate(lead)]
    names = [*first, *_axes(spec, letters)]
    return (
        f"{name} has shape {actual}, expected {_tuple(names)} = {_tuple([*lead, *spec.shape])}: "
        f"{_remedy(name, actual, spec, lead)}."
    )


def _axes(spec: TensorSpec, letters: str) -> list[str]:
    if len(spec.shape) == 3:
        return ["C", "Y", "X"]
    if len(spec.shape) == 1:
        return [letters or "D"]
    return ["..."] if spec.shape else []


def _tuple(axes: Sequence[str | int]) -> str:
    return f"({', '.join(map(str, axes))}{',' if len(axes) == 1 else ''})"


def _remedy(name: str, actual: tuple[int, ...], spec: TensorSpec, lead: Lead) -> str:
    short, shape, count = name.split("[")[0], spec.shape, len(lead)
    state = short == "state"
    if actual == shape and count == 1:
        return f"add a batch axis, {'state.map(lambda x: x[None])' if state else f'{short}[None]'}"
    if count == 1 and len(actual) == len(shape) + 2 and actual[2:] == shape:
        step = "state.at(t)" if state else f"{short}[:, t]"
        return f"it has a time axis (B, T, ...), give one step, {step}"
    if actual[count:] == (*shape, 1):
        return f"drop the last axis, {short}[..., 0]"
    if count == 2 and actual == (*reversed(lead), *shape):
        return f"put the batch axis first, {short}.transpose(0, 1)"
    if count == 2 and len(actual) == len(shape) + 1:
        return f"it lacks an axis of {_tuple(lead)}, a single row is {short}[None]"
    if len(shape) == 3 and actual[count:] != shape:
        return _image_remedy(short, actual, shape, count)
    if actual[count:] == shape:
        return "give as many rows as the rest has" if count == 1 else "give all the same axes"
    return f"pass {shape} for each row, or build the model for this space"


def _image_remedy(short: str, actual: tuple[int, ...], shape: tuple[int, ...], count: int) -> str:
    y_x_c = (*shape[1:], shape[0])
    if actual == y_x_c and count == 1:
        return f"put channels first and add a batch axis, {short}.permute(2, 0, 1)[None]"
    if actual[count:] == y_x_c:
        order = ", ".join(map(str, [*range(count), count + 2, count, count + 1]))
        return f"put channels first, {short}.permute({order})"
    if len(actual) == count + 3 and actual[count] == shape[0]:
        pixels = actual[count + 1 :]
        return f"resize it to {shape[1]}x{shape[2]}, or build the model for {pixels} pixels"
    return f"pass {shape} for each row, or build the model for these observations"
