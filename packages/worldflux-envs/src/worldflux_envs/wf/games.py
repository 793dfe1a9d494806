"""Our games by name."""

from __future__ import annotations

from worldflux.errors import EnvError, did_you_mean
from worldflux_envs.wf.cartpole import CartPole
from worldflux_envs.wf.catch import Catch
from worldflux_envs.wf.game import Game
from worldflux_envs.wf.pendulum import Pendulum
from worldflux_envs.wf.sprites import Sprites
from worldflux_envs.wf.two_room import TwoRoom

GAMES: dict[str, type[Game]] = {
    game.name: game for game in (Catch, CartPole, Pendulum, TwoRoom, Sprites)
}


def game(name: str) -> Game:
    """The game called `name`; `_` and `-` are the same."""
    wanted = name.lower().replace("_", "-")
    if wanted not in GAMES:
        raise EnvError(
            f"wf has no task {name!r}.{did_you_mean(wanted, GAMES)} Tasks: {', '.join(GAMES)}."
        )
    return GAMES[wanted]()
