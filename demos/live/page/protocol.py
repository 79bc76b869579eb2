"""Messages, close codes and connection limits of the page's two WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from demos.live.result import FrameResult
from simplenet.errors import one_line

SEND_TIMEOUT_S = 10.0
GOING_AWAY, UNSUPPORTED, UNUSABLE, POLICY, TOO_BIG, TRY_LATER = 1001, 1003, 1007, 1008, 1009, 1013


class Disconnect(Exception):
    """Close the WebSocket with this code and a reason for the person in front of the browser."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Endpoint:
    """A WebSocket endpoint with a limited number of connections; subclasses implement `_handle`."""

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self.connections = 0

    async def serve(self, websocket: WebSocket) -> None:
        """Accept the connection, and close it when `_handle` returns or raises `Disconnect`."""
        await websocket.accept()
        try:
            if self.connections >= self._max_connections:
                raise Disconnect(TRY_LATER, f"at most {self._max_connections} connections at once; try again later")
            self.connections += 1
            try:
                await self._handle(websocket)
            finally:
                self.connections -= 1
        except Disconnect as error:
            reason = one_line(error).encode()[:120].decode(errors="ignore")  # a close frame has room for 123 bytes
            with contextlib.suppress(asyncio.TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
                await asyncio.wait_for(websocket.close(error.code, reason), SEND_TIMEOUT_S)
        except WebSocketDisconnect:
            pass

    async def _handle(self, websocket: WebSocket) -> None:
        raise NotImplementedError


async def send(websocket: WebSocket, message: str | bytes) -> None:
    """Send text or bytes.

    Raises:
        WebSocketDisconnect: the client left, or did not read for `SEND_TIMEOUT_S`.
    """
    sending = websocket.send_text(message) if isinstance(message, str) else websocket.send_bytes(message)
    try:
        await asyncio.wait_for(sending, SEND_TIMEOUT_S)
    except (asyncio.TimeoutError, RuntimeError) as error:  # RuntimeError: uvicorn has just closed it
        raise WebSocketDisconnect(1006) from error


def result_message(result: FrameResult) -> dict[str, Any]:
    """One frame's result, JSON-able, with its source and its size in pixels."""
    height, width = result.frame.image.shape[:2]
    return {**result.to_json(), "source": result.source.id, "width": width, "height": height}


def pack_frame(head: dict[str, Any], jpeg: bytes) -> bytes:
    """One binary message: the length of `head` (4 bytes, big-endian), `head` as JSON in UTF-8, the JPEG."""
    text = json.dumps(head).encode()
    return struct.pack(">I", len(text)) + text + jpeg


def unpack_frame(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The head and the JPEG of a `pack_frame` message."""
    (length,) = struct.unpack_from(">I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def parse_request(text: str) -> dict[str, Any]:
    """Parse a request: an object with 'command' and 'value', or with 'look' (source id) or 'shown' (frame number).

    Raises:
        ValueError: the text is not such an object.
    """
    try:
        request = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(request, dict):
        raise ValueError("not an object")
    if "command" in request:
        if not isinstance(request["command"], str) or not isinstance(request.get("value"), str | None):
            raise ValueError("command and value must be strings")
    elif not (numbers := request.keys() & {"look", "shown"}) or any(type(request[name]) is not int for name in numbers):
        raise ValueError("it needs a command, or the number of a source or frame")
    return request
