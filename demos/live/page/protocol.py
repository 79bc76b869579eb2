"""Messages, close codes and connection limits of the page's two WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from demos.live.result import FrameResult
from simplenet.errors import one_line

SEND_TIMEOUT_S = 10.0
MAX_REQUEST_CHARACTERS = 2_000
GOING_AWAY, UNSUPPORTED, UNUSABLE, POLICY, TOO_BIG, TRY_LATER = 1001, 1003, 1007, 1008, 1009, 1013


class Disconnect(Exception):
    """Close the WebSocket with this code and a reason, which the browser shows."""

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
            reason = one_line(error, 120).encode()[:123].decode(errors="ignore")  # the room in a close frame
            with contextlib.suppress(asyncio.TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
                await asyncio.wait_for(websocket.close(error.code, reason), SEND_TIMEOUT_S)
        except WebSocketDisconnect:
            pass

    async def _handle(self, websocket: WebSocket) -> None:
        raise NotImplementedError


async def send(websocket: WebSocket, message: dict[str, Any] | str | bytes) -> None:
    """Send bytes, text, or a dictionary as JSON.

    Raises:
        WebSocketDisconnect: the client left, or did not read for `SEND_TIMEOUT_S`.
    """
    if isinstance(message, dict):
        message = json.dumps(message)
    sending = websocket.send_text(message) if isinstance(message, str) else websocket.send_bytes(message)
    try:
        await asyncio.wait_for(sending, SEND_TIMEOUT_S)
    except (asyncio.TimeoutError, RuntimeError) as error:  # RuntimeError: already closed by uvicorn
        raise WebSocketDisconnect(1006) from error


def result_message(result: FrameResult) -> dict[str, Any]:
    """The result of one frame, the id of its source, and the frame's size in pixels; JSON-serializable."""
    height, width = result.frame.image.shape[:2]
    return {**result.to_json(), "source": result.source.id, "width": width, "height": height}


def parse_request(text: str | None) -> dict[str, Any]:
    """Parse a viewer's request: a JSON object with at least one of `command`, `look` and `shown`.

    `command` is the name of a command and `value` its argument, `look` is the id of the source to send, and `shown` is
    the number of the frame that the browser has drawn.

    Raises:
        Disconnect: the request is bytes (None), too long or not such an object.
    """
    if text is None:
        raise Disconnect(UNSUPPORTED, "text expected, not bytes")
    if len(text) > MAX_REQUEST_CHARACTERS:
        raise Disconnect(TOO_BIG, f"a request has at most {MAX_REQUEST_CHARACTERS} characters")
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Disconnect(UNUSABLE, f"not JSON: {error}") from None
    types = {"command": (str,), "value": (str, type(None)), "look": (int,), "shown": (int,)}
    if (
        not isinstance(request, dict)
        or not request.keys() & {"command", "look", "shown"}
        or any(type(value) not in types.get(name, ()) for name, value in request.items())
    ):
        raise Disconnect(UNUSABLE, "a request needs a 'command' (string), 'look' (source id) or 'shown' (frame number)")
    return request
