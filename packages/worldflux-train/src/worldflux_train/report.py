"""`report.html`: one file that opens offline and shows what a run did."""

from __future__ import annotations

import base64
import html
import platform
from collections.abc import Mapping
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

from worldflux.atomic import write_file
from worldflux.runs import Run, having
from worldflux.yaml_text import read_yaml
from worldflux_train import drawing
from worldflux_train.clock import tick_of
from worldflux_train.config import resolve
from worldflux_train.evaluation_pictures import newest_pictures
from worldflux_train.imagine import Imagination, load_imagination

MOST_LOSSES = 12
MOST_VIDEOS = 3
MIME = {".mp4": "video/mp4", ".gif": "image/gif", ".png": "image/png"}


def write_report(run: Run) -> Path:
    """Write the run's report from what lies in its folder."""
    config = resolve(config=read_yaml(run.config_path))  # shown only: nothing of it is made
    rows = run.metrics()
    text = page(
        "report.html",
        title=html.escape(f"{config.id} on {config.where}"),
        model=html.escape(config.id),
        env=html.escape(config.where),
        tiles=_tiles(rows),
        curve=_learning(rows),
        pictures="".join(map(_embedded, newest_pictures(run))),
        losses=_losses(rows),
        imagination=_imagination(load_imagination(run)),
        videos=_videos(run),
        config=html.escape(run.config_path.read_text("utf-8")),
        versions=table(versions()),
        folder=html.escape(str(run.path)),
    )
    write_file(run.report_path, text.encode())
    return run.report_path


def page(template: str, **parts: str) -> str:
    """A template of this package filled in, with the style that all pages share."""
    folder = Path(__file__).parent
    style = (folder / "report.css").read_text("utf-8")
    return Template((folder / template).read_text("utf-8")).substitute(parts, style=style)


EVALUATION = ("eval/return", "eval/return_std", "eval/return_min", "eval/return_max")


def _tiles(rows: list[dict[str, Any]]) -> str:
    evaluations, logged = having(rows, *EVALUATION), having(rows, "updates")
    found: dict[str, str] = {}
    if evaluations:
        best = max(evaluations, key=lambda row: row["eval/return"])
        last = evaluations[-1]
        found[f"best, at step {best['step']:,}"] = f"{best['eval/return']:.1f}"
        found["last evaluation"] = f"{last['eval/return']:.1f} ± {last['eval/return_std']:.1f}"
        found["before training"] = f"{evaluations[0]['eval/return']:.1f}"
    for name, points in list(_held_out(rows).items())[:1] if not evaluations else []:
        found[f"held-out {name}"] = f"{points[-1][1]:.4g}"
        found["before training"] = f"{points[0][1]:.4g}"
    if rows:
        end = rows[-1]["step"]
        found["agent steps"] = f"{end:,}"
        if logged:
            at = logged[-1]["step"]
            found["updates" if at == end else f"updates, at step {at:,}"] = (
                f"{logged[-1]['updates']:,}"
            )
        if timed := having(rows, "time/wall"):
            found["time"] = str(timedelta(seconds=round(timed[-1]["time/wall"])))
    return tiles(found)


def tiles(values: Mapping[str, str]) -> str:
    """Large values over their names."""
    return "".join(
        f'<div class="tile"><div class="value">{html.escape(value)}</div>'
        f'<div class="name">{html.escape(name)}</div></div>'
        for name, value in values.items()
    )


def _learning(rows: list[dict[str, Any]]) -> str:
    evaluations = having(rows, *EVALUATION)
    episodes = [(tick_of(row), row["episode/return"]) for row in having(rows, "episode/return")]
    if not evaluations and not episodes and (judged := _held_out(rows)):
        return f"<p>On held-out data:</p>{drawing.small_curves(judged)}"
    if not evaluations and not episodes:
        return _nothing("No episode has ended yet.")
    bursts = any(tick_of(row) > row["step"] for row in rows)
    return drawing.learning_curve(evaluations, episodes, "ticks" if bursts else "steps")


def _held_out(rows: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """What a run from data was judged by, over its steps: the score first."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith("eval/") and isinstance(value, int | float):
                found.setdefault(key.removeprefix("eval/"), []).append((tick_of(row), value))
    first = sorted(found, key=lambda name: name != "score")[:MOST_LOSSES]
    return {name: found[name] for name in first}


def _losses(rows: list[dict[str, Any]]) -> str:
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            name = key.removeprefix("train/")
            if not isinstance(value, int | float):
                continue
            if name != key and ("loss" in name or name in ("entropy", "grad_norm")):
                curves.setdefault(name, []).append((tick_of(row), value))
    if not curves:
        return _nothing("Nothing was learned yet.")
    return drawing.small_curves(dict(list(curves.items())[:MOST_LOSSES]))


def _imagination(found: Imagination | None) -> str:
    if found is None:
        return _nothing("Not made yet: run <code>worldflux imagine</code> on this folder.")
    if not found.error:
        return (
            f"<p>An image drawn for the label of each of {found.starts} real ones; the video shows "
            f"them in pairs. Checkpoint of step {found.step:,}.</p>"
        )
    text = (
        f"<p>After {found.context} real steps (shaded) the model saw only the actions of the next "
        f"{found.horizon}. Checkpoint of step {found.step:,}.</p>"
    )
    if found.real:
        text += drawing.real_and_imagined(found)
    return text + (
        f"<h3>Error over the horizon</h3><p>Root mean square error over {found.starts} "
        f"{'start' if found.starts == 1 else 'starts'}, in standard deviations of the real values; "
        "dotted: predicting that nothing changes.</p>" + drawing.error_over_horizon(found)
    )


def _videos(run: Run) -> str:
    files = [file for file in run.videos_path.glob("imagined-*") if file.suffix in MIME]
    newest = sorted(files, key=lambda file: file.stat().st_mtime)[-MOST_VIDEOS:]
    if not newest:
        return _nothing("None yet: run <code>worldflux imagine</code> on this folder.")
    return "".join(map(_embedded, reversed(newest)))


def _embedded(file: Path) -> str:
    data = f"data:{MIME[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"
    shown = (
        f'<img src="{data}" alt="">'
        if file.suffix in (".gif", ".png")
        else f'<video src="{data}" controls loop muted autoplay playsinline></video>'
    )
    return f"<figure>{shown}<figcaption>{html.escape(file.name)}</figcaption></figure>"


def versions() -> dict[str, str]:
    """What is installed here, as far as results depend on it."""
    names = sorted(
        {
            dist.name
            for dist in metadata.distributions()
            if dist.name and dist.name.lower().startswith("worldflux")
        }
        | {"torch", "numpy", "gymnasium"}
    )
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def table(rows: Mapping[str, str]) -> str:
    """Names and values, one pair a row."""
    body = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>"
        for key, value in rows.items()
    )
    return f"<table>{body}</table>"


def _nothing(why: str) -> str:
    return f'<p class="none">{why}</p>'
