"""One line on stderr that says what is seen, a few times a second; nothing where stderr is not a terminal."""

from __future__ import annotations

import contextlib
import sys
import time

from demos.live.result import FrameResult
from demos.live.session import Session
from simplenet import cli
from simplenet.errors import one_line

_EVERY_S = 0.25


class StatusLine:
    """Use it as a context manager, or call `clear` before anything else is printed."""

    def __init__(self, session: Session) -> None:
        self._console = cli.console()
        self._session = session
        self._next_s = 0.0

    def update(self, update: FrameResult) -> None:
        now_s = time.perf_counter()
        if not self._console.is_terminal or now_s < self._next_s:
            return
        self._next_s = now_s + _EVERY_S
        best = update.model_results[0].predictions[0]
        line = f"{update.source.name}: frame {update.number}, {self._session.timer.recent_fps():.0f} FPS, "
        line += f"{best.label} {100 * best.probability:.1f} %"
        self._write(one_line(line, self._console.width - 1))

    def clear(self) -> None:
        if self._next_s:
            self._write("")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone, and the summary may go elsewhere
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
