"""Draws `images/architecture.svg`: run it after changing the design. Boxes name modules."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

TARGET = Path(__file__).parent / "images" / "architecture.svg"
CORE, ENVS, FAMILY, TRAIN, DISK = "#dbeafe", "#dcfce7", "#fef3c7", "#fce7f3", "#e2e8f0"
LINE, INK, SMALL = "#475569", "#0f172a", "#334155"
WIDTH, HEIGHT = 960, 800


class Box(NamedTuple):
    """A rounded box; its first line is the title, words with a dot in them are modules."""

    x: int
    y: int
    w: int
    h: int
    fill: str
    lines: tuple[str, ...]


class Arrow(NamedTuple):
    """A line through `points`, with an arrow head at its end and a label at `at`."""

    points: tuple[tuple[int, int], ...]
    label: str = ""
    at: tuple[int, int] = (0, 0)


BOXES = {
    "core": Box(340, 48, 280, 92, CORE, (
        "worldflux-core", "contracts, registries, planners,",
        "sessions, hub, checks, commands")),
    "train": Box(660, 48, 276, 92, TRAIN, (
        "worldflux-train", "replay, data, loop, checkpoints,",
        "reports; finds the rest by registry")),
    "envs": Box(24, 190, 204, 74, ENVS, ("worldflux-envs", "backends, wrappers, vectors")),
    "dreamer": Box(256, 190, 212, 74, FAMILY, (
        "worldflux-dreamer", "dreamerv1 to 3, planet, rssm")),
    "tdmpc2": Box(496, 190, 200, 74, FAMILY, ("worldflux-tdmpc2", "tdmpc2")),
    "yours": Box(724, 190, 212, 74, FAMILY, ("worldflux-yours", "a plugin works like ours")),
    "environments": Box(24, 334, 190, 76, ENVS, (
        "environments", "worldflux_envs.vector", "worldflux_envs.boundary")),
    "data": Box(24, 446, 190, 76, DISK, (
        "data on disk", "worldflux.episodes", "worldflux.columns")),
    "collector": Box(266, 334, 190, 94, TRAIN, (
        "collector", "worldflux_train.collector", "acts with the weights of",
        "the round's beginning")),
    "source": Box(506, 334, 210, 130, CORE, (
        "source", "worldflux.core.source", "worldflux_train.replay",
        "worldflux.core.episode_source", "worldflux_train.data.mixture",
        "worldflux_train.data.ahead")),
    "updater": Box(772, 334, 164, 94, TRAIN, (
        "updater", "worldflux_train.updater", "choose, read, update,", "write latents back")),
    "clock": Box(506, 512, 210, 94, TRAIN, (
        "clock and phases", "worldflux.training (the plan)", "worldflux_train.schedule",
        "worldflux_train.clock")),
    "learner": Box(772, 512, 164, 112, FAMILY, (
        "learner", "a family's agent.py,", "on worldflux.core.agent:", "update, and in it",
        "Learner.step")),
    "model": Box(772, 676, 164, 94, FAMILY, (
        "world model", "its world_model.py, on", "worldflux.core.model:", "five slots, loss")),
    "evaluation": Box(506, 676, 210, 94, TRAIN, (
        "evaluation", "worldflux_train.evaluation", "episodes played, or held-out", "data")),
    "session": Box(266, 676, 190, 94, CORE, (
        "session", "worldflux.session", "steps the model by hand;", "wm/... environments")),
    "run": Box(24, 676, 190, 94, DISK, (
        "run folder", "worldflux.runs", "worldflux_train.checkpoint", "worldflux_train.report")),
    "metrics": Box(24, 560, 190, 76, TRAIN, (
        "metrics", "worldflux_train.meters", "worldflux_train.sinks")),
}  # fmt: skip
ARROWS = (
    Arrow(((126, 190), (400, 142))),
    Arrow(((362, 190), (450, 142))),
    Arrow(((596, 190), (510, 142))),
    Arrow(((830, 190), (570, 142))),
    Arrow(((660, 94), (622, 94))),
    Arrow(((214, 358), (264, 358)), "obs", (228, 352)),
    Arrow(((266, 386), (216, 386)), "action", (222, 402)),
    Arrow(((456, 372), (504, 372)), "steps", (464, 366)),
    Arrow(((214, 484), (480, 484), (480, 440), (504, 440)), "episodes", (226, 478)),
    Arrow(((716, 362), (770, 362)), "Batch", (727, 356)),
    Arrow(((772, 392), (718, 392)), "latents", (724, 408)),
    Arrow(((716, 540), (744, 540), (744, 420), (770, 420)), "due", (750, 470)),
    Arrow(((506, 540), (380, 540), (380, 430)), "rounds", (392, 534)),
    Arrow(((854, 428), (854, 510)), "Batch", (860, 474)),
    Arrow(((854, 624), (854, 674)), "loss", (860, 654)),
    Arrow(((772, 600), (744, 600), (744, 644), (340, 644), (340, 430)), "weights", (352, 638)),
    Arrow(((611, 644), (611, 674))),
    Arrow(((361, 644), (361, 674))),
    Arrow(((119, 636), (119, 674))),
)


def svg() -> str:
    """The whole picture."""
    boxes = "\n".join(_box(box) for box in BOXES.values())
    arrows = "\n".join(_arrow(arrow) for arrow in ARROWS)
    heads = (
        _text(24, 30, "Who knows whom", 17, INK, 600),
        _text(24, 316, "One training run", 17, INK, 600),
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" \
font-family="system-ui, sans-serif" font-size="14">
<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" \
orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{LINE}"/></marker></defs>
<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>
{heads}
{arrows}
{boxes}
</svg>
"""


def _box(box: Box) -> str:
    title, *others = box.lines
    rows = [_text(box.x + 12, box.y + 22, title, 14, INK, 600)]
    rows += [
        _text(box.x + 12, box.y + 22 + 18 * i, line, 12, SMALL) for i, line in enumerate(others, 1)
    ]
    frame = f'<rect x="{box.x}" y="{box.y}" width="{box.w}" height="{box.h}" rx="8"'
    return "\n".join([f'{frame} fill="{box.fill}" stroke="{LINE}"/>', *rows])


def _arrow(arrow: Arrow) -> str:
    path = "L".join(f"{x} {y}" for x, y in arrow.points)
    line = (
        f'<path d="M{path}" stroke="{LINE}" stroke-width="1.5" marker-end="url(#a)" fill="none"/>'
    )
    return line + (_text(*arrow.at, arrow.label, 12, LINE) if arrow.label else "")


def _text(x: int, y: int, text: str, size: int, color: str, weight: int = 400) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{color}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'


if __name__ == "__main__":
    TARGET.write_text(svg())
