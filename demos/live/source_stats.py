"""What came from one source: kept after it is gone, told to pages while it is there."""

from __future__ import annotations

from typing import Any

from demos.live.latency_window import LIVE_SAMPLES, LatencyWindow
from demos.live.sources.base import Frame, Source
from demos.live.summary import SourceSummary


class SourceStats:
    """Written by the loop's thread, read by any."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.reported_state = ""
        """The last state that was said aloud."""
        self._frames = self._width = self._height = self._dropped_before_pause = 0
        self._ages = LatencyWindow()

    def add(self, frame: Frame, age_ms: float | None) -> None:
        """A frame that is about to be answered; files' frames have no age."""
        self._height, self._width = frame.image.shape[:2]
        self._frames += 1
        if age_ms is not None:
            self._ages.add(age_ms)

    def pause(self) -> None:
        self._dropped_before_pause = self.source.dropped

    def resume(self) -> None:
        """Frames that passed by during a pause were not missed: nobody wanted them."""
        self.source.dropped = self._dropped_before_pause

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        source = self.source
        age = self._ages.summary(LIVE_SAMPLES)
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
        return SourceSummary(
            name=source.name,
            kind=source.kind,
            state=source.state,
            frames=self._frames,
            dropped=source.dropped,
            reconnects=source.reconnects,
            frame_age=self._ages.summary(),
            note=source.note,
        )
