"""Ctrl-C and `kill` in training: noticed at once, obeyed after the step, so that what is saved is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from simplenet import cli


class StopRequest:
    """`wanted` becomes True at the first Ctrl-C or SIGTERM; another Ctrl-C, a second later, interrupts whatever runs.

    Not at once: a terminal and a launcher may both pass on the same Ctrl-C. One that `speaks` says that it has heard,
    for a step may be long.
    """

    def __init__(self, speaks: bool = False) -> None:
        self.wanted = False
        self._speaks = speaks
        self._since = 0.0

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        if not self.wanted:
            self.wanted, self._since = True, time.monotonic()
            if self._speaks:
                cli.log("stopping after this step; another Ctrl-C gives up what has been trained since the last save")
        elif signal_number == signal.SIGINT and time.monotonic() - self._since > 1:
            raise KeyboardInterrupt


@contextlib.contextmanager
def deferred(speaks: bool) -> Iterator[StopRequest]:
    """Within it, signals only ask. Outside the main thread nothing changes: Python delivers none there."""
    request = StopRequest(speaks)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
