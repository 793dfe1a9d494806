"""Where the server listens, and what it says of that."""

from __future__ import annotations

import ipaddress
import secrets
import socket

import uvicorn
from starlette.types import ASGIApp

from worldflux.errors import ConfigError
from worldflux_play.opened import Played
from worldflux_play.server import application
from worldflux_play.sessions import Sessions

PING, PONG = 5.0, 5.0
"""Seconds between questions whether a page is there, and for its answer."""
MOST_BYTES = 4 * 2**20
"""Of one message: an image."""
SHORTEST_TOKEN = 16


def serve(server: uvicorn.Server, listening: socket.socket) -> None:
    """Serve until interrupted."""
    with listening:
        server.run(sockets=[listening])


def prepared(
    played: Played,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str | None = None,
    sessions: int = 8,
    linger: float = 10.0,
) -> tuple[uvicorn.Server, socket.socket, list[str]]:
    """A server and where it listens, and lines to show: its address, and a warning before it
    where that is no loopback.

    A port that is taken is followed by the next free one; 0 takes any. Without a token a random
    one is made.
    """
    token = secrets.token_urlsafe(24) if token is None else checked_token(token)
    listening = bound(host, port)
    address, found = listening.getsockname()[:2]
    lines = [] if loopback(address) else [warning(address)]
    shown = f"[{address}]" if ":" in address else address
    app = application(played, token, Sessions(played, sessions, linger=linger))
    lines.append(f"Play at http://{shown}:{found}/{token}/")
    return uvicorn.Server(configured(app)), listening, lines


def configured(app: ASGIApp, ping: float = PING, pong: float = PONG) -> uvicorn.Config:
    """How the application is served: vanished pages are noticed, messages are bounded."""
    return uvicorn.Config(
        app, log_level="warning", ws="websockets-sansio", ws_ping_interval=ping,
        ws_ping_timeout=pong, ws_max_size=MOST_BYTES, server_header=False, access_log=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip


def checked_token(token: str) -> str:
    """A token of the caller's; `ConfigError` for one that is short or no part of an address."""
    if len(token) < SHORTEST_TOKEN or not all(c.isalnum() or c in "-_" for c in token):
        raise ConfigError(
            f"--token takes at least {SHORTEST_TOKEN} letters, digits, - or _. Leave it out to get "
            "a random one."
        )
    return token


def loopback(address: str) -> bool:
    """Whether only this machine reaches the address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def warning(address: str) -> str:
    """What somebody should know who opens another address than this machine's own."""
    return (
        f"Warning: {address} can be reached from other machines. Whoever has the address with its "
        "token can play, use this machine's time, and write recordings into the run. Traffic is "
        "not encrypted: put a proxy with TLS in front, or tunnel over SSH to the default address."
    )


def bound(host: str, port: int, tries: int = 20) -> socket.socket:
    """A socket that listens there, at the next free port where that is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last: OSError | None = None
    for number in range(port, min(port + tries, 65536)) if port else (0,):
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, number))
        except OSError as error:
            found.close()
            last = error
        else:
            return found
    raise ConfigError(f"{host}:{port} cannot be listened at: {last}. Choose another --port.")
