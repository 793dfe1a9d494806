"""Draws what a run imagines as one picture: `python docs/render_dreams.py RUN docs/images/X.png`.

Rows: real frames, imagined ones, and how the first imagined one came about, where the family tells
(tokens or denoising steps). A red line is where imagination begins.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldflux_train.api import imagine_run
from worldflux_train.imagine import Imagination

SIDE, GAP, TEXT = 64, 4, 18
RED = (220, 38, 38)


def main() -> None:
    """Imagine along episodes of the run and write the picture."""
    run, target = sys.argv[1:]
    found, _ = imagine_run(run, context=2, horizon=8)
    Image.fromarray(picture(found)).save(Path(target), optimize=True)


def picture(found: Imagination) -> np.ndarray[Any, Any]:
    """One picture (Y, X, 3) of the first image of an `Imagination` and its stages."""
    real, imagined = next(iter(found.images.values()))
    rows = [labelled("real", real), labelled(f"imagined from step {found.context} on", imagined)]
    for row in rows:
        at = found.context * (SIDE + GAP) - GAP // 2
        row[TEXT:, at - 1 : at + 1] = RED
    rows += [labelled(f"{name} of the first imagined step", x) for name, x in found.stages.items()]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(r, ((0, GAP), (0, width - r.shape[1]), (0, 0)),
                                  constant_values=255) for r in rows])  # fmt: skip


def labelled(text: str, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images (T, C, Y, X) in [0, 1] side by side under a line of text: (Y', X', 3)."""
    pixels = (images.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
    shown = [
        np.asarray(Image.fromarray(x).resize((SIDE, SIDE), Image.Resampling.NEAREST))
        for x in pixels
    ]
    strip = np.concatenate([np.pad(x, ((0, 0), (0, GAP), (0, 0)), constant_values=255)
                            for x in shown], 1)  # fmt: skip
    bar = Image.new("RGB", (strip.shape[1], TEXT), "white")
    ImageDraw.Draw(bar).text((2, 2), text, "#0f172a", ImageFont.load_default(12))
    return np.concatenate([np.asarray(bar), strip])


if __name__ == "__main__":
    main()
