"""An HTTP server on the loopback interface that can fail in every way that servers do."""

from __future__ import annotations

import http.server
import os
import time
from collections.abc import Callable

CONTENT = os.urandom(300_000)


Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Handles each request with the server's next answer; the last one is used again."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def send(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [complete]
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, *arguments: object) -> None:
        """Ignores clients that close the connection."""


def complete(handler: Handler) -> None:
    handler.send(200, CONTENT)


def truncated(handler: Handler) -> None:
    handler.send(200, CONTENT[:100_000], length=len(CONTENT))


def stalled(handler: Handler) -> None:
    handler.send(200, CONTENT[:100_000], length=len(CONTENT))
    handler.wfile.flush()
    time.sleep(2)


def trickling(handler: Handler) -> None:
    handler.send(200, b"", length=len(CONTENT))
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.05)


def silent(handler: Handler) -> None:
    time.sleep(2)


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(100_000))


def status(code: int, location: str | None = None) -> Answer:
    return lambda handler: handler.send(code) if location is None else handler.send(code, Location=location)
