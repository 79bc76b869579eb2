"""The /visitor WebSocket: receives a camera's frames as JPEG, returns the models' results, one frame at a time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket

from demos.live.page import protocol
from demos.live.page.protocol import Disconnect
from demos.live.result import FrameResult
from demos.live.sources.base import LiveSource
from simplenet.errors import ImageError
from simplenet.images import decode_rgb
from simplenet.preprocessing import UInt8Array

if TYPE_CHECKING:
    from demos.live.session import Session

MAX_VISITORS = 4
MAX_PIXELS = 8_000_000
MAX_BYTES = 4 << 20
IDLE_TIMEOUT_S = 10.0
RESULT_TIMEOUT_S = 3.0
_MIN_FRAME_S = 1 / 60


class Visitors(protocol.Endpoint):
    """The /visitor endpoint. The session's thread calls `deliver`; the page's thread calls everything else."""

    def __init__(self, session: Session, executor: Executor) -> None:
        super().__init__(MAX_VISITORS)
        self._session, self._executor = session, executor
        self._pending: dict[int, tuple[float, asyncio.Future[FrameResult]]] = {}
        """By source id: the capture time of the frame being classified, and the future of its result."""
        self._numbers = itertools.count(1)

    def deliver(self, result: FrameResult) -> None:
        """Pass a result to its visitor. Discards it if it is late or the visitor has left."""
        captured_s, future = self._pending.get(result.source.id, (None, None))
        if future is not None and captured_s == result.frame.captured_s:
            with contextlib.suppress(RuntimeError):  # the page has just closed
                future.get_loop().call_soon_threadsafe(_set_result, future, result)

    async def _handle(self, websocket: WebSocket) -> None:
        source = LiveSource(f"visitor {next(self._numbers)}", "visitor")
        self._session.scheduler.add(source)
        try:
            await protocol.send(websocket, {"type": "welcome", "source": source.id, "name": source.name})
            await self._classify_frames(websocket, source)
        finally:
            self._pending.pop(source.id, None)
            self._session.scheduler.remove(source)

    async def _classify_frames(self, websocket: WebSocket, source: LiveSource) -> None:
        while not source.has_ended:
            try:
                message = await asyncio.wait_for(websocket.receive(), IDLE_TIMEOUT_S)
            except asyncio.TimeoutError:
                raise Disconnect(protocol.POLICY, f"no frame for {IDLE_TIMEOUT_S:g} s") from None
            received_s = time.perf_counter()
            if message["type"] == "websocket.disconnect":
                return
            if (content := message.get("bytes")) is None:
                raise Disconnect(protocol.UNSUPPORTED, "images expected, not text")
            try:
                image = await asyncio.get_running_loop().run_in_executor(self._executor, decode_frame, content)
            except ImageError as error:
                raise Disconnect(protocol.UNUSABLE, str(error)) from None
            decode_ms = (time.perf_counter() - received_s) * 1e3
            # Nothing is read before this frame has its result, so a flood of frames fills the client's own buffers.
            result = await self._classify(source, image, received_s)
            fields = protocol.result_message(result) if result is not None else {"model_results": None}
            await protocol.send(websocket, {"type": "result", "decode_ms": decode_ms, **fields})
            await asyncio.sleep(_MIN_FRAME_S - (time.perf_counter() - received_s))
        raise Disconnect(protocol.GOING_AWAY, "the demo has ended")

    async def _classify(self, source: LiveSource, image: UInt8Array, captured_s: float) -> FrameResult | None:
        """Return the result, or None after `RESULT_TIMEOUT_S`, if the session is paused or too busy."""
        future: asyncio.Future[FrameResult] = asyncio.get_running_loop().create_future()
        self._pending[source.id] = captured_s, future
        source.push(image, captured_s)
        try:
            return await asyncio.wait_for(future, RESULT_TIMEOUT_S)
        except asyncio.TimeoutError:
            source.poll()
            return None


def decode_frame(content: bytes) -> UInt8Array:
    """Decode a visitor's JPEG to RGB uint8 [H, W, 3]; raises ImageError for anything else or more than `MAX_PIXELS`."""
    if not content:
        raise ImageError("the frame is empty; send a JPEG")
    return decode_rgb(content, formats=("JPEG",), max_pixels=MAX_PIXELS)


def _set_result(future: asyncio.Future[FrameResult], result: FrameResult) -> None:
    if not future.done():
        future.set_result(result)
