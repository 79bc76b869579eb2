"""--json: the events of a live demo on stdout, as JSON Lines."""

from __future__ import annotations

import json
import sys
import time
from typing import TextIO

from demos.live.result import FrameResult
from demos.live.summary import Summary

SCHEMA_VERSION = 1


class EventWriter:
    """Writes one JSON object per line, with `event` and `time_s` (seconds since the start). The summary comes last."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._started_s = time.perf_counter()

    def __call__(self, event: str, **fields: object) -> None:
        line = {"event": event, "time_s": round(time.perf_counter() - self._started_s, 6), **fields}
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()

    def frame(self, result: FrameResult) -> None:
        self("frame", source=result.source.name, **result.to_json())

    def summary(self, summary: Summary) -> None:
        self("summary", schema_version=SCHEMA_VERSION, **summary.to_json())
