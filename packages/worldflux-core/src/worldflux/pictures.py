"""Pictures and videos as people have them: files, PIL images, arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from worldflux.errors import CapabilityError, ContractError, StorageError

Fit = Literal["crop", "stretch"]
LUMINANCE = (0.299, 0.587, 0.114)
INSTALL = 'pip install "worldflux-core[pictures]"'
VIDEOS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".gif")


def is_one_picture(raw: Any) -> bool:
    """Whether this is a picture rather than a batch of them."""
    return isinstance(raw, str | Path) or hasattr(raw, "convert") or _axes(raw) in (2, 3)


def as_picture(raw: Any, shape: tuple[int, ...], fit: Fit) -> Tensor:
    """One picture as bytes (C, Y, X) of `shape`."""
    channels, height, width = shape
    found = _channels(_bytes(_array(raw)), channels)  # (C, Y, X)
    if fit == "crop":
        found = _cut(found, height / width)
    if tuple(found.shape[1:]) != (height, width):
        smaller = found.shape[1] >= height and found.shape[2] >= width
        scaled = F.interpolate(
            found[None].float(), (height, width), mode="area" if smaller else "bilinear"
        )
        found = scaled[0].round().clamp(0, 255).to(torch.uint8)
    return found


def frames_in(path: str | Path) -> list[NDArray[np.uint8]]:
    """The frames (Y, X, 3) of a video file."""
    path = Path(path)
    if not path.is_file():
        raise StorageError(f"There is no video {path}.")
    if path.suffix.lower() not in VIDEOS:
        raise ContractError(f"{path} is no video: {', '.join(VIDEOS)} are read.")
    try:
        import av
    except ImportError as error:
        text = f"Reading {path} needs a package: {error}. Run: {INSTALL}"
        raise CapabilityError(text) from error
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return [np.asarray(each.to_ndarray(format="rgb24"), np.uint8) for each in frames]


def _axes(raw: Any) -> int | None:
    return getattr(raw, "ndim", None)


def _array(raw: Any) -> NDArray[Any]:
    if isinstance(raw, str | Path):
        if not Path(raw).is_file():
            raise StorageError(f"There is no picture {raw}.")
        try:
            from PIL import Image
        except ImportError as error:
            raise CapabilityError(
                f"Reading {raw} needs a package: {error}. Run: {INSTALL}"
            ) from error
        with Image.open(raw) as image:
            return np.asarray(image.convert("RGB"))
    if hasattr(raw, "convert"):  # a PIL image
        return np.asarray(raw.convert("RGB"))
    return np.asarray(raw.cpu() if isinstance(raw, Tensor) else raw)


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > (255 if np.issubdtype(values.dtype, np.integer) else 1):
        raise ContractError(
            f"A picture of {values.dtype} has values from {low:g} to {high:g}: bytes are 0 to 255, "
            "other numbers 0 to 1. Scale it."
        )
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.uint8)
    return np.rint(values * 255).astype(np.uint8)


def _channels(values: NDArray[np.uint8], channels: int) -> Tensor:
    """(Y, X), (Y, X, C) or (C, Y, X) as (C, Y, X) with so many channels."""
    if values.ndim == 2:
        values = values[None]
    elif values.ndim != 3:
        raise ContractError(f"A picture is (Y, X), (Y, X, C) or (C, Y, X), got {values.shape}.")
    elif values.shape[0] != channels and values.shape[-1] in (1, 3, 4, channels):
        values = values.transpose(2, 0, 1)
    elif values.shape[0] not in (1, 3, channels) and values.shape[-1] not in (1, 3, 4):
        raise ContractError(
            f"A picture of shape {values.shape} has neither {channels} channels nor 1, 3 or 4."
        )
    found = torch.from_numpy(np.ascontiguousarray(values))
    if found.shape[0] == 4 and channels != 4:  # without its transparency
        found = found[:3]
    if found.shape[0] == channels:
        return found
    if found.shape[0] == 1 and channels == 3:
        return found.expand(3, -1, -1).contiguous()
    if found.shape[0] == 3 and channels == 1:
        grey = sum(share * found[i].float() for i, share in enumerate(LUMINANCE))
        return torch.as_tensor(grey).round().to(torch.uint8)[None]
    raise ContractError(
        f"The model's image has {channels} channels, the picture {found.shape[0]}: stack as many "
        "frames as it was trained with."
    )


def _cut(picture: Tensor, ratio: float) -> Tensor:
    """The middle of a picture (C, Y, X), of this height by width."""
    height, width = picture.shape[1:]
    rows = min(height, round(width * ratio))
    columns = min(width, round(height / ratio))
    top, left = (height - rows) // 2, (width - columns) // 2
    return picture[:, top : top + rows, left : left + columns]
