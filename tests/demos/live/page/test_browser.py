"""The page in a real browser: what a person sees and presses."""

from __future__ import annotations

import base64
import io
import json
import urllib.parse
from pathlib import Path

import pytest
from PIL import Image

from demos.live.page.server import Page
from tests.demos.live.page.chromium import (
    OpenTab,
    in_chromium,
)
from tests.demos.live.page.conftest import Demo, Scene
from tests.demos.live.scenes import make_full_dashboard_state, texts_of
from tests.waiting import wait_until

pytestmark = in_chromium


def test_image_predictions_and_figures_follow_the_scene(page: Page, scene: Scene, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.best("red")
    assert tab.pixel()[0] > 200
    assert max(tab.pixel()[1:]) < 40
    scene.color = "blue"
    tab.best("blue")
    tab.shows("#predictions", "green")
    assert tab.pixel()[2] > 200
    tab.shows("#title", "1.5m, fashion-mnist weights")
    tab.shows("#status", "live")
    tab.shows("#figures", "FPS")
    tab.shows("#models", "agreement 99.5 %")
    assert len(tab.view.locator("#models polyline").first.get_attribute("points").split()) > 10
    assert tab.view.get_by_role("img", name="Live image of camera 0, probably").is_visible()
    assert tab.view.locator("#untrained").is_hidden()
    assert not tab.complaints
    assert tab.view.evaluate("crossOriginIsolated")
    here = {urllib.parse.urlsplit(page.url).netloc}
    assert {urllib.parse.urlsplit(address).netloc for address in tab.requests} == here


def test_selects_backends_precision_and_variant(page: Page, demo: Demo, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.best("red")
    tab.view.get_by_label("torch").check()
    tab.shows("#models", "torch fp32")
    tab.view.get_by_label("int8").check()
    tab.view.get_by_label("Variant").select_option("3m")
    tab.shows("#title", "3m")
    tab.shows("#predictions-model", "onnxruntime int8")
    assert demo.selected == {"backend": ["onnxruntime", "openvino", "torch"], "precision": "int8", "variant": "3m"}
    tab.view.get_by_label("onnxruntime").uncheck()
    tab.view.get_by_label("openvino").uncheck()
    wait_until(lambda: demo.selected["backend"] == ["torch"])
    tab.view.get_by_label("torch").click()  # the last one stays
    tab.shows("#notice", "At least one backend has to run")
    assert tab.view.get_by_label("torch").is_checked()
    assert demo.selected["backend"] == ["torch"]
    assert not tab.complaints


def test_selects_the_model_whose_predictions_are_shown(page: Page, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.shows("#predictions-model", "onnxruntime fp32")
    tab.view.get_by_role("button", name="openvino fp32").click()
    tab.shows("#predictions-model", "openvino fp32")
    assert not tab.complaints


def test_failed_command_resets_the_control(
    page: Page, demo: Demo, open_tab: OpenTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simplenet.errors import UsageError

    def refuse(name: str, value: str | None = None) -> None:
        raise UsageError("int8 is not for you; type: --precision fp32")

    from playwright.sync_api import expect

    tab = open_tab(page)
    tab.best("red")
    monkeypatch.setattr(demo, "command", refuse)
    tab.view.get_by_label("int8").click(force=True)
    tab.shows("#notice", "int8 is not for you; type: --precision fp32")
    expect(tab.view.get_by_label("fp32")).to_be_checked(timeout=10_000)
    assert demo.selected["precision"] == "fp32"
    assert not tab.complaints


def test_pause_record_and_snapshots_by_button_and_by_key(
    page: Page, demo: Demo, open_tab: OpenTab, tmp_path: Path
) -> None:
    tab = open_tab(page)
    tab.best("red")
    tab.view.get_by_role("button", name="Pause").click()
    tab.shows("#overlay", "paused")
    tab.view.locator("h1").click()  # focus off the button: there, the space bar is the button's
    tab.view.keyboard.press("Space")
    tab.shows("#status", "live")
    tab.view.get_by_role("button", name="Record on the server").click()
    tab.shows("#status", "REC 01:12")
    tab.view.keyboard.press("r")
    tab.shows("#record", "Record on the server")
    for key in "bp":
        tab.view.keyboard.press(key)
    tab.view.get_by_role("button", name="Snapshot on the server").click()
    wants = [("pause", None), ("record", None), ("next-backend", None), ("next-precision", None), ("snapshot", None)]
    wait_until(lambda: set(wants) <= set(demo.commands))
    with tab.view.expect_download() as download:
        tab.view.keyboard.press("s")
    download.value.save_as(tmp_path / "saved.jpg")
    with Image.open(tmp_path / "saved.jpg") as saved:
        assert saved.size[0] == 640
        assert saved.size[1] > 480 + 60  # the predictions are below the image
        assert saved.convert("RGB").getpixel((320, 240))[0] > 200
    assert not tab.complaints


def test_help_and_keys_can_be_turned_off(page: Page, demo: Demo, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.best("red")
    tab.view.keyboard.press("h")
    tab.shows("dialog", "ssh -L 8000:127.0.0.1:")
    tab.view.get_by_label("These keys are on").uncheck()
    tab.view.keyboard.press("Escape")
    tab.hides("dialog")
    tab.view.keyboard.press("r")
    tab.view.get_by_role("button", name="Pause").click()
    wait_until(lambda: ("pause", None) in demo.commands)
    assert demo.commands == [("pause", None)]


def test_untrained_and_notices_are_visible(page: Page, demo: Demo, open_tab: OpenTab) -> None:
    demo.facts.update(untrained=True, switching=True, notice="loading openvino int8…")
    tab = open_tab(page)
    tab.view.locator("#untrained").wait_for(state="visible", timeout=15_000)
    tab.shows("#untrained", "UNTRAINED")
    assert tab.view.locator("#untrained").bounding_box()["width"] > 500
    tab.shows("#notice", "loading openvino int8…")
    demo.facts.update(untrained=False, notice=None)
    tab.hides("#untrained")
    tab.hides("#notice")


def test_page_shows_every_text_of_the_dashboard(
    page: Page, demo: Demo, scene: Scene, open_tab: OpenTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_full_dashboard_state(scene.id)
    monkeypatch.setattr(demo, "state", lambda: state)
    tab = open_tab(page)
    tab.best("red")
    tab.view.get_by_role("button", name="Help").click()
    tab.shows("#status", "REC 01:12")
    found = tab.view.locator("body").inner_text()
    assert [text for text in texts_of(state["dashboard"]) if text not in found] == []
    assert not tab.complaints


@pytest.fixture
def garden(demo: Demo, scene: Scene) -> Scene:
    """A second, green camera beside the red one."""
    garden = Scene("garden")
    garden.color = "green"
    demo.scheduler.add(garden)
    return garden


def test_reconnecting_source_keeps_its_last_image(page: Page, garden: Scene, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.best("red")
    tab.view.get_by_role("radio", name="garden").check()
    tab.best("green")
    garden.lose("no frame for 5 s")
    tab.shows("#overlay", "garden is reconnecting: no frame for 5 s; showing its last image")
    tab.shows("#sources", "no frame for 5 s")
    assert tab.pixel()[1] > 200


def test_selected_source_stays_selected_with_a_slow_server(page: Page, garden: Scene, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.view.add_init_script(  # a server far away: states that it sent before it read the choice still arrive
        """const send = WebSocket.prototype.send;
        WebSocket.prototype.send = function (message) { setTimeout(() => send.call(this, message), 700); };"""
    )
    tab.view.reload()
    tab.best("red")
    is_checked = tab.view.get_by_role("radio", name="garden").evaluate(
        """async (radio) => {
            radio.click();
            const seen = [], untilMs = performance.now() + 600;
            while (performance.now() < untilMs) {
                seen.push(radio.checked);
                await new Promise(requestAnimationFrame);
            }
            return seen.every(Boolean);
        }"""
    )
    assert is_checked
    tab.best("green")
    assert tab.view.get_by_role("radio", name="garden").is_checked()


def test_frame_event_reports_every_image(page: Page, scene: Scene, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.best("red")
    detail = tab.view.evaluate(
        """() => new Promise((done) => document.addEventListener("frame", ({ detail }) => done({
            url: detail.canvas.toDataURL("image/png"), sequence: detail.sequence, results: detail.results }),
            { once: true }))"""
    )
    with Image.open(io.BytesIO(base64.b64decode(detail["url"].partition(",")[2]))) as shown:
        assert shown.size == (640, 480)
        assert shown.convert("RGB").getpixel((1, 1))[0] > 200
    assert isinstance(detail["sequence"], int)
    assert set(detail["results"][0]["predictions"][0]) == {"label", "index", "probability"}
    assert json.dumps(detail["results"][1]["agrees"]) == "true"
