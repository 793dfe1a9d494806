"""The figures of a report and of imagination videos, all in one style."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worldflux_train.clock import tick_of
from worldflux_train.imagine import Imagination
from worldflux_train.recording import Array

REAL, IMAGINED, MUTED, GRID = "#0f172a", "#e4572e", "#94a3b8", "#e2e8f0"
SERIES = ("#2563eb", "#e4572e", "#0d9488", "#9333ea", "#ca8a04", "#db2777", "#475569", "#65a30d")
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": "#475569",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#64748b",
    "ytick.color": "#64748b",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "worldflux",
}
MOST_CURVES = 8
Points = Sequence[tuple[float, float]]


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of that size, in inches, in our style and without any global state."""
    with mpl.rc_context(STYLE):
        yield Figure((width, height), layout="constrained")


def svg(fig: Figure) -> str:
    """The figure as an inline SVG element."""
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def legend_above(fig: Figure, axes: Axes, size: float) -> None:
    """What the lines of `axes` are called, above the panels, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper right", fontsize=size, ncols=max(1, len(labels)))


def _mark(values: Any) -> str | None:
    """A line through one point has no length: it is drawn as a dot."""
    return "o" if len(values) == 1 else None


def learning_curve(
    evaluations: Sequence[Mapping[str, float]], episodes: Points, axis: str = "steps"
) -> str:
    """Evaluations with the range of their episodes, over the training episodes' returns."""
    with figure(8.6, 3.5) as fig:
        axes = fig.add_subplot()
        if episodes:
            steps, returns = np.array(episodes).T
            axes.scatter(
                steps, returns, s=7, color=MUTED, alpha=0.45, lw=0, label="training episode"
            )
        if evaluations:
            steps = np.array([tick_of(row) for row in evaluations])
            low, mean, high = (
                np.array([row[f"eval/return{end}"] for row in evaluations])
                for end in ("_min", "", "_max")
            )
            axes.fill_between(
                steps, low, high, color=SERIES[0], alpha=0.14, lw=0, label="worst to best"
            )
            axes.plot(
                steps, mean, color=SERIES[0], lw=2.2, marker="o", ms=4, label="evaluation (mean)"
            )
        axes.set(xlabel=axis, ylabel="return")
        legend_above(fig, axes, 8.5)
        return svg(fig)


def small_curves(curves: Mapping[str, Points]) -> str:
    """One small panel per curve."""
    columns = 4
    rows = -(-len(curves) // columns)
    with figure(8.6, 1.65 * rows) as fig:
        grid = fig.subplots(rows, columns, squeeze=False).ravel()
        for axes, (name, points) in zip(grid, curves.items(), strict=False):
            steps, values = np.array(points, float).T
            axes.plot(steps, values, color=SERIES[0], lw=1.5, marker=_mark(values), ms=4)
            axes.set_title(name, fontsize=9)
            axes.tick_params(labelsize=7.5)
            axes.locator_params(nbins=4)
            if (values > 0).all() and values.max() > 50 * values.min():
                axes.set_yscale("log")
        for axes in grid[len(curves) :]:
            axes.set_visible(False)
        return svg(fig)


def real_and_imagined(found: Imagination) -> str:
    """Every vector component of the shown episode: what happened, and what was imagined."""
    curves = _curves(found)
    columns = min(len(curves), 3)
    rows = -(-len(curves) // columns)
    with figure(8.6, 1.9 * rows) as fig:
        grid = fig.subplots(rows, columns, squeeze=False).ravel()
        for axes, (name, real, imagined) in zip(grid, curves, strict=False):
            _panel(axes, name, real, imagined, found.context, len(real))
        for axes in grid[len(curves) :]:
            axes.set_visible(False)
        legend_above(fig, grid[0], 7.5)
        return svg(fig)


def error_over_horizon(found: Imagination) -> str:
    """Error of every prediction by steps ahead, beside that of predicting no change."""
    columns = min(len(found.error), 3)
    rows = -(-len(found.error) // columns)
    ahead = np.arange(1, found.horizon + 1)
    with figure(8.6, 2.5 * rows) as fig:
        grid = fig.subplots(rows, columns, squeeze=False).ravel()
        for axes, (key, error) in zip(grid, found.error.items(), strict=False):
            axes.plot(ahead, error, color=IMAGINED, lw=2, marker=_mark(error), label="imagined")
            axes.plot(ahead, found.still[key], color=MUTED, lw=1.5, ls=":", label="no change")
            axes.set_title(key)
            axes.set(xlabel="steps ahead", ylim=(0, None))
        for axes in grid[len(found.error) :]:
            axes.set_visible(False)
        grid[0].set_ylabel("error (std of real)")
        legend_above(fig, grid[0], 8.5)
        return svg(fig)


def comparison_frames(found: Imagination, shown: int = 6) -> Array:
    """Frames (T, Y, X, 3) of the real and imagined curves as they grow."""
    curves = _curves(found)[:shown]
    columns = 1 if len(curves) <= 3 else 2
    rows = -(-len(curves) // columns)
    with figure(3.1 * columns, 1.35 * rows) as fig:
        fig.set_facecolor("white")
        fig.set_dpi(140)
        grid = fig.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(curves) :]:
            axes.set_visible(False)
        for axes, (name, real, imagined) in zip(grid, curves, strict=False):
            _panel(axes, name, real, imagined, found.context, len(real))
            axes.tick_params(labelsize=6.5)
            axes.set_title(name, fontsize=8)
        fig.legend(
            *grid[0].get_legend_handles_labels(), loc="outside lower right", fontsize=7, ncols=2
        )
        return _growing(fig, [axes for axes in grid if axes.get_visible()], len(curves[0][1]))


def _growing(fig: Figure, panels: list[Axes], length: int) -> Array:
    """Frames in which the panels' two curves grow; all else is drawn once."""
    lines = [(line, np.asarray(line.get_ydata())) for p in panels for line in p.get_lines()[:2]]
    for line, _ in lines:
        line.set_animated(True)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    still = canvas.copy_from_bbox(fig.bbox)
    frames = []
    for t in range(1, length + 1):
        canvas.restore_region(still)
        for line, values in lines:
            line.set_ydata(np.where(np.arange(len(values)) < t, values, np.nan))
            line.axes.draw_artist(line)  # type: ignore[union-attr]
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(frames)


def _panel(axes: Axes, name: str, real: Array, imagined: Array, context: int, length: int) -> None:
    steps = np.arange(length)
    guess = np.where(steps >= context - 1, imagined, np.nan)
    axes.plot(steps, real, color=REAL, lw=1.6, label="real")
    axes.plot(steps, guess, color=IMAGINED, lw=1.6, ls=(0, (4, 1.5)), label="imagined")
    axes.axvspan(0, context - 1, color=GRID, alpha=0.6, lw=0)
    axes.set_title(name, fontsize=9)
    axes.tick_params(labelsize=7.5)
    axes.set_xlim(0, length - 1)
    both = np.concatenate([real, imagined])
    margin = 0.08 * max(float(np.ptp(both)), 1e-3)
    axes.set_ylim(both.min() - margin, both.max() + margin)


def _curves(found: Imagination) -> list[tuple[str, Array, Array]]:
    curves = []
    for key, values in found.real.items():
        real, imagined = np.array(values), np.array(found.imagined[key])
        names = [key] if real.shape[1] == 1 else [f"{key}[{i}]" for i in range(real.shape[1])]
        curves += [(name, real[:, i], imagined[:, i]) for i, name in enumerate(names)]
    return sorted(curves, key=lambda curve: curve[0] == "reward")[:MOST_CURVES]
