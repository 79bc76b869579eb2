"""A network between browser and page that can fall silent without closing a connection, or be slow."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

_CHUNK = 4096


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.path = ""
        self.is_silent = False


class Network(contextlib.AbstractContextManager["Network"]):
    """A TCP proxy. What a cut has silenced stays silent, as after a change of networks, until a side closes it."""

    def __init__(self, target_port: int) -> None:
        self.bytes_per_s = float("inf")
        """From the server to each client."""
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._connections: list[_Connection] = []
        self._cut_path: str | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, path: str = "") -> None:
        """Silence all connections, or those of a path; until `restore`, new ones are accepted and not answered."""
        self._cut_path = path
        for connection in self._connections:
            connection.is_silent |= path in ("", connection.path)

    def restore(self) -> None:
        """New connections work again."""
        self._cut_path = None

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends accept
        self._listener.close()
        for connection in self._connections:
            for end in (connection.client, connection.server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target_port)) as server:
            connection = _Connection(client, server)
            self._connections.append(connection)
            back = threading.Thread(target=self._pump, args=(connection, server, client), daemon=True)
            back.start()
            self._pump(connection, client, server)
            back.join()

    def _pump(self, connection: _Connection, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(_CHUNK):
                if source is connection.client and content.startswith(b"GET "):
                    connection.path = content.split(b" ")[1].decode()
                    connection.is_silent |= self._cut_path in ("", connection.path)
                if not connection.is_silent:
                    target.sendall(content)
                if source is connection.server:
                    time.sleep(len(content) / self.bytes_per_s)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
