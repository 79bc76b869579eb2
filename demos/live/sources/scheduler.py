"""Several sources, served in turn: one that floods starves no other, one that is dead stops no other.

scheduler = SourceScheduler()
scheduler.add(open_source("0"))
while not scheduler.all_ended:
    if (served := scheduler.next(timeout_s=0.1)) is not None:
        source, frame = served
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable

from demos.live.sources.base import Frame, Source
from simplenet.errors import SourceError


class SourceScheduler:
    """Any thread may add and remove sources and wake; one thread calls `next`."""

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        self.changed = threading.Condition()
        self._waiting: list[Source] = []  # the one that was served longest ago comes first
        self._added = 0
        self._woken = self._closed = False
        for source in sources:
            self.add(source)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Those that are here now, in the order in which they came."""
        with self.changed:
            return tuple(sorted(self._waiting, key=lambda source: source.id))

    @property
    def all_ended(self) -> bool:
        """Whether no frame will come any more. Not so while there is no source at all: a visitor may bring one."""
        with self.changed:
            ended = [source.has_ended and source.ready_at_s() == math.inf for source in self._waiting]
            return self._closed or (bool(ended) and all(ended))

    def add(self, source: Source) -> None:
        """Serves it from now on, and gives it its `id`. After `close`, the source is closed at once."""
        with self.changed:
            closed = self._closed
            if not closed and source not in self._waiting:
                source.id = self._added
                self._added += 1
                self._waiting.append(source)
                source.subscribe(self.changed)
                self.changed.notify_all()
        if closed:
            source.close()

    def remove(self, source: Source) -> None:
        """Closes it and forgets it; harmless where it is not here any more."""
        with self.changed:
            self._waiting = [other for other in self._waiting if other is not source]
            self.changed.notify_all()
        source.close()

    def next(self, timeout_s: float) -> tuple[Source, Frame] | None:
        """The next frame of whichever source has one; None after `timeout_s`, when woken, and when all have ended.

        A source that fails raises nothing here: its `state` and `note` tell.
        """
        deadline_s = time.perf_counter() + timeout_s
        while True:
            with self.changed:
                source = self._ready_source(deadline_s)
            if source is None:
                return None
            try:
                frame = source.poll()  # outside the lock: a file is decoded here
            except SourceError:  # it says so itself
                continue
            if frame is not None:
                return source, frame

    def wake(self) -> None:
        """Makes a waiting `next` return at once, or the next one that would have to wait."""
        with self.changed:
            self._woken = True
            self.changed.notify_all()

    def close(self) -> None:
        """Closes all sources, in the time that the slowest takes."""
        with self.changed:
            self._closed = True
            sources, self._waiting = self._waiting, []
            self.changed.notify_all()
        for source in sources:
            source.request_stop()
        for source in sources:
            source.close()

    def _ready_source(self, deadline_s: float) -> Source | None:
        """Waits for one that has a frame, and puts it at the end of the queue."""
        while True:
            now_s, soonest_s = time.perf_counter(), math.inf
            for source in self._waiting:
                due_s = source.ready_at_s()
                if due_s <= now_s:
                    self._waiting.remove(source)
                    self._waiting.append(source)
                    self._woken = False
                    return source
                soonest_s = min(soonest_s, due_s)
            woken, self._woken = self._woken, False
            if woken or now_s >= deadline_s or self.all_ended:
                return None
            self.changed.wait(min(soonest_s, deadline_s) - now_s)
