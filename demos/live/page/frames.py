"""The newest frame of each source, encoded on demand, once for all viewers."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Any

from demos.live.page.protocol import result_message
from demos.live.result import FrameResult
from demos.live.sources.opencv import opencv
from simplenet.preprocessing import UInt8Array

Encoded = tuple[dict[str, Any], bytes]

_LONGEST_SIDE = 1280  # the page shows no more pixels, and encoding 4K would take CPU time from the models


class FrameEncoder:
    """The session's thread calls `put`; the page's thread calls everything else."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._newest: dict[int, FrameResult] = {}
        self._encoded: dict[int, tuple[FrameResult, asyncio.Future[Encoded]]] = {}
        self._waiting: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def put(self, result: FrameResult) -> None:
        """Keep `result` as the newest of its source, and wake the viewers that wait for a frame."""
        self._newest[result.source.id] = result
        if self._waiting and self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)

    def newest(self, source_id: int) -> FrameResult | None:
        return self._newest.get(source_id)

    def wait(self, event: asyncio.Event) -> None:
        """Set `event` at the next frame of any source. Call this before `newest`, so that no frame is missed."""
        self._loop = asyncio.get_running_loop()
        self._waiting.add(event)

    def stop_waiting(self, event: asyncio.Event) -> None:
        self._waiting.discard(event)

    async def encode(self, result: FrameResult) -> Encoded:
        """The "frame" message of `result` and its JPEG, encoded in the executor and shared by all viewers."""
        known = self._encoded.get(result.source.id)
        if known is None or known[0] is not result:
            known = result, asyncio.get_running_loop().run_in_executor(self._executor, _encode, result)
            self._encoded[result.source.id] = known
        return await asyncio.shield(known[1])  # a viewer that leaves must not cancel it for the others

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for event in waiting:
            event.set()


def encode_jpeg(image: UInt8Array) -> bytes:
    """Encode RGB uint8 [H, W, 3] as JPEG of at most 1280 pixels a side."""
    cv2 = opencv()
    height, width = image.shape[:2]
    scale = _LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return bytes(content)


def _encode(result: FrameResult) -> Encoded:
    jpeg = encode_jpeg(result.frame.image)
    return {"type": "frame", "jpeg_bytes": len(jpeg), **result_message(result)}, jpeg
