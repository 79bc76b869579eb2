"""Ctrl-C and SIGTERM in training: finish the current step and save the state before stopping."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from simplenet import cli


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; a second Ctrl-C raises KeyboardInterrupt at once.

    A Ctrl-C within one second of the first is ignored: terminal and launcher may both deliver the same one.
    """

    def __init__(self, logs: bool = False) -> None:
        self.is_set = False
        self._logs = logs
        self._since = 0.0

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        if not self.is_set:
            self.is_set, self._since = True, time.monotonic()
            if self._logs:
                cli.log("stopping after this step; press Ctrl-C again to quit without saving")
        elif signal_number == signal.SIGINT and time.monotonic() - self._since > 1:
            raise KeyboardInterrupt


@contextlib.contextmanager
def deferred(logs: bool) -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into a StopRequest; outside the main thread, do nothing."""
    request = StopRequest(logs)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
