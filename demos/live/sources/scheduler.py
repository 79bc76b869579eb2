"""Round-robin over several sources. A fast source does not starve the others, and a failing one does not affect them.

scheduler = SourceScheduler()
scheduler.add(open_source("0"))
while not scheduler.all_ended:
    if (received := scheduler.next(timeout_s=0.1)) is not None:
        source, frame = received
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterable

from demos.live.sources.base import Frame, Source


class SourceScheduler:
    """Sources in round-robin order. Only one thread may call `next`; every other method is thread-safe."""

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        self.changed = threading.Condition()
        self._queue: list[Source] = []  # least recently served first
        self._ids = itertools.count()
        self._woken = self._closed = False
        for source in sources:
            self.add(source)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The current sources, in the order in which they were added."""
        with self.changed:
            return tuple(sorted(self._queue, key=lambda source: source.id))

    @property
    def all_ended(self) -> bool:
        """Whether no more frames will come. False while there are no sources: a visitor may add one."""
        with self.changed:
            ended = [source.has_ended and source.ready_at_s() == math.inf for source in self._queue]
            return self._closed or (bool(ended) and all(ended))

    def add(self, source: Source) -> None:
        """Add a source and set its `id`. After `close`, the source is closed instead."""
        with self.changed:
            if not self._closed:
                source.id = next(self._ids)
                self._queue.append(source)
                source.subscribe(self.changed)
                self.changed.notify_all()
                return
        source.close()

    def remove(self, source: Source) -> None:
        """Remove a source and close it. Idempotent."""
        with self.changed:
            self._queue = [other for other in self._queue if other is not source]
            self.changed.notify_all()
        source.close()

    def next(self, timeout_s: float) -> tuple[Source, Frame] | None:
        """Wait for a frame of any source; None after `timeout_s`, after `wake`, and when all sources have ended."""
        deadline_s = time.perf_counter() + timeout_s
        while True:
            with self.changed:
                source = self._wait_for_source(deadline_s)
            if source is None:
                return None
            frame = source.poll()  # outside the lock, because a file is decoded here
            if frame is not None:
                return source, frame

    def wake(self) -> None:
        """Make a waiting `next` return at once; if none is waiting, the following one does."""
        with self.changed:
            self._woken = True
            self.changed.notify_all()

    def close(self) -> None:
        """Close all sources. All are signaled to stop first, so it takes as long as the slowest one."""
        with self.changed:
            self._closed = True
            sources, self._queue = self._queue, []
            self.changed.notify_all()
        for source in sources:
            source.request_stop()
        for source in sources:
            source.close()

    def _wait_for_source(self, deadline_s: float) -> Source | None:
        """Wait until a source has a frame, and move it to the end of the queue."""
        while True:
            now_s, soonest_s = time.perf_counter(), math.inf
            for source in self._queue:
                ready_at_s = source.ready_at_s()
                if ready_at_s <= now_s:
                    self._queue.remove(source)
                    self._queue.append(source)
                    self._woken = False
                    return source
                soonest_s = min(soonest_s, ready_at_s)
            woken, self._woken = self._woken, False
            if woken or now_s >= deadline_s or self.all_ended:
                return None
            self.changed.wait(min(soonest_s, deadline_s) - now_s)
