"""A status line on stderr, updated a few times per second if stderr is a terminal."""

from __future__ import annotations

import contextlib
import sys
import time

from demos.live.result import FrameResult
from demos.live.session import Session
from simplenet import cli
from simplenet.errors import one_line

_INTERVAL_S = 0.25


class StatusLine:
    """Subscribe `update` to a session, and call `clear` before other output."""

    def __init__(self, session: Session) -> None:
        self._console = cli.console()
        self._session = session
        self._next_s = 0.0

    def update(self, result: FrameResult) -> None:
        now_s = time.perf_counter()
        if not self._console.is_terminal or now_s < self._next_s:
            return
        self._next_s = now_s + _INTERVAL_S
        top = result.model_results[0].predictions[0]
        line = f"{result.source.name}: frame {result.number}, {self._session.timer.recent_fps():.0f} FPS, "
        line += f"{top.label} {100 * top.probability:.1f} %"
        self._write(one_line(line, self._console.width - 1))

    def clear(self) -> None:
        if self._next_s:
            self._write("")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal must not prevent the summary, which may go to a file
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
