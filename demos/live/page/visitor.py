"""/visitor: JPEG in, the models' answers out, one frame at a time for each visitor."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from concurrent.futures import Executor
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from demos.live.page import jpeg, messages, sockets
from demos.live.page.viewer import Session
from demos.live.result import FrameResult
from demos.live.sources.base import Frame
from demos.live.sources.live import LiveSource
from simplenet.errors import ImageError
from simplenet.preprocessing import check_image

MOST_VISITORS = 4
MOST_PIXELS = 8_000_000
MOST_BYTES = 4 << 20
IDLE_S = 30.0
ANSWER_TIMEOUT_S = 3.0
_LEAST_FRAME_S = 1 / 60


class Visitors:
    """Everybody who brings a camera. `answered` is called by the loop's thread, everything else in the page's."""

    def __init__(self, session: Session, decoder: Executor, drop: sockets.Drop, most: int = MOST_VISITORS) -> None:
        self._session, self._decoder, self._drop, self._most = session, decoder, drop, most
        self._awaited: dict[int, _Awaited] = {}
        self._numbers = itertools.count(1)
        self._count = 0

    def answered(self, update: FrameResult) -> None:
        """An answer that came too late, or for a visitor who has left, is for nobody."""
        awaited = self._awaited.get(update.source.id)
        if awaited is not None and awaited.frame.captured_s == update.frame.captured_s:
            with contextlib.suppress(RuntimeError):  # the page has just closed
                awaited.loop.call_soon_threadsafe(awaited.resolve, update)

    async def serve(self, websocket: WebSocket) -> None:
        await websocket.accept()
        if self._count >= self._most:
            reason = f"{self._most} visitors show their cameras already; try again later"
            await sockets.refuse(websocket, sockets.TRY_LATER, reason, self._drop)
            return
        self._count += 1
        source = LiveSource(f"visitor {next(self._numbers)}", "visitor")
        self._session.scheduler.add(source)
        try:
            await self._send(websocket, {"type": "welcome", "source": source.id, "name": source.name})
            await self._serve(websocket, source)
        except WebSocketDisconnect:
            pass
        finally:
            self._count -= 1
            self._awaited.pop(source.id, None)
            self._session.scheduler.remove(source)

    async def _serve(self, websocket: WebSocket, source: LiveSource) -> None:
        while not source.has_ended:
            try:
                message = await asyncio.wait_for(websocket.receive(), IDLE_S)
            except asyncio.TimeoutError:
                await sockets.refuse(websocket, sockets.POLICY, f"no picture for {IDLE_S:g} s", self._drop)
                return
            arrived_s = time.perf_counter()
            if message["type"] == "websocket.disconnect":
                return
            content = message.get("bytes")
            if content is None:
                await sockets.refuse(websocket, sockets.UNSUPPORTED, "pictures expected, not text", self._drop)
                return
            loop = asyncio.get_running_loop()
            try:
                image = await loop.run_in_executor(self._decoder, jpeg.decode, content, MOST_PIXELS)
                check_image(image)
            except ImageError as error:
                await sockets.refuse(websocket, sockets.UNUSABLE, str(error), self._drop)
                return
            decode_ms = (time.perf_counter() - arrived_s) * 1e3
            # Nothing is read until this frame is answered: a flood waits at its own end, and costs no memory here.
            update = await self._answer(source, Frame(image, arrived_s))
            answer = messages.result(update) if update is not None else {"model_results": None}
            await self._send(websocket, {"type": "result", "decode_ms": decode_ms, **answer})
            await asyncio.sleep(_LEAST_FRAME_S - (time.perf_counter() - arrived_s))
        await sockets.refuse(websocket, sockets.GOING_AWAY, "the demo has ended", self._drop)

    async def _answer(self, source: LiveSource, frame: Frame) -> FrameResult | None:
        """None where the loop did not get to it in time: it is paused, or very busy."""
        awaited = self._awaited[source.id] = _Awaited(frame)
        source.push(frame.image, frame.captured_s)
        try:
            return await asyncio.wait_for(awaited.update, ANSWER_TIMEOUT_S)
        except asyncio.TimeoutError:
            source.poll()
            return None

    async def _send(self, websocket: WebSocket, message: dict[str, Any]) -> None:
        await sockets.send(websocket, json.dumps(message), self._drop)


class _Awaited:
    """A frame under way, and where its answer goes."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.loop = asyncio.get_running_loop()
        self.update: asyncio.Future[FrameResult] = self.loop.create_future()

    def resolve(self, update: FrameResult) -> None:
        if not self.update.done():
            self.update.set_result(update)
