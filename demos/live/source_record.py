"""What came from one source: kept after it is gone, told to pages while it is there."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from demos.live.lineup import KEPT_SAMPLES
from demos.live.sources import Frame, Source
from demos.live.stopwatch import SourceSummary
from runtimes.timing import summarise

_LIVE_SAMPLES = 1_000


class SourceRecord:
    """Written by the loop's thread, read by any."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.told_state = ""
        """The last state that was said aloud."""
        self._frames = self._width = self._height = self._dropped_before_pause = 0
        self._ages_ms: deque[float] = deque(maxlen=KEPT_SAMPLES)
        self._lock = threading.Lock()

    def add(self, frame: Frame, age_ms: float | None) -> None:
        """A frame that is about to be answered; files' frames have no age."""
        self._height, self._width = frame.image.shape[:2]
        with self._lock:
            self._frames += 1
            if age_ms is not None:
                self._ages_ms.append(age_ms)

    def pause(self) -> None:
        self._dropped_before_pause = self.source.dropped

    def resume(self) -> None:
        """Frames that passed by during a pause were not missed: nobody wanted them."""
        self.source.dropped = self._dropped_before_pause

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        source = self.source
        with self._lock:
            latest_ms = list(self._ages_ms)[-_LIVE_SAMPLES:]
        age = summarise(latest_ms) if latest_ms else None
        return {
            "id": source.id,
            "name": source.name,
            "kind": source.kind,
            "is_live": source.is_live,
            "state": source.state,
            "note": source.note,
            "width": self._width,
            "height": self._height,
            "frames": self._frames,
            "dropped": source.dropped,
            "reconnects": source.reconnects,
            "frame_age_p50_ms": age and age.p50_ms,
            "frame_age_p90_ms": age and age.p90_ms,
        }

    def summary(self) -> SourceSummary:
        source = self.source
        with self._lock:
            ages_ms = list(self._ages_ms)
        return SourceSummary(
            name=source.name,
            kind=source.kind,
            state=source.state,
            frames=self._frames,
            dropped=source.dropped,
            reconnects=source.reconnects,
            frame_age=summarise(ages_ms) if ages_ms else None,
            note=source.note,
        )
