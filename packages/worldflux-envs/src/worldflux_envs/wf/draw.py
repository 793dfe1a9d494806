"""Anti-aliased shapes from signed distances, drawn into a whole batch of images at once."""

from __future__ import annotations

import torch
from torch import Tensor

Color = tuple[int, int, int]
NIGHT, SNOW = (24, 28, 46), (236, 239, 244)
RED, GOLD, TEAL, BLUE, GRAY = (
    (239, 83, 80),
    (255, 202, 40),
    (38, 166, 154),
    (66, 133, 244),
    (96, 106, 134),
)


class Canvas:
    """Images (N, 3, size, size); coordinates are (x right, y down) in [0, 1]."""

    def __init__(self, rows: int, size: int, background: Color, device: torch.device) -> None:
        grid = (torch.arange(size, device=device) + 0.5) / size
        self.y, self.x = torch.meshgrid(grid, grid, indexing="ij")  # (Y, X)
        self.pixel = 1.0 / size
        color = torch.tensor(background, dtype=torch.float32, device=device)
        self.image = color[None, :, None, None].repeat(rows, 1, size, size)

    def gradient(self, bottom: Color) -> Canvas:
        """Blend the background towards `bottom` from top to bottom."""
        return self._blend(self.y[None] * 0.9, bottom)

    def disc(self, center: Tensor, radius: float, color: Color) -> Canvas:
        """A disc at `center` (N, 2)."""
        dx, dy = self._from(center)
        return self._fill((dx.square() + dy.square()).sqrt() - radius, color)

    def box(
        self, center: Tensor, half: tuple[float, float], color: Color, corner: float = 0.0
    ) -> Canvas:
        """A rectangle of half sizes `half` (x, y) at `center` (N, 2), corners rounded."""
        dx, dy = (value.abs() for value in self._from(center))
        qx, qy = dx - half[0] + corner, dy - half[1] + corner
        outside = (qx.clamp_min(0).square() + qy.clamp_min(0).square()).sqrt()
        return self._fill(outside + torch.maximum(qx, qy).clamp_max(0) - corner, color)

    def line(self, start: Tensor, end: Tensor, width: float, color: Color) -> Canvas:
        """A rounded line from `start` to `end` (N, 2)."""
        px, py = self._from(start)
        along = (end - start)[:, :, None, None]  # (N, 2, 1, 1)
        length = along.square().sum(1).clamp_min(1e-12)
        part = ((px * along[:, 0] + py * along[:, 1]) / length).clamp(0, 1)
        dx, dy = px - part * along[:, 0], py - part * along[:, 1]
        return self._fill((dx.square() + dy.square()).sqrt() - width / 2, color)

    def done(self) -> Tensor:
        """The images as uint8."""
        return self.image.round().clamp(0, 255).to(torch.uint8)

    def _from(self, point: Tensor) -> tuple[Tensor, Tensor]:
        point = point.float()
        return self.x - point[:, 0, None, None], self.y - point[:, 1, None, None]

    def _fill(self, distance: Tensor, color: Color) -> Canvas:
        return self._blend((0.5 - distance / self.pixel).clamp(0, 1), color)

    def _blend(self, alpha: Tensor, color: Color) -> Canvas:
        paint = torch.tensor(color, dtype=torch.float32, device=self.image.device)
        alpha = alpha[:, None]  # (N, 1, Y, X)
        self.image = self.image + alpha * (paint[None, :, None, None] - self.image)
        return self
