"""Statistics of one source: its state for window and page, and its part of the summary."""

from __future__ import annotations

from typing import Any

from demos.live.sources.base import Frame, Source
from demos.live.stage_timer import LIVE_SAMPLES, LatencyWindow
from demos.live.summary import SourceSummary
from simplenet.preprocessing import Preprocessing, crop_geometry


class SourceStats:
    """Frame count, frame size and frame age of one source. Written by the loop's thread, read by any."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.reported_state = ""
        """The state that was logged last."""
        self._frames = self._width = self._height = self._dropped_before_pause = 0
        self._ages = LatencyWindow()

    @property
    def is_former_visitor(self) -> bool:
        return self.source.kind == "visitor" and self.source.has_ended

    def add(self, frame: Frame, age_ms: float | None) -> None:
        """Count a processed frame. `age_ms` is None for files."""
        self._height, self._width = frame.image.shape[:2]
        self._frames += 1
        if age_ms is not None:
            self._ages.add(age_ms)

    def pause(self) -> None:
        self._dropped_before_pause = self.source.dropped

    def resume(self) -> None:
        """Forget the frames that were dropped during the pause."""
        self.source.dropped = self._dropped_before_pause

    def state(self, preprocessing: Preprocessing) -> dict[str, Any]:
        """The state for window and page, JSON-serializable. `crop` is what a model with `preprocessing` sees."""
        age = self._ages.summary(LIVE_SAMPLES)
        size = self._width, self._height
        box = crop_geometry(*size, preprocessing).box if self._frames else None
        fields = ("id", "name", "kind", "is_live", "state", "note", "dropped", "reconnects")
        return {
            **{field: getattr(self.source, field) for field in fields},
            "width": self._width,
            "height": self._height,
            "crop": box and [round(edge / side, 4) for edge, side in zip(box, size * 2, strict=True)],
            "frames": self._frames,
            "frame_age_p50_ms": age and age.p50_ms,
            "frame_age_p90_ms": age and age.p90_ms,
        }

    def summary(self) -> SourceSummary:
        fields = ("name", "kind", "state", "note", "dropped", "reconnects")
        shared = {field: getattr(self.source, field) for field in fields}
        return SourceSummary(**shared, frames=self._frames, frame_age=self._ages.summary())
