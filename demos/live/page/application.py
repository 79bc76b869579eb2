"""The page's addresses."""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from demos.live.browser import routes as browser_routes
from demos.live.page import messages
from demos.live.page.frames import FrameEncoder
from demos.live.page.viewer import Session

STATIC = Path(__file__).parent / "static"

Serve = Callable[[WebSocket], Awaitable[None]]

# Some systems' tables know these otherwise, and with nosniff a browser then refuses them.
for _suffix, _kind in {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}.items():
    mimetypes.add_type(_kind, _suffix)


def application(session: Session, live: Serve, visitor: Serve, pictures: FrameEncoder) -> Starlette:
    """/ and its files, /live, /visitor, /snapshot.jpg, and what the browser's own model needs."""

    async def snapshot(request: Request) -> Response:
        """The newest picture of a source of this machine: curl -o picture.jpg http://127.0.0.1:8000/snapshot.jpg?source=0"""
        wanted = request.query_params.get("source")
        for source in session.scheduler.sources:
            update = pictures.newest(source.id)
            if update is not None and wanted in (None, str(source.id)):
                return Response(messages.split(await pictures.message(update))[1], media_type="image/jpeg")
        return PlainTextResponse("there is no picture yet\n", 404)

    routes: list[BaseRoute] = [
        WebSocketRoute("/live", live),
        WebSocketRoute("/visitor", visitor),
        Route("/snapshot.jpg", snapshot),
        *browser_routes.routes(session),
        Mount("/browser", StaticFiles(directory=browser_routes.STATIC)),
        Mount("/", StaticFiles(directory=STATIC, html=True)),
    ]
    return Starlette(routes=routes)
