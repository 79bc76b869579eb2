"""The page's server: uvicorn in a thread, on a socket that is bound before `Page` returns.

It binds to the loopback by default: there is no password, and browsers allow a camera (getUserMedia) only on https
pages and on pages of their own machine. From another machine, use a tunnel: ssh -L 8000:127.0.0.1:8000 device

Limits: 128 connections at once (uvicorn answers 503 to more), 5 s between two requests of a connection, 10 s for the
answer to a WebSocket ping, and on Linux 30 s for a client to read some of what it was sent. Keepalive packets find
clients that vanish. uvicorn does not limit the time for sending a request: a client that sends half of one keeps its
connection until it leaves, but delays neither other clients nor `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from demos.live.browser import routes as browser_routes
from demos.live.page.frames import FrameEncoder, encode_jpeg
from demos.live.page.hosts import reachable_hosts, to_address
from demos.live.page.security import SecurityMiddleware
from demos.live.page.viewer import Viewers
from demos.live.page.visitor import MAX_BYTES, Visitors
from demos.live.result import FrameResult
from simplenet.errors import SimpleNetError

if TYPE_CHECKING:
    from demos.live.session import Session

STATIC = Path(__file__).parent / "static"
_MAX_CONNECTIONS = 128
_PING_EVERY_S, _PONG_TIMEOUT_S = 5.0, 10.0
_STALLED_TIMEOUT_S = 30.0


class Page(contextlib.AbstractContextManager["Page"]):
    """Shows a session in browsers until `close`, or until its block as a context manager ends."""

    def __init__(
        self, session: Session, host: str = "127.0.0.1", port: int = 8000, allowed_hosts: Collection[str] = ()
    ) -> None:
        """Bind the socket, then serve in a thread; port 0 takes any free one.

        Args:
            allowed_hosts: names or addresses, from `hosts.allowed_host`, under which the page may also be opened.

        Raises:
            SimpleNetError: the port is taken or forbidden, or this machine has no such address.
        """
        listener = bind(host, port)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # on Linux, where accepted connections inherit these
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_STALLED_TIMEOUT_S * 1e3))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        bound, port = listener.getsockname()[:2]
        address = to_address(bound)
        assert address is not None
        is_anywhere, is_ipv6 = address.is_unspecified, address.version == 6
        host = ("::1" if is_ipv6 else "127.0.0.1") if is_anywhere else host.strip("[]")
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        """The address to open in a browser on this machine."""
        hosts = reachable_hosts(is_ipv6) if is_anywhere else []
        self.urls = [f"http://{reachable}:{port}/" for reachable in hosts] or [self.url]
        """The addresses to open on other machines, or `url` if there are none."""
        self.is_public = not address.is_loopback
        """Whether other machines can reach it."""
        self._session = session
        self._executor = ThreadPoolExecutor(2, "page worker")
        self.frames = FrameEncoder(self._executor)
        self.viewers = Viewers(session, self.frames)
        self.visitors = Visitors(session, self._executor)
        config = uvicorn.Config(
            SecurityMiddleware(self._application(), host, self.is_public, allowed_hosts),
            http="h11",
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws_max_size=MAX_BYTES,
            ws_ping_interval=_PING_EVERY_S,
            ws_ping_timeout=_PONG_TIMEOUT_S,
            ws_per_message_deflate=False,  # JPEG does not compress, and a small message could inflate to a huge one
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
        )
        config.load()
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(_serve(server, listener)), name="page", daemon=True)
        self._thread.start()
        session.subscribe(self._on_result)

    def close(self) -> None:
        """Disconnect all clients within two seconds. Idempotent."""
        self._server.should_exit = True
        self._thread.join(2)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _application(self) -> Starlette:
        async def snapshot(request: Request) -> Response:
            """The newest frame of a local source: curl -o image.jpg 'http://127.0.0.1:8000/snapshot.jpg?source=0'."""
            requested = request.query_params.get("source")
            for source in self._session.scheduler.sources:
                result = self.frames.newest(source.id)
                if result is not None and requested in (None, str(source.id)):
                    jpeg = await run_in_threadpool(encode_jpeg, result.frame.image)
                    return Response(jpeg, media_type="image/jpeg")
            return PlainTextResponse("there is no frame yet\n", 404)

        return Starlette(
            routes=[
                WebSocketRoute("/live", self.viewers.serve),
                WebSocketRoute("/visitor", self.visitors.serve),
                Route("/snapshot.jpg", snapshot),
                *browser_routes.routes(self._session),
                Mount("/", StaticFiles(directory=STATIC, html=True)),
            ]
        )

    def _on_result(self, result: FrameResult) -> None:
        if result.source.kind == "visitor":
            self.visitors.deliver(result)
        else:
            with contextlib.suppress(RuntimeError):  # the page's event loop has just closed
                self.frames.put(result)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one.

    Raises:
        SimpleNetError: the port is taken or forbidden, or this machine has no such address.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise SimpleNetError(f"{host} is not a name or address of this machine; type: --host 127.0.0.1") from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # IPv4 if there is one
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address, family=family, backlog=128, dualstack_ipv6=both)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            with bind(host, 0) as free:
                hint = f"type: --port {free.getsockname()[1]}"
            raise SimpleNetError(f"port {port} on {host} is taken by another program; {hint}") from None
        if error.errno == errno.EACCES:
            raise SimpleNetError(f"only root may open port {port}; type: --port 8000") from None
        reason = os.strerror(error.errno or 0)
        raise SimpleNetError(f"{host} is not an address of this machine ({reason}); type: --host 127.0.0.1") from None


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    try:
        await server.serve(sockets=[listener])
    finally:
        for connection in list(server.server_state.connections):
            connection.transport.abort()  # uvicorn would wait for clients that do not read
        await asyncio.sleep(0)
