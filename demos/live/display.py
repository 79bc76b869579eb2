"""Where pictures go: a window, or nowhere."""

from __future__ import annotations

import abc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from demos.live.opencv import opencv
from simplenet.errors import SimpleNetError, one_line

UInt8Array = npt.NDArray[np.uint8]

DISPLAYS = ("auto", "window", "none")
_TITLE = "SimpleNet Edge"
_PROBE = "from demos.live.opencv import opencv; cv2 = opencv(); cv2.namedWindow('probe'); cv2.pollKey()"
_PROBE_TIMEOUT_S = 20


class Display(abc.ABC):
    """Shows pictures and hears keys."""

    shows_pictures = True
    """Where this is False, nothing needs to be drawn either."""

    @abc.abstractmethod
    def show(self, image: UInt8Array) -> str:
        """Takes RGB uint8 [H, W, 3]; returns the key pressed since the last picture ('q', 'escape', ...) or ''."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of the window; harmless the second time."""

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NoDisplay(Display):
    """For machines without a screen, and for measuring."""

    shows_pictures = False

    def show(self, image: UInt8Array) -> str:
        return ""

    def close(self) -> None:
        pass


class Window(Display):
    """An OpenCV window. Closing it counts as the key 'q'."""

    def __init__(self) -> None:
        self._cv2 = opencv()
        self._shown = False

    def show(self, image: UInt8Array) -> str:
        cv2 = self._cv2
        if not self._shown:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(_TITLE, min(image.shape[1], 1280), min(image.shape[0], 960))
        elif self._was_closed():
            self._shown = False
            return "q"
        self._shown = True
        cv2.imshow(_TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.pollKey()
        return "escape" if key & 0xFF == 27 else chr(key & 0xFF) if key >= 0 else ""

    def _was_closed(self) -> bool:
        try:
            return bool(self._cv2.getWindowProperty(_TITLE, self._cv2.WND_PROP_VISIBLE) < 1)
        except self._cv2.error:  # Qt's answer once its last window is gone
            return True

    def close(self) -> None:
        if self._shown:
            self._cv2.destroyAllWindows()
            self._cv2.pollKey()  # the window system closes it only while events are handled
            self._shown = False


def open_display(kind: str, say: Callable[[str], None]) -> Display:
    """'window', 'none', or with 'auto' a window where one can be had, else none, said in one line.

    Raises:
        SimpleNetError: a window was asked for, and none can be opened here.
    """
    if kind == "none":
        return NoDisplay()
    reason = why_no_window()
    if reason is None:
        return Window()
    if kind == "window":
        raise SimpleNetError(f"no window can be opened here ({reason}); use --display none")
    say(f"no window can be opened here ({reason}); running without one")
    return NoDisplay()


def why_no_window() -> str | None:
    """None where a window can be opened. Tried in a process of its own: OpenCV aborts the one that tries in vain."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not screen:
        return "there is no screen: DISPLAY is not set"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return one_line(error, 120)
    if probe.returncode < 0:  # aborted
        return f"OpenCV cannot use the screen {screen or ''}".rstrip()
    last_words = probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"]
    return one_line(last_words[-1], 120) if probe.returncode else None
