"""What both WebSockets need: to end one with a reason, and to send to a client that may have stopped reading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from simplenet.errors import one_line

SEND_TIMEOUT_S = 10.0
GOING_AWAY, UNSUPPORTED, UNUSABLE, POLICY, TOO_BIG, TRY_LATER = 1001, 1003, 1007, 1008, 1009, 1013

Drop = Callable[[WebSocket], None]
"""Cuts a connection whose client no longer reads: a polite close would wait in the same queue."""


async def send(websocket: WebSocket, message: str | bytes, drop: Drop) -> None:
    """Sends text or bytes.

    Raises:
        WebSocketDisconnect: the client is gone, or took nothing for `SEND_TIMEOUT_S` and was dropped.
    """
    sending = websocket.send_text(message) if isinstance(message, str) else websocket.send_bytes(message)
    try:
        await asyncio.wait_for(sending, SEND_TIMEOUT_S)
    except asyncio.TimeoutError:
        drop(websocket)
        raise WebSocketDisconnect(1006) from None
    except RuntimeError as error:  # the server closed it a moment ago, for a frame that is none
        raise WebSocketDisconnect(1006) from error


async def refuse(websocket: WebSocket, code: int, reason: str, drop: Drop) -> None:
    """Closes with a reason for the person; a close frame has room for 123 bytes of it."""
    text = one_line(reason).encode()[:120].decode(errors="ignore")
    try:
        await asyncio.wait_for(websocket.close(code, text), SEND_TIMEOUT_S)
    except asyncio.TimeoutError:
        drop(websocket)
    except (WebSocketDisconnect, RuntimeError, OSError):
        pass  # it was faster
