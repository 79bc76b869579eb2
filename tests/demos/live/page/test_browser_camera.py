"""The visitor's camera in a real browser: working, refused, missing; and a server that restarts."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.parse

import pytest

from demos.live.page.server import Page
from tests.conftest import MakeArtifact
from tests.demos.conftest import ROOT
from tests.demos.live.page.chromium import (
    ALLOWED,
    FAKE,
    OpenTab,
    in_chromium,
)
from tests.demos.live.page.conftest import Demo, Scene
from tests.waiting import wait_until

pytestmark = in_chromium


@pytest.mark.slow
def test_own_camera_is_classified_and_shown_to_its_owner_only(
    page: Page, demo: Demo, film: str, open_tab: OpenTab
) -> None:
    tab = open_tab(page, ALLOWED, FAKE, film)
    other = open_tab(page)
    tab.view.get_by_label("My camera").check()
    for color in ("green", "blue", "green"):
        tab.best(color)
        tab.shows("#models .first >> nth=1", color)
    wait_until(lambda: max(tab.pixel()[1:]) > 180 and tab.pixel()[0] < 60)
    tab.shows("#figures", "round trip")
    other.shows("#visitors", "1 visitor camera, not shown")
    other.best("red")
    assert [source.kind for source in demo.scheduler.sources] == ["camera", "visitor"]
    tab.view.locator("#view input[value=server]").check()
    tab.best("red")
    wait_until(lambda: [source.kind for source in demo.scheduler.sources] == ["camera"])
    assert not tab.complaints
    assert not other.complaints


def test_demo_without_sources_offers_the_camera(demo: Demo, film: str, open_tab: OpenTab) -> None:
    with Page(demo, port=0) as page:
        tab = open_tab(page, ALLOWED, FAKE, film)
        tab.shows("#overlay", "no source of its own: select")
        tab.view.get_by_label("My camera").check()
        tab.best("green")
        assert [source.kind for source in demo.scheduler.sources] == ["visitor"]


def test_explains_refused_camera(page: Page, film: str, open_tab: OpenTab) -> None:
    tab = open_tab(page, FAKE, "--deny-permission-prompts", film)
    tab.view.get_by_label("My camera").check()
    tab.shows("#camera-error", "The camera was not allowed")
    tab.shows("#camera-error", "allow the camera, and try again")
    tab.view.get_by_role("button", name="Try again").click()
    tab.shows("#camera-error", "The camera was not allowed")
    tab.view.get_by_role("button", name="Show the server").click()
    tab.best("red")
    tab.hides("#camera-error")
    assert not tab.complaints


def test_explains_missing_camera(page: Page, open_tab: OpenTab) -> None:
    tab = open_tab(page, ALLOWED)
    tab.view.get_by_label("My camera").check()
    tab.shows("#camera-error", "No camera found")
    tab.shows("#camera-error", "Plug one in and try again")
    assert not tab.complaints


def test_insecure_address_suggests_a_tunnel(demo: Demo, scene: Scene, open_tab: OpenTab) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells which address would be used
            address = probe.getsockname()[0]
        except OSError:
            pytest.skip("this machine has no address but the loopback's")
    with Page(demo, "0.0.0.0", 0) as page:
        port = urllib.parse.urlsplit(page.url).port
        tab = open_tab(f"http://{address}:{port}/", ALLOWED, FAKE)
        tab.best("red")
        tab.view.get_by_label("My camera").check()
        tab.shows("#camera-error", "may not use a camera")
        tab.shows("#camera-error", f"ssh -L 8000:{address}:{port} {address}")
        assert [source.kind for source in demo.scheduler.sources] == ["camera"]


@pytest.mark.slow
def test_reconnects_to_a_restarted_server(demo: Demo, film: str, open_tab: OpenTab) -> None:
    scene = Scene()
    demo.scheduler.add(scene)
    page = Page(demo, port=0)
    port = urllib.parse.urlsplit(page.url).port or 0
    tab, mine = open_tab(page), open_tab(page, ALLOWED, FAKE, film)
    mine.view.get_by_label("My camera").check()
    tab.best("red")
    mine.best("green")
    page.close()
    for each in (tab, mine):
        each.shows("#error", "The demo does not answer")
        each.shows("#status", "not connected")
    tab.shows("#overlay", "this is the last image")
    assert tab.pixel()[0] > 200
    scene.color = "blue"
    with Page(demo, port=port):
        for each in (tab, mine):
            each.hides("#error")
            each.shows("#status", "live")
            each.best("blue")


@pytest.mark.slow
def test_webcam_script_with_browser(
    make_artifact: MakeArtifact, environment: dict[str, str], open_tab: OpenTab, film: str
) -> None:
    """The script in its own process: switch the backend, join with a camera, end with Ctrl-C."""
    root = make_artifact("onnx", "fp32").folder.parents[1]
    make_artifact("openvino", "fp32")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = f"--source synthetic --display browser --port {port} --backend onnxruntime --artifacts {root} --threads 1"
    command = [sys.executable, str(ROOT / "demos" / "webcam.py"), *flags.split()]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        try:
            assert demo.stderr is not None
            assert any(f"open http://127.0.0.1:{port}/" in line for line in demo.stderr)
            tab = open_tab(f"http://127.0.0.1:{port}/", ALLOWED, FAKE, film)
            tab.shows("#title", "cifar-310k, fashion-mnist weights")
            tab.shows("#predictions", "%")
            tab.shows("#models", "onnxruntime fp32")
            tab.view.get_by_label("openvino").check()
            tab.shows("#models", "openvino fp32")
            tab.shows("#models", "agreement")
            tab.view.get_by_label("My camera").check()
            tab.shows("#figures", "round trip")
            tab.shows("#models .first >> nth=1", "")
            tab.shows("#predictions", "%")
            assert not tab.complaints
        finally:
            demo.send_signal(signal.SIGINT)
            out, err = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Traceback" not in err
    assert "ended by Ctrl-C" in out
    tab.shows("#error", "The demo does not answer")
