"""Signals that end a program: Ctrl-C, SIGTERM, SIGHUP (its terminal has closed), and Ctrl-Break on Windows.

In the project's scripts, importing this module makes Ctrl-C one line without a traceback, also during later imports.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

_SIGNALS = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
_SCRIPT_FOLDERS = ("demos", "docs", "export", "train")
_stops: list[Callable[[str], object]] = []
"""The `stop` of each open `handled` block, the innermost last."""
_received: list[signal.Signals] = []
"""The signals since the outermost block began."""
_raised = False
"""Whether one of them has raised KeyboardInterrupt."""


def raised() -> bool:
    """Whether a signal has raised KeyboardInterrupt. Packages that are being imported turn it into other errors."""
    return _raised


def _interrupt(name: str = "") -> NoReturn:
    global _raised
    _raised = True
    raise KeyboardInterrupt


@contextlib.contextmanager
def handled(stop: Callable[[str], object] = _interrupt) -> Iterator[None]:
    """Call `stop` at the first signal, ignore the second, and raise KeyboardInterrupt at the third.

    A wrapper that forwards Ctrl-C, or an impatient user, sends the second while the program still writes its files.
    A signal that the parent process ignores stays ignored: SIGHUP under nohup, SIGINT in a script's background job.
    In a nested block, the inner `stop` is called. Outside the main thread, which gets all signals, nothing changes.

    Args:
        stop: gets 'Ctrl-C', 'SIGTERM', 'SIGHUP' or 'SIGBREAK'; by default it raises KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _raised
    before = {}
    if not _stops:
        for number in _SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: a handler of a C library
                before[number] = signal.signal(number, _handle)
    _stops.append(stop)
    try:
        yield
    finally:
        _stops.pop()
        for number, handler in before.items():
            signal.signal(number, handler)
        if not _stops:
            _received.clear()
            _raised = False


def _handle(number: int, frame: FrameType | None) -> None:
    _received.append(signal.Signals(number))
    if len(_received) == 1:
        _stops[-1](_name(_received[0]))
    elif len(_received) > 2 and number != getattr(signal, "SIGHUP", None):  # a closing terminal sends several SIGHUPs
        _interrupt()


def _name(number: signal.Signals) -> str:
    return "Ctrl-C" if number == signal.SIGINT else number.name


def end_interrupted() -> int:
    """Log that a signal ended the program, and return the exit code: 130 for Ctrl-C."""
    number = _received[0] if _received else signal.SIGINT
    by = "" if number == signal.SIGINT else f" by {number.name}"
    with contextlib.suppress(OSError):  # stderr is closed
        os.write(2, f"interrupted{by}; no incomplete file was kept\n".encode())
    return 128 + number


def ignore_all() -> None:
    """Ignore the signals. In the interpreter's last steps, they would change the exit code."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(end_interrupted())


_program = Path(getattr(sys.modules["__main__"], "__file__", None) or "/").resolve()
_is_script = _program.parent in [Path(__file__).resolve().parents[1] / name for name in _SCRIPT_FOLDERS]
if _is_script and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # The script now imports packages, for seconds. Some turn KeyboardInterrupt into another error.
    signal.signal(signal.SIGINT, _end_at_once)
