"""The window on a screen, and which of window, browser page and no display is available here."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Literal

from PIL import ImageGrab

from demos.live.sources.opencv import opencv
from simplenet.errors import SimpleNetError, one_line
from simplenet.preprocessing import UInt8Array

DISPLAYS = ("auto", "window", "browser", "none")
_TITLE = "SimpleNet Edge (h: help)"
_LARGEST_WINDOW = (1280, 960)
_PROBE = """
import cv2, os, sys
cv2.namedWindow("probe"); cv2.destroyAllWindows(); cv2.pollKey()
print("opened", flush=True); sys.stdin.read(); os._exit(0)
"""
_PROBE_TIMEOUT_S = 20
_OPEN_ATTEMPTS, _DRAW_TIMEOUT_S = 6, 0.5
_NAMED_KEYS = {27: "escape", 32: "space"}
_open_probes = contextlib.ExitStack()
atexit.register(_open_probes.close)


class Display(contextlib.AbstractContextManager["Display"]):
    """Shows images and returns pressed keys. This base class shows nothing: for the page and for --display none."""

    shows_images = False
    """If False, nothing needs to be drawn."""

    def show(self, image: UInt8Array) -> str:
        """Show RGB uint8 [H, W, 3]; returns the key pressed since the last call ('q', 'escape', 'space', ...) or ''.

        Call it a few times a second, with the last image if there is no new one: that keeps a window responsive.
        """
        return ""

    def close(self) -> None:
        """Close the window; may be called again."""

    def __exit__(self, *_: object) -> None:
        self.close()


class Window(Display):
    """An OpenCV window; it opens with the first image. Closing it counts as the key 'q'."""

    shows_images = True

    def __init__(self) -> None:
        self._cv2 = opencv()
        self._shown = False

    def show(self, image: UInt8Array) -> str:
        cv2 = self._cv2
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if not self._shown:
            self._open(bgr)
        elif self._was_closed():
            self._shown = False
            return "q"
        self._shown = True
        cv2.imshow(_TITLE, bgr)
        key = cv2.pollKey()
        if key < 0:
            return ""
        return _NAMED_KEYS.get(key & 0xFF) or chr(key & 0xFF).lower()

    def _open(self, bgr: UInt8Array) -> None:
        """Open the window and show the first image; open it again if it stays black.

        Qt 5.15 on X11 sometimes does not process the event that the window is mapped (MapNotify), and then never draws
        it: 38 of 90 runs on two busy cores, and 0 of 24 runs with this check.
        """
        cv2, (height, width) = self._cv2, bgr.shape[:2]
        scale = min(1.0, _LARGEST_WINDOW[0] / width, _LARGEST_WINDOW[1] / height)
        for _ in range(_OPEN_ATTEMPTS):
            cv2.destroyAllWindows()
            cv2.pollKey()
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(_TITLE, max(1, round(width * scale)), max(1, round(height * scale)))
            cv2.imshow(_TITLE, bgr)
            if self._is_drawn():
                break
        _open_probes.close()

    def _is_drawn(self) -> bool:
        """Wait until the window is not black on the screen, at most `_DRAW_TIMEOUT_S`; True if that cannot be seen."""
        screen = os.environ.get("DISPLAY")
        if sys.platform != "linux" or not screen or "WAYLAND_DISPLAY" in os.environ:
            return True
        deadline_s = time.monotonic() + _DRAW_TIMEOUT_S
        while time.monotonic() < deadline_s:
            self._cv2.pollKey()
            try:
                left, top, width, height = self._cv2.getWindowImageRect(_TITLE)
                if ImageGrab.grab((left, top, left + width, top + height), xdisplay=screen).convert("RGB").getbbox():
                    return True
            except (OSError, ValueError, self._cv2.error):  # Pillow cannot read the screen, or the window was closed
                return True
            time.sleep(0.02)
        return False

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
    """Return None if a window can be opened, else the reason. Each screen is tested once; that takes about a second."""
    screens = os.environ.get("DISPLAY", ""), os.environ.get("WAYLAND_DISPLAY", "")
    if sys.platform == "linux" and not any(screens):
        return "no screen: DISPLAY is not set"
    return _probe(screens)


@functools.cache
def _probe(screens: tuple[str, str]) -> str | None:
    """Open a window in a separate process, because OpenCV aborts the process if it fails.

    That process stays until this one has a window, because an X server resets or ends when its last client leaves.
    """
    command, screen = [sys.executable, "-c", _PROBE], " ".join(filter(None, screens))
    pipe = subprocess.PIPE
    try:
        probe = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace")
    except OSError as error:
        return one_line(error, 120)
    deadline_s = time.monotonic() + _PROBE_TIMEOUT_S
    timer = threading.Timer(_PROBE_TIMEOUT_S, probe.kill)
    timer.start()
    assert probe.stdout is not None
    is_open = probe.stdout.readline() != ""
    timer.cancel()
    if is_open:
        _open_probes.callback(probe.communicate)  # closes its stdin, which ends it
        return None
    _, errors = probe.communicate()
    if time.monotonic() > deadline_s:
        return f"the screen {screen} did not respond within {_PROBE_TIMEOUT_S} s"
    if probe.returncode < 0:  # aborted
        return f"OpenCV cannot use the screen {screen}".rstrip()
    lines = errors.strip().splitlines() or [f"exit code {probe.returncode}"]
    return one_line(lines[-1], 120)
