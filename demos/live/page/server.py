"""The page's server: uvicorn in a thread, on a socket that is bound before `start` returns.

Loopback by default, and better left so. Browsers give a page a camera (getUserMedia) only in a secure context: https,
or an address of this very machine. From another machine, http://device:8000 shows the device's pictures but cannot use
the visitor's camera. A tunnel can, and it keeps strangers out as well:

    ssh -L 8000:127.0.0.1:8000 device        then open http://127.0.0.1:8000/

With --host 0.0.0.0, everybody in the network can timer, switch models, pause, and write snapshots and recordings to the
disk: there is no password.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from starlette.websockets import WebSocket

from demos.live.page.application import application
from demos.live.page.frames import FrameEncoder
from demos.live.page.listener import bind
from demos.live.page.security import SecurityMiddleware, is_loopback
from demos.live.page.timeout import ImpatientHttp
from demos.live.page.viewer import Session, Viewers
from demos.live.page.visitor import MOST_BYTES, Visitors
from demos.live.result import FrameResult
from simplenet.errors import UsageError

_MOST_CONNECTIONS = 128
_GRACE_S = 1
_CLOSE_TIMEOUT_S = 2.0


class Page:
    """Shows a session to browsers. Use it as a context manager, or call `start` and `close`."""

    def __init__(self, session: Session, host: str = "127.0.0.1", port: int = 8000) -> None:
        """`port` 0 takes any that is free."""
        if not 0 <= port <= 65_535:
            raise UsageError(f"port {port} is not between 0 and 65535; type: --port 8000")
        self._session, self._host, self._port = session, host, port
        self._workers = ThreadPoolExecutor(2, "page worker")
        self.pictures = FrameEncoder(self._workers)
        self._viewers = Viewers(session, self.pictures, self._drop)
        self._visitors = Visitors(session, self._workers, self._drop)
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        """What to open in a browser of this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host).strip("[]")
        return f"http://[{host}]:{self._port}/" if ":" in host else f"http://{host}:{self._port}/"

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach it."""
        return not is_loopback(self._host)

    def start(self) -> None:
        """Binds, then serves in a thread.

        Raises:
            SimpleNetError: the port is taken or forbidden, or this machine has no such address.
        """
        listener = bind(self._host, self._port)
        self._port = listener.getsockname()[1]
        app = SecurityMiddleware(
            application(self._session, self._viewers.serve, self._visitors.serve, self.pictures), self._host
        )
        config = uvicorn.Config(
            app,
            http=ImpatientHttp,
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws_max_size=MOST_BYTES,
            ws_per_message_deflate=False,  # JPEG does not shrink, and what inflates is a bomb's way in
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_S,
        )
        config.load()
        self._server = uvicorn.Server(config)
        is_running = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, is_running)), name="page", daemon=True
        )
        self._thread.start()
        is_running.wait(_CLOSE_TIMEOUT_S)
        self._unsubscribe = self._session.subscribe(self._on_update)

    def close(self) -> None:
        """Ends within two seconds, whoever is still connected; harmless the second time."""
        unsubscribe, self._unsubscribe = self._unsubscribe, lambda: None
        unsubscribe()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_CLOSE_TIMEOUT_S)
        self._workers.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Page:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _serve(self, listener: socket.socket, is_running: threading.Event) -> None:
        assert self._server is not None
        self.pictures.loop = asyncio.get_running_loop()
        is_running.set()
        try:
            await self._server.serve(sockets=[listener])
        finally:
            self.pictures.loop = None
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()  # those whose clients took no notice
            await asyncio.sleep(0)

    def _on_update(self, update: FrameResult) -> None:
        if update.source.kind == "visitor":
            self._visitors.answered(update)
        else:
            with contextlib.suppress(RuntimeError):  # the page's loop has just closed
                self.pictures.put(update)

    def _drop(self, websocket: WebSocket) -> None:
        assert self._server is not None
        client = websocket.scope["client"]
        for connection in list(self._server.server_state.connections):
            if getattr(connection, "client", None) == client:
                connection.transport.abort()
