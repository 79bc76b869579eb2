"""The window on a screen, and which of window, browser page and no display is available here."""

from __future__ import annotations

import abc
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from demos.live.sources.opencv import opencv
from simplenet.errors import SimpleNetError, one_line

UInt8Array = npt.NDArray[np.uint8]

DISPLAYS = ("auto", "window", "browser", "none")
_TITLE = "SimpleNet Edge (h: help)"
_LARGEST_WINDOW = (1280, 960)
_PROBE = "import cv2, os; cv2.namedWindow('probe'); os._exit(0)"
_PROBE_TIMEOUT_S = 20
_NAMED_KEYS = {27: "escape", 32: "space"}


class Display(abc.ABC):
    """Shows images and returns pressed keys."""

    shows_images = True
    """If False, nothing needs to be drawn."""

    @abc.abstractmethod
    def show(self, image: UInt8Array) -> str:
        """Show RGB uint8 [H, W, 3]; returns the key pressed since the last call ('q', 'escape', 'space', ...) or ''.

        Call it a few times a second, with the last image if there is no new one: that keeps a window responsive.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close the window; may be called again."""

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NoDisplay(Display):
    """Shows nothing: without a screen, beside the browser page, and in measurements."""

    shows_images = False

    def show(self, image: UInt8Array) -> str:
        return ""

    def close(self) -> None:
        pass


class Window(Display):
    """An OpenCV window; it opens with the first image. Closing it counts as the key 'q'."""

    def __init__(self) -> None:
        self._cv2 = opencv()
        self._shown = False

    def show(self, image: UInt8Array) -> str:
        cv2 = self._cv2
        if not self._shown:
            height, width = image.shape[:2]
            scale = min(1.0, _LARGEST_WINDOW[0] / width, _LARGEST_WINDOW[1] / height)
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(_TITLE, max(1, round(width * scale)), max(1, round(height * scale)))
        elif self._was_closed():
            self._shown = False
            return "q"
        self._shown = True
        cv2.imshow(_TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.pollKey()
        if key < 0:
            return ""
        return _NAMED_KEYS.get(key & 0xFF) or chr(key & 0xFF).lower()

    def _was_closed(self) -> bool:
        try:
            return bool(self._cv2.getWindowProperty(_TITLE, self._cv2.WND_PROP_VISIBLE) < 1)
        except self._cv2.error:  # raised by Qt after its last window is gone
            return True

    def close(self) -> None:
        if self._shown:
            self._cv2.destroyAllWindows()
            self._cv2.pollKey()  # the window system closes it only while events are processed
            self._shown = False


def choose(
    kind: str, browser_available: Callable[[], str | None], log: Callable[[str], None]
) -> Literal["window", "browser", "none"]:
    """Resolve one of `DISPLAYS`: auto is a window if one can be opened, else the page, else none.

    Args:
        browser_available: returns None if the page can be served, else why not; called only if it matters.
        log: receives one line if auto cannot open a window.

    Raises:
        SimpleNetError: the requested display is not available.
    """
    if kind == "none":
        return "none"
    if kind == "browser":
        if (no_page := browser_available()) is not None:
            raise SimpleNetError(f"the browser page is not available here ({no_page}); or use --display none")
        return "browser"
    if (no_window := why_no_window()) is None:
        return "window"
    no_window = f"no window can be opened here ({no_window})"
    if kind == "window":
        raise SimpleNetError(f"{no_window}; use --display browser or --display none")
    if (no_page := browser_available()) is None:
        log(f"{no_window}; showing a browser page instead")
        return "browser"
    log(f"{no_window}, nor a browser page ({no_page}); running without a display")
    return "none"


def why_no_window() -> str | None:
    """None if a window can be opened, else the reason; tested once per screen, in about the time of an import."""
    screens = os.environ.get("DISPLAY", ""), os.environ.get("WAYLAND_DISPLAY", "")
    if sys.platform == "linux" and not any(screens):
        return "no screen: DISPLAY is not set"
    return _probe(screens)


@functools.cache
def _probe(screens: tuple[str, str]) -> str | None:
    """Open a window in a separate process, because OpenCV aborts the process if it fails."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the screen {' '.join(filter(None, screens))} did not respond within {_PROBE_TIMEOUT_S} s"
    except OSError as error:
        return one_line(error, 120)
    if probe.returncode < 0:  # aborted
        return f"OpenCV cannot use the screen {' '.join(filter(None, screens))}".rstrip()
    lines = probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"]
    return one_line(lines[-1], 120) if probe.returncode else None
