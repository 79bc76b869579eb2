"""The newest picture of every source of this machine, encoded when somebody looks, once for everybody who does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from demos.live.page import jpeg, messages
from demos.live.result import FrameResult

LONGEST_SIDE = 1280
"""Larger pictures are scaled down for the page: it shows no more, and encoding 4K would take the models' time."""


class FrameEncoder:
    """`put` is called by the loop's thread, everything else in the page's."""

    def __init__(self, encoder: Executor) -> None:
        self._encoder = encoder
        self._newest: dict[int, FrameResult] = {}
        self._messages: dict[int, tuple[FrameResult, asyncio.Future[bytes]]] = {}
        self._waiting: set[asyncio.Event] = set()
        self._is_waking = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.encoded = 0
        """How many pictures have been encoded so far."""

    def put(self, update: FrameResult) -> None:
        """Costs a dictionary entry while nobody waits."""
        self._newest[update.source.id] = update
        if self._waiting and not self._is_waking and self.loop is not None:
            self._is_waking = True
            self.loop.call_soon_threadsafe(self._wake)

    def newest(self, source: int) -> FrameResult | None:
        return self._newest.get(source)

    def wait(self, event: asyncio.Event) -> Callable[[], None]:
        """`event` is set at the next picture of whatever source. Ask for `newest` after this, not before."""
        self._waiting.add(event)
        return lambda: self._waiting.discard(event)

    async def message(self, update: FrameResult) -> bytes:
        """`messages.picture` of this update; several viewers share the work and the bytes."""
        key = update.source.id
        known = self._messages.get(key)
        if known is None or known[0] is not update:
            loop = asyncio.get_running_loop()
            known = update, loop.run_in_executor(self._encoder, _message, update)
            self._messages[key] = known
            self.encoded += 1
        return await asyncio.shield(known[1])  # one viewer that leaves must not take it from the others

    def _wake(self) -> None:
        self._is_waking = False
        waiting, self._waiting = self._waiting, set()
        for event in waiting:
            event.set()


def _message(update: FrameResult) -> bytes:
    content, width, height = jpeg.encode(update.frame.image, LONGEST_SIDE)
    head: dict[str, Any] = {**messages.result(update), "shown_width": width, "shown_height": height}
    return messages.picture(head, content)
