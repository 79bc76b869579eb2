"""Choosing a display, and a real window on a virtual screen that shows images and returns keys."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import ImageGrab

from demos.live.dashboard import KEYS
from demos.live.window.display import DISPLAYS, Display, choose, why_no_window
from simplenet.errors import SimpleNetError
from tests.demos.conftest import ROOT

SCREEN_SIZE = "800x600x24"
COLOR = (200, 40, 90)

# Shows one image again and again, as without new frames, and prints each key. Ends with q or with its input.
LISTENER = f"""
import select, sys
import numpy as np
from demos.live.window.display import Window
with Window() as window:
    image = np.full((240, 320, 3), {COLOR}, np.uint8)
    print(repr(window.show(image)), flush=True)
    key = ""
    while key != "q" and not select.select([sys.stdin], [], [], 0.01)[0]:
        key = window.show(image)
        if key:
            print(key, flush=True)
print("closed", flush=True)
"""


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """The name of a virtual screen, ':99' or so."""
    with virtual_screen("-noreset") as name:
        yield name


@contextlib.contextmanager
def virtual_screen(*flags: str) -> Iterator[str]:
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", SCREEN_SIZE, "-nolisten", "tcp", *flags]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, pass_fds=(writer,)) as server:
        os.close(writer)
        with os.fdopen(reader) as announced:
            number = announced.readline().strip()
        try:
            yield f":{number}"
        finally:
            server.terminate()


class Listener:
    """The process of `LISTENER`, and its window."""

    def __init__(self, screen: str) -> None:
        self.environment = {**os.environ, "DISPLAY": screen}
        self.process = subprocess.Popen(
            [sys.executable, "-c", LISTENER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT, env=self.environment,
        )  # fmt: skip
        assert self.line() == "''"  # a window that is not open yet returns no key
        self.window = self.xdotool("search", "--sync", "--onlyvisible", "--name", "SimpleNet Edge")

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def xdotool(self, *arguments: str) -> str:
        command = ["xdotool", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()

    def press(self, key: str) -> str:
        self.xdotool("keydown", "--window", self.window, key)
        heard = self.line()
        if heard != "q":  # with q the window is gone
            self.xdotool("keyup", "--window", self.window, key)
        return heard


@pytest.fixture
def listener(screen: str) -> Iterator[Listener]:
    listener = Listener(screen)
    yield listener
    _, errors = listener.process.communicate(timeout=30)
    assert (listener.process.returncode, errors) == (0, "")


@pytest.mark.window
def test_real_window_shows_the_image_and_returns_every_key(screen: str, listener: Listener) -> None:
    colors: set[Any] = set()
    deadline = time.monotonic() + 20
    while COLOR not in colors and time.monotonic() < deadline:  # the window system draws it later
        seen = np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB"))
        colors = {tuple(color) for color in np.unique(seen.reshape(-1, 3), axis=0).tolist()}
    assert COLOR in colors
    assert COLOR[::-1] not in colors
    pressed = {"s": "s", "space": "space", "R": "r", "b": "b", "p": "p", "h": "h", "Escape": "escape"}
    assert [listener.press(key) for key in pressed] == list(pressed.values())
    assert set(pressed.values()) | {"q"} == {key.key for key in KEYS}
    assert listener.press("q") == "q"
    assert listener.line() == "closed"


@pytest.mark.window
def test_closing_a_real_window_is_the_key_q(screen: str, listener: Listener) -> None:
    ask_to_close(screen, int(listener.window))
    assert [listener.line(), listener.line()] == ["q", "closed"]


@pytest.mark.window
def test_auto_is_a_window_if_there_is_a_screen(screen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    logged: list[str] = []
    for kind, chosen in (("auto", "window"), ("window", "window"), ("browser", "browser"), ("none", "none")):
        assert choose(kind, lambda: None, logged.append) == chosen
    assert logged == []


@pytest.mark.window
@pytest.mark.parametrize("flag", ["-terminate", "-reset", "-noreset"])
def test_screen_without_other_clients_gets_a_window(flag: str) -> None:
    """A screen that ends, resets or stays when its last client leaves: the probe must not be that client."""
    script = f"""
import time
import numpy as np
from demos.live.window.display import Window, choose
assert choose("auto", str, print) == "window"
time.sleep(1)  # the models are loaded here
with Window() as window:
    for _ in range(5):
        window.show(np.full((240, 320, 3), {COLOR}, np.uint8))
print("shown", flush=True)
"""
    with virtual_screen(*[flag] if flag != "-reset" else []) as screen:
        environment = {**os.environ, "DISPLAY": screen}
        result = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )
    assert (result.returncode, result.stdout, result.stderr) == (0, "shown\n", "")


def ask_to_close(screen: str, window: int) -> None:
    """What a window manager sends when somebody clicks on the cross; a virtual screen has no window manager."""

    class ClientMessage(ctypes.Structure):
        _fields_ = [
            ("kind", ctypes.c_int), ("serial", ctypes.c_ulong), ("sent", ctypes.c_int), ("display", ctypes.c_void_p),
            ("window", ctypes.c_ulong), ("message", ctypes.c_ulong), ("format", ctypes.c_int),
            ("data", ctypes.c_long * 5), ("padding", ctypes.c_long * 24),
        ]  # fmt: skip

    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    display = ctypes.c_void_p(x11.XOpenDisplay(screen.encode()))
    protocols, delete = (x11.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
    message = ClientMessage(
        kind=33, window=window, message=protocols, format=32, data=(ctypes.c_long * 5)(delete, 0, 0, 0, 0)
    )
    x11.XSendEvent(display, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(message))
    x11.XCloseDisplay(display)


@pytest.mark.parametrize(("screen_name", "why"), [("", "DISPLAY is not set"), (":97", "cannot use the screen :97")])
def test_auto_is_the_page_or_none_without_a_screen(monkeypatch: pytest.MonkeyPatch, screen_name: str, why: str) -> None:
    monkeypatch.setenv("DISPLAY", screen_name)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    logged: list[str] = []
    assert choose("auto", lambda: None, logged.append) == "browser"
    assert choose("auto", lambda: "pip install '.[web]'", logged.append) == "none"
    assert ["browser page instead" in logged[0], "pip install '.[web]'" in logged[1]] == [True, True]
    assert all(why in line and "\n" not in line for line in logged)
    with pytest.raises(SimpleNetError, match=rf"{why}.*--display browser or --display none"):
        choose("window", lambda: None, logged.append)
    assert len(logged) == 2


def test_unavailable_page_is_an_error() -> None:
    with pytest.raises(SimpleNetError, match=r"pip install '.\[web\]'.*--display none"):
        choose("browser", lambda: "install it with: pip install '.[web]'", pytest.fail)
    assert choose("browser", lambda: None, pytest.fail) == "browser"


def test_display_none_tests_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    never: Callable[[], str | None] = lambda: pytest.fail("tested the page")  # noqa: E731
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a window was tried"))
    assert choose("none", never, pytest.fail) == "none"
    assert set(DISPLAYS) == {"auto", "window", "browser", "none"}


def test_screen_is_tested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":98")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    first = why_no_window()
    assert first is not None
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("tried again"))
    assert why_no_window() == first


def test_no_display_does_nothing() -> None:
    with Display() as display:
        assert (display.show(np.zeros((8, 8, 3), np.uint8)), display.shows_images) == ("", False)
