"""Draws the pictures of docs/environments.md: `python docs/render_environments.py [name ...]`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from worldflux.factory import make_env

HERE = Path(__file__).parent / "images"
SIDE = 160
# backend -> (id, options, steps before the picture is taken)
SCENES = {
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
    "wf": ("wf/sprites", {}, 20),
}


def main() -> None:
    """Render the named backends, by default all."""
    HERE.mkdir(exist_ok=True)
    for backend in sys.argv[1:] or SCENES:
        task, options, steps = SCENES[backend]
        env = make_env(task, render_mode="rgb_array", **options)
        env.reset(seed=1)
        env.action_space.seed(1)
        for _ in range(steps):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
        picture = Image.fromarray(np.asarray(env.render()))
        width = round(SIDE * picture.width / picture.height)
        small = picture.resize((width, SIDE), Image.Resampling.LANCZOS)
        small.convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(
            HERE / f"env-{backend}.png", optimize=True
        )
        env.close()


if __name__ == "__main__":
    main()
