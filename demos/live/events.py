"""--json: what happens in a live demo, as one JSON object a line on stdout, the moment it happens."""

from __future__ import annotations

import json
import sys
import time
from typing import TextIO

from demos.live.result import FrameResult
from demos.live.summary import Summary

SCHEMA_VERSION = 1


class EventWriter:
    """Every line has `event` and `time_s`, seconds since the first one. The last one is the summary."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._started_s = time.perf_counter()

    def __call__(self, event: str, **facts: object) -> None:
        line = {"event": event, "time_s": round(time.perf_counter() - self._started_s, 6), **facts}
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()

    def frame(self, update: FrameResult) -> None:
        self("frame", source=update.source.name, **update.to_json())

    def summary(self, summary: Summary) -> None:
        self("summary", schema_version=SCHEMA_VERSION, **summary.to_json())
