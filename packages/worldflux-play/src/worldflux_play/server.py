"""The application: a page, its parts, and one connection for everything that moves.

Every address begins with the token. Nothing is served by a path: the page's parts are a fixed list
read when the application is made, recordings are found by names that the server gave.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from worldflux.errors import WorldFluxError
from worldflux_play.messages import Hello, parsed
from worldflux_play.opened import Played
from worldflux_play.play_session import PlaySession
from worldflux_play.sessions import Full, Sessions
from worldflux_play.viewer import Viewer

logger = logging.getLogger(__name__)
PARTS = {
    "": ("index.html", "text/html"),
    "play.css": ("play.css", "text/css"),
    **{
        f"{name}.js": (f"{name}.js", "text/javascript")
        for name in ("main", "link", "stage", "curves", "keys", "controls")
    },
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; media-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
POLICY, TRY_LATER, FAILED = 1008, 1013, 1011
"""Codes of closed connections (RFC 6455): refused, no room, broken."""
SEEN = '{"type":"seen"}'
"""What a page says when it has shown a frame; whoever only watches says it, too."""
MOST_FAULTS = 20
"""Messages of a page that cannot be obeyed; after them it is cut off."""


def application(played: Played, token: str, sessions: Sessions | None = None) -> Starlette:
    """The application that plays `played` for whoever knows the token."""
    rooms = sessions if sessions is not None else Sessions(played)
    page = files("worldflux_play") / "page"
    parts = {name: (page.joinpath(file).read_bytes(), kind) for name, (file, kind) in PARTS.items()}

    def known(given: str) -> bool:
        return hmac.compare_digest(given.encode(), token.encode())

    async def part(request: Request) -> Response:
        found = parts.get(request.path_params.get("name", ""))
        if found is None or not known(request.path_params["token"]):
            return Response("There is nothing here.", 404, HEADERS)
        return Response(found[0], headers=HEADERS, media_type=found[1])

    async def film(request: Request) -> Response:
        found = rooms.films.get(request.path_params["name"])
        if found is None or not known(request.path_params["token"]) or not found.is_file():
            return Response("There is nothing here.", 404, HEADERS)
        return FileResponse(found, headers=HEADERS)

    async def play(socket: WebSocket) -> None:
        if not known(socket.path_params["token"]) or not _same_origin(socket):
            await socket.close(POLICY)
            return
        await socket.accept()
        await _serve(socket, rooms)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(rooms.watch())
        yield
        watching.cancel()
        await rooms.close()

    routes = [
        WebSocketRoute("/{token}/play", play),
        Route("/{token}/", part),
        Route("/{token}/recordings/{name}", film),
        Route("/{token}/{name}", part),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _same_origin(socket: WebSocket) -> bool:
    """Whether the page that connects is ours: another's page has another origin."""
    origin = socket.headers.get("origin")
    return origin is None or origin.partition("://")[2] == socket.headers.get("host")


async def _serve(socket: WebSocket, sessions: Sessions) -> None:
    """One connection, from its first message to its end."""
    try:
        session, viewer = await sessions.join(await _hello(socket))
    except WebSocketDisconnect:
        return
    except WorldFluxError as error:
        await socket.send_json({"type": "refused", "text": str(error)})
        await socket.close(TRY_LATER if isinstance(error, Full) else POLICY)
        return
    talking = [
        asyncio.create_task(_listen(socket, session, viewer)),
        asyncio.create_task(_send(socket, viewer)),
        asyncio.create_task(viewer.gone.wait()),
    ]
    try:
        done, _ = await asyncio.wait(talking, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if (problem := task.exception()) and not isinstance(problem, _GONE):
                raise problem
    finally:
        session.detach(viewer)
        for task in talking:
            task.cancel()
        with suppress(*_GONE):
            await socket.close(FAILED)


_GONE = (WebSocketDisconnect, RuntimeError)
"""What is raised where a page has gone: starlette raises RuntimeError on a closed connection."""


async def _hello(socket: WebSocket) -> Hello:
    message = parsed(await socket.receive_text())
    return message if isinstance(message, Hello) else Hello(type="hello")


async def _listen(socket: WebSocket, session: PlaySession, viewer: Viewer) -> None:
    """Obey the page; what cannot be done is told to it."""
    faults = 0
    while faults < MOST_FAULTS:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") == SEEN:
            viewer.seen()
            continue
        if not viewer.plays:
            continue  # who only watches has no say
        try:
            if message.get("bytes") is not None:
                session.begin_from_image(message["bytes"])
            else:
                session.obey(message.get("text") or "")
        except WorldFluxError as error:
            faults += 1
            viewer.tell({"type": "error", "text": str(error)})


async def _send(socket: WebSocket, viewer: Viewer) -> None:
    while True:
        found = await viewer.next()
        if isinstance(found, bytes):
            await socket.send_bytes(found)
        else:
            await socket.send_text(found)
