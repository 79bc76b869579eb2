"""What a live demo reports while it runs: --json events on stdout, and a status line on stderr."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from demos.live.dashboard import percent
from demos.live.result import FrameResult
from simplenet import cli
from simplenet.errors import one_line

if TYPE_CHECKING:
    from demos.live.session import Session

_STATUS_EVERY_S = 0.25


class EventWriter:
    """Writes events to stdout as JSON Lines, with `event` and `time_s` (seconds since the start)."""

    def __init__(self) -> None:
        self._stream = sys.stdout  # an export redirects sys.stdout
        self._started_s = time.perf_counter()

    def __call__(self, event: str, **fields: object) -> None:
        line = {"event": event, "time_s": round(time.perf_counter() - self._started_s, 6), **fields}
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()

    def frame(self, result: FrameResult) -> None:
        self("frame", source=result.source.name, **result.to_json())


class StatusLine:
    """A line on stderr, if it is a terminal. Subscribe `update` to a session; call `clear` before other output."""

    def __init__(self, session: Session) -> None:
        self._console, self._session, self._next_s = cli.console(), session, 0.0

    def update(self, result: FrameResult) -> None:
        now_s = time.perf_counter()
        if self._console.is_terminal and now_s >= self._next_s:
            self._next_s = now_s + _STATUS_EVERY_S
            top, fps = result.model_results[0].predictions[0], self._session.timer.recent_fps()
            counts = f"{result.source.name}: frame {result.number}, {fps:.0f} FPS"
            self._write(one_line(f"{counts}, {top.label} {percent(top.probability)}", self._console.width - 1))

    def clear(self) -> None:
        if self._next_s:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
