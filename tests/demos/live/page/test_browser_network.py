"""The page over a network that falls silent or is slow, and beside a server that hangs or is started again."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from demos.live.page import frames
from demos.live.page.server import Page
from demos.live.sources.base import LiveSource
from tests.conftest import MakeArtifact
from tests.demos.conftest import ROOT
from tests.demos.live.page.chromium import ALLOWED, FAKE, OpenTab, Tab, in_chromium
from tests.demos.live.page.conftest import Demo, Scene
from tests.demos.live.page.network import Network
from tests.waiting import wait_until

pytestmark = [*in_chromium, pytest.mark.slow]

# Every status that the page has shown, and whether it was reloaded.
REMEMBER = """() => {
  window.statuses = [];
  const status = document.getElementById("status");
  new MutationObserver(() => window.statuses.push(status.textContent))
    .observe(status, { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture
def network(page: Page) -> Iterator[Network]:
    with Network(urllib.parse.urlsplit(page.url).port or 0) as network:
        yield network


def opacity(tab: Tab) -> float:
    return float(tab.view.locator("#image").evaluate("(image) => getComputedStyle(image).opacity"))


def test_silent_network_is_shown_and_reconnected(network: Network, scene: Scene, open_tab: OpenTab) -> None:
    tab = open_tab(network.url)
    tab.best("red")
    tab.view.evaluate(REMEMBER)
    network.cut()
    tab.shows("#status", "not connected")
    tab.shows("#error", "The demo does not answer")
    tab.shows("#overlay", "not connected; this is the last image")
    assert opacity(tab) < 1
    scene.color = "blue"
    network.restore()
    tab.shows("#status", "live")
    tab.hides("#error")
    tab.hides("#overlay")
    tab.best("blue")
    assert opacity(tab) == 1
    assert tab.view.evaluate("statuses") == ["not connected", "live"]  # not reloaded


def test_change_of_networks_is_noticed(network: Network, scene: Scene, open_tab: OpenTab) -> None:
    """What was open is silent, and new connections work at once."""
    tab = open_tab(network.url)
    tab.best("red")
    tab.view.evaluate(REMEMBER)
    network.cut()
    network.restore()
    scene.color = "blue"
    tab.best("blue")
    assert tab.view.evaluate("statuses") == ["not connected", "live"]


def test_sleeping_tab_is_live_again_when_it_wakes(
    network: Network, page: Page, scene: Scene, open_tab: OpenTab
) -> None:
    tab = open_tab(network.url)
    tab.best("red")
    browser = tab.view.context.new_cdp_session(tab.view)
    browser.send("Page.setWebLifecycleState", {"state": "frozen"})
    network.cut()
    wait_until(lambda: page.viewers.connections == 0)  # the server has noticed
    network.restore()
    scene.color = "blue"
    browser.send("Page.setWebLifecycleState", {"state": "active"})
    tab.best("blue")
    tab.shows("#status", "live")


def test_websocket_request_without_an_answer_is_repeated(network: Network, open_tab: OpenTab) -> None:
    network.cut("/live")
    tab = open_tab(network.url)
    tab.shows("#status", "connecting")
    tab.shows("#status", "not connected")
    tab.shows("#error", "The demo does not answer")
    network.restore()
    tab.shows("#status", "live")
    tab.best("red")


@pytest.mark.parametrize("path", ["", "/visitor"])
def test_own_camera_survives_a_silent_network(
    network: Network, demo: Demo, film: str, open_tab: OpenTab, path: str
) -> None:
    tab = open_tab(network.url, ALLOWED, FAKE, film)
    tab.view.get_by_label("My camera").check()
    tab.best("green")
    network.cut(path)
    if path == "":
        tab.shows("#overlay", "not connected: no predictions")
    else:
        tab.shows("#notice", "Your camera: no answer")
        tab.shows("#overlay", "waiting for the server")
        tab.shows("#status", "live")
    tab.shows("#predictions:empty", "")
    for color in ("green", "blue"):
        wait_until(lambda color=color: tab.pixel()[1 + (color == "blue")] > 180)  # type: ignore[misc]  # it still moves
    network.restore()
    for color in ("green", "blue"):
        tab.best(color)
    tab.hides("#overlay")
    wait_until(lambda: len(demo.scheduler.sources) == 2)  # the silent visitor is gone


def test_paused_demo_is_not_disconnected(page: Page, demo: Demo, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.best("red")
    demo.command("pause")
    tab.shows("#status", "paused")
    tab.view.evaluate(REMEMBER)
    tab.view.wait_for_timeout(5000)  # longer than the page waits for a state
    demo.command("pause")
    tab.shows("#status", "live")
    assert tab.view.evaluate("statuses") == ["live"]


def test_slow_network_is_not_called_dead(network: Network, demo: Demo, open_tab: OpenTab) -> None:
    """An image takes longer than the page waits for a message."""
    noise = LiveSource("noise", "camera")
    demo.scheduler.add(noise)
    tab = open_tab(network.url)
    tab.best("red")
    tab.view.evaluate(REMEMBER)
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    network.bytes_per_s = len(frames.encode_jpeg(image)) / 5
    tab.view.get_by_label("noise").check()
    for _ in range(2):
        noise.push(image)
        tab.view.get_by_role("img", name="Live image of noise").wait_for(timeout=60_000)
        tab.view.locator("#image").evaluate("(image) => image.setAttribute('aria-label', '')")
    assert tab.view.evaluate("statuses") == []


@contextlib.contextmanager
def running_demo(root: Path, port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    flags = f"--source synthetic --display browser --port {port} --backend onnxruntime --artifacts {root} --threads 1"
    command = [sys.executable, str(ROOT / "demos" / "webcam.py"), *flags.split()]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as demo:
        try:
            assert demo.stderr is not None
            assert any("running" in line for line in demo.stderr)
            yield demo
        finally:
            demo.kill()


def test_suspended_and_restarted_server(
    make_artifact: MakeArtifact, environment: dict[str, str], open_tab: OpenTab, film: str
) -> None:
    """Its system accepts connections while it is suspended, and it answers them afterwards."""
    root = make_artifact("onnx", "fp32").folder.parents[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running_demo(root, port, environment) as demo:
        tab, mine = open_tab(f"http://127.0.0.1:{port}/"), open_tab(f"http://127.0.0.1:{port}/", ALLOWED, FAKE, film)
        mine.view.get_by_label("My camera").check()
        mine.shows("#predictions", "%")
        tab.shows("#predictions", "%")
        demo.send_signal(signal.SIGSTOP)
        for each in (tab, mine):
            each.shows("#status", "not connected")
        demo.send_signal(signal.SIGCONT)
        for each in (tab, mine):
            each.shows("#status", "live")
            each.shows("#predictions", "%")
    for each in (tab, mine):
        each.shows("#status", "not connected")
    with running_demo(root, port, environment):
        for each in (tab, mine):
            each.shows("#status", "live")
            each.shows("#predictions", "%")
