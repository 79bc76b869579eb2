"""The page's routes."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from demos.live.browser import routes as browser_routes
from demos.live.page.frames import FrameEncoder
from demos.live.page.protocol import unpack_frame
from demos.live.page.viewer import LiveSession, Viewers
from demos.live.page.visitor import Visitors

STATIC = Path(__file__).parent / "static"

# Some systems' tables have other types for these, which a browser refuses because of nosniff.
for _suffix, _type in {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}.items():
    mimetypes.add_type(_type, _suffix)


def make_application(session: LiveSession, viewers: Viewers, visitors: Visitors, frames: FrameEncoder) -> Starlette:
    """The page's files at /, the two WebSockets, /snapshot.jpg, and the routes of the model in the browser."""

    async def snapshot(request: Request) -> Response:
        """The newest frame of a local source: curl -o image.jpg 'http://127.0.0.1:8000/snapshot.jpg?source=0'."""
        requested = request.query_params.get("source")
        for source in session.scheduler.sources:
            result = frames.newest(source.id)
            if result is not None and requested in (None, str(source.id)):
                return Response(unpack_frame(await frames.message(result))[1], media_type="image/jpeg")
        return PlainTextResponse("there is no frame yet\n", 404)

    routes: list[BaseRoute] = [
        WebSocketRoute("/live", viewers.serve),
        WebSocketRoute("/visitor", visitors.serve),
        Route("/snapshot.jpg", snapshot),
        *browser_routes.routes(session),
        Mount("/", StaticFiles(directory=STATIC, html=True)),
    ]
    return Starlette(routes=routes)
