"""A network camera: an HTTP server on loopback whose responses the test writes."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from demos.live.sources.opencv import opencv

Request = http.server.BaseHTTPRequestHandler
Respond = Callable[[Request, int], None]


@contextlib.contextmanager
def serving(respond: Respond, port: int = 0) -> Iterator[str]:
    """host:port of a server that calls `respond(request, n)` in its own thread for the n-th GET, from 0."""
    count = iter(range(10**9))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                respond(self, next(count))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def start_stream(request: Request) -> None:
    request.send_response(200)
    request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
    request.end_headers()


def send_frame(request: Request, red: int, width: int = 64, height: int = 48) -> None:
    send_part(request, jpeg(red, width, height))


def send_burst(request: Request, red: int) -> None:
    """Two kilobytes, which FFmpeg needs to detect the format."""
    for _ in range(10):
        send_frame(request, red)


def send_part(request: Request, content: bytes) -> None:
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
    request.wfile.write(head.encode() + content + b"\r\n")


def send_file(request: Request, content: bytes, *, announce: bool = True) -> None:
    """Send it all, without range requests, as the simplest servers do."""
    request.send_response(200)
    request.send_header("Content-Type", "application/octet-stream")
    if announce:
        request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


def jpeg(red: int, width: int = 64, height: int = 48) -> bytes:
    image: npt.NDArray[np.uint8] = np.zeros((height, width, 3), np.uint8)
    image[..., 2] = red  # OpenCV's order is blue, green, red
    content: bytes = opencv().imencode(".jpg", image)[1].tobytes()
    return content
