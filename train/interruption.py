"""Ctrl-C and `kill` in training: noticed at once, obeyed after the step, so that what is saved is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """`wanted` becomes True at the first Ctrl-C or SIGTERM; a second Ctrl-C interrupts whatever runs."""

    def __init__(self) -> None:
        self.wanted = False

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        if self.wanted and signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        self.wanted = True


@contextlib.contextmanager
def deferred() -> Iterator[StopRequest]:
    """Within it, signals only ask. Outside the main thread nothing changes: Python delivers none there."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
