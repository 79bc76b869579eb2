"""A minimal RTSP camera: MPEG-4 over RTP, interleaved in the TCP connection, with basic authentication."""

from __future__ import annotations

import base64
import contextlib
import itertools
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_SDP = "\r\n".join([
    "v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 127.0.0.1", "t=0 0", "a=control:*",
    "m=video 0 RTP/AVP 96", "a=rtpmap:96 MP4V-ES/90000", "a=control:video", "",
])  # fmt: skip


class _Camera(socketserver.StreamRequestHandler):
    server: RtspServer

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            while (request := self._request()) is not None:
                method, url, headers = request
                if headers.get("authorization") != self.server.authorization:
                    self._respond("401 Unauthorized", headers, 'WWW-Authenticate: Basic realm="camera"')
                elif method == "OPTIONS":
                    self._respond("200 OK", headers, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
                elif method == "DESCRIBE":
                    self._respond(
                        "200 OK", headers, f"Content-Base: {url}/", "Content-Type: application/sdp", body=_SDP
                    )
                elif method == "SETUP":
                    channels = "RTP/AVP/TCP;unicast;interleaved=0-1"
                    self._respond("200 OK", headers, f"Transport: {channels}", "Session: 1;timeout=60")
                elif method == "PLAY":
                    self._respond("200 OK", headers, "Session: 1", "Range: npt=now-")
                    self._play()
                    return
                else:
                    self._respond("200 OK", headers)

    def _request(self) -> tuple[str, str, dict[str, str]] | None:
        first = self.rfile.readline().decode().split()
        if len(first) < 2:
            return None
        headers = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return first[0], first[1], headers

    def _respond(self, status: str, request: dict[str, str], *headers: str, body: str = "") -> None:
        lines = [f"RTSP/1.0 {status}", f"CSeq: {request.get('cseq', '0')}", *headers, f"Content-Length: {len(body)}"]
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    def _play(self) -> None:
        numbers = itertools.count()
        for index, frame in enumerate(self.server.frames):
            for start in range(0, len(frame), 1400):
                payload = frame[start : start + 1400]
                last = start + 1400 >= len(frame)
                head = struct.pack(">BBHII", 0x80, 96 | (last << 7), next(numbers) & 0xFFFF, 3000 * index, 1)
                self.wfile.write(b"$\0" + struct.pack(">H", 12 + len(payload)) + head + payload)
            time.sleep(0.005)


class RtspServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, frames: list[bytes], user_and_password: str) -> None:
        super().__init__(("127.0.0.1", 0), _Camera)
        self.frames = frames
        self.authorization = "Basic " + base64.b64encode(user_and_password.encode()).decode()


@contextlib.contextmanager
def rtsp_camera(video: Path, user_and_password: str) -> Iterator[str]:
    """host:port of a camera that sends the frames of an MPEG-4 .avi to each client once, then disconnects."""
    with RtspServer(_chunks(video.read_bytes()), user_and_password) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _chunks(avi: bytes) -> list[bytes]:
    """The compressed frames of an .avi."""
    at, found = avi.index(b"movi") + 4, []
    while avi[at : at + 4] == b"00dc":
        (size,) = struct.unpack_from("<I", avi, at + 4)
        found.append(avi[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return found
