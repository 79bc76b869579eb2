"""The page's server: uvicorn in a thread, on a socket that is bound before `Page.start` returns.

It binds to the loopback by default. Browsers give a page a camera (getUserMedia) only in a secure context: https, or an
address of the same machine. From another machine, http://device:8000 shows the device's frames but cannot use the
visitor's camera. A tunnel can, and it keeps strangers out:

    ssh -L 8000:127.0.0.1:8000 device        then open http://127.0.0.1:8000/

With --host 0.0.0.0, everybody in the network can watch, switch models, pause, and write snapshots and recordings to the
disk: there is no password.

Limits: 128 connections at once (uvicorn answers 503 to further requests), 5 s between two requests of a connection, and
on Linux 30 s for a client to read some of what it was sent. uvicorn does not limit the time for sending a request: a
client that sends half of one keeps its connection until it leaves. It does not delay other clients or `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import uvicorn

from demos.live.page.application import make_application
from demos.live.page.frames import FrameEncoder
from demos.live.page.listener import bind
from demos.live.page.security import SecurityMiddleware, is_loopback
from demos.live.page.viewer import LiveSession, Viewers
from demos.live.page.visitor import MAX_BYTES, Visitors
from demos.live.result import FrameResult
from simplenet.errors import UsageError

_MAX_CONNECTIONS = 128
_KEEP_ALIVE_S = 5
_STALLED_TIMEOUT_S = 30.0
_SHUTDOWN_TIMEOUT_S = 1
_CLOSE_TIMEOUT_S = 2.0


class Page:
    """Show a session in browsers. Use it as a context manager, or call `start` and `close`."""

    def __init__(self, session: LiveSession, host: str = "127.0.0.1", port: int = 8000) -> None:
        """Port 0 takes any free one."""
        if not 0 <= port <= 65_535:
            raise UsageError(f"port {port} is not between 0 and 65535; type: --port 8000")
        self._session, self._host, self._port = session, host, port
        self._executor = ThreadPoolExecutor(2, "page worker")
        self.frames = FrameEncoder(self._executor)
        self.viewers = Viewers(session, self.frames)
        self.visitors = Visitors(session, self._executor)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        """The address to open in a browser on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host).strip("[]")
        return f"http://[{host}]:{self._port}/" if ":" in host else f"http://{host}:{self._port}/"

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach it."""
        return not is_loopback(self._host)

    def start(self) -> None:
        """Bind the socket, then serve in a thread.

        Raises:
            SimpleNetError: the port is taken or forbidden, or this machine has no such address.
        """
        listener = bind(self._host, self._port)
        self._port = listener.getsockname()[1]
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_STALLED_TIMEOUT_S * 1e3))
        app = make_application(self._session, self.viewers, self.visitors, self.frames)
        config = uvicorn.Config(
            SecurityMiddleware(app, self._host),
            http="h11",
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws_max_size=MAX_BYTES,
            ws_per_message_deflate=False,  # JPEG does not compress, and a small message could inflate to a huge one
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        )
        config.load()
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(_serve(server, listener)), name="page", daemon=True)
        self._thread.start()
        self._unsubscribe = self._session.subscribe(self._on_result)

    def close(self) -> None:
        """Disconnect everybody within two seconds; a second call does nothing."""
        unsubscribe, self._unsubscribe = self._unsubscribe, lambda: None
        unsubscribe()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_CLOSE_TIMEOUT_S)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Page:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_result(self, result: FrameResult) -> None:
        if result.source.kind == "visitor":
            self.visitors.deliver(result)
        else:
            with contextlib.suppress(RuntimeError):  # the page's event loop has just closed
                self.frames.put(result)


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    try:
        await server.serve(sockets=[listener])
    finally:
        for connection in list(server.server_state.connections):
            connection.transport.abort()  # clients that do not read: uvicorn waits until they do
        await asyncio.sleep(0)
