"""Draws the pictures of docs/environments.md: `python docs/render_environments.py [name ...]`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldflux.factory import make_env

ROOT = Path(__file__).parent.parent
HERE = ROOT / "docs" / "images"
SIDE = 160
# backend -> (id, options, steps before the picture is taken)
SCENES: dict[str, tuple[str, dict[str, Any], int]] = {
    "gym": ("gym/CartPole-v1", {}, 12),
    "dmc": ("dmc/walker-walk", {}, 40),
    "atari": ("atari/MsPacman", {}, 60),
    "mujoco": ("mujoco/HalfCheetah-v5", {}, 20),
    "robotics": ("robotics/AntMaze_UMaze-v5", {}, 10),
    "minigrid": ("minigrid/MiniGrid-LavaCrossingS9N2-v0", {}, 4),
    "crafter": ("crafter/reward", {}, 30),
    "craftax": ("craftax/Craftax-Classic", {}, 20),
    "pusht": ("pusht/PushT-v0", {}, 12),
    "brax": ("brax/ant", {"physics": "spring"}, 10),
    "unity": ("unity/{player}", {"args": ["--scenario", "scene"]}, 4),
    "wf": ("wf/sprites", {}, 20),
    "wm": ("wm/{dream}", {}, 20),
}
DREAM = {
    "env.obs": "pixels",
    "env.size": 32,
    "model.mults": [2, 3, 4],
    "model.deter": 256,
    "model.stoch": 16,
    "model.classes": 8,
    "agent.batch": 8,
    "agent.length": 12,
    "agent.train_ratio": 96,
    "agent.lr": 1e-3,
    "agent.warmup": 50,
    "train.replay_capacity": 2000,
    "train.eval_every": 0,
    "train.eval_episodes": 1,
    "train.threads": 1,
}


def main() -> None:
    """Render the named backends, by default all."""
    HERE.mkdir(exist_ok=True)
    for backend in sys.argv[1:] or SCENES:
        task, options, steps = SCENES[backend]
        with tempfile.TemporaryDirectory() as folder:
            if backend == "unity":
                task = task.format(player=player(Path(folder)))
            if backend == "wm":
                task, options = task.format(dream=dream()), {"starts": dream_starts()}
            draw(backend, make_env(task, render_mode="rgb_array", **options), steps)


def draw(backend: str, env: Any, steps: int) -> None:
    """The picture after so many random steps."""
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    picture = Image.fromarray(np.asarray(env.render()))
    env.close()
    width = round(SIDE * picture.width / picture.height)
    # Small pictures are shown as the pixels they are.
    how = Image.Resampling.NEAREST if picture.height < SIDE else Image.Resampling.LANCZOS
    small = picture.resize((width, SIDE), how)
    small.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(
        HERE / f"env-{backend}.png", optimize=True
    )


def player(folder: Path) -> Path:
    """Our own program that speaks the protocol of Unity's players, with a scene to look at."""
    file = folder / "Scene.x86_64"
    source = (ROOT / "tests" / "envs" / "fake_player.py").read_text()
    file.write_text(f"#!{sys.executable}\n{source}")
    file.chmod(0o755)
    return file


def dream() -> Path:
    """A small world model of wf/pendulum's pictures, trained for some minutes if it is not yet."""
    run = ROOT / "build" / "dream"
    if not run.exists():
        command = ["worldflux", "train", "dreamerv3:size1m", "--env", "wf/pendulum"]
        settings = [part for key, value in DREAM.items() for part in ("--set", f"{key}={value}")]
        subprocess.run([*command, "--steps", "900", "--out", str(run), *settings], check=True)
    return run


def dream_starts() -> dict[str, np.ndarray]:
    """Real first pictures to dream on from."""
    env = make_env("wf/pendulum", obs="pixels", size=DREAM["env.size"])
    return {"image": np.stack([env.reset(seed=seed)[0]["image"] for seed in range(8)])}


if __name__ == "__main__":
    main()
