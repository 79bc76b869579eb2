"""A tab of Chromium that collects its errors and requests; the fixture `open_tab` opens them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")

in_chromium = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; sudo apt install chromium"),
]

FLAGS = ["--no-sandbox", "--disable-gpu"]
ALLOWED = "--use-fake-ui-for-media-stream"
FAKE = "--use-fake-device-for-media-stream"

OpenTab = Callable[..., Any]


class Tab:
    """A tab, with its console errors, page errors and requests."""

    def __init__(self, view: Any) -> None:
        self.view = view
        self.complaints: list[str] = []
        self.requests: list[str] = []
        view.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        view.on("pageerror", lambda error: self.complaints.append(str(error)))
        view.on("request", lambda request: self.requests.append(request.url))
        view.on("websocket", lambda websocket: self.requests.append(websocket.url))

    def pixel(self) -> list[int]:
        """The middle pixel of the shown image, RGB."""
        script = "c => [...c.getContext('2d').getImageData(c.width >> 1, c.height >> 1, 1, 1).data].slice(0, 3)"
        return list(self.view.locator("#image").evaluate(script))

    def shows(self, selector: str, text: str) -> None:
        from playwright.sync_api import expect

        expect(self.view.locator(selector)).to_contain_text(text, timeout=15_000)

    def hides(self, selector: str) -> None:
        from playwright.sync_api import expect

        expect(self.view.locator(selector)).to_be_hidden(timeout=15_000)

    def best(self, label: str) -> None:
        self.shows("#predictions li:first-child", label)
