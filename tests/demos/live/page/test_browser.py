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
from tests.demos.live.page.chromium import OpenTab, Tab, in_chromium
from tests.demos.live.page.conftest import CROP, Demo, Scene
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


@pytest.mark.parametrize(
    ("size", "saved_size"), [((32, 24), (640, 480)), ((200, 400), (320, 640)), ((10, 200), (320, 640))]
)
def test_saved_image_of_a_small_source_is_enlarged(
    page: Page, scene: Scene, open_tab: OpenTab, tmp_path: Path, size: tuple[int, int], saved_size: tuple[int, int]
) -> None:
    scene.size = size
    tab = open_tab(page)
    tab.view.locator(f"#image[width='{size[0]}']").wait_for()
    with tab.view.expect_download() as download:
        tab.view.get_by_role("button", name="Save image").click()
    download.value.save_as(tmp_path / "saved.jpg")
    with Image.open(tmp_path / "saved.jpg") as saved:
        assert saved.size[0] == saved_size[0]
        assert saved.size[1] > saved_size[1] + 60  # readable predictions below
        assert saved.convert("RGB").getpixel((saved_size[0] // 2, saved_size[1] // 2))[0] > 200


def crop_on_screen(tab: Tab) -> list[float]:
    """The crop's frame on the screen, as shares of the image as it is drawn: left, top, right, bottom."""
    return list(
        tab.view.evaluate(
            """() => {
                const [canvas, path] = [document.getElementById("image"), document.querySelector("#crop path")];
                const [image, frame] = [canvas.getBoundingClientRect(), path.getBoundingClientRect()];
                const scale = Math.min(image.width / canvas.width, image.height / canvas.height);
                const [width, height] = [canvas.width * scale, canvas.height * scale];
                const left = image.left + (image.width - width) / 2, top = image.top + (image.height - height) / 2;
                return [(frame.left - left) / width, (frame.top - top) / height,
                        (frame.right - left) / width, (frame.bottom - top) / height];
            }"""
        )
    )


@pytest.mark.parametrize("viewport", [(1200, 900), (1600, 400), (375, 812)])
def test_shows_what_the_model_sees(page: Page, scene: Scene, open_tab: OpenTab, viewport: tuple[int, int]) -> None:
    tab = open_tab(page, viewport={"width": viewport[0], "height": viewport[1]})
    tab.best("red")
    for size in ((640, 480), (300, 400)):
        scene.size = size
        tab.view.locator(f"#image[width='{size[0]}']").wait_for()
        tab.view.locator(f"#crop[viewBox='0 0 {size[0]} {size[1]}'] path[d^=M]").wait_for()
        assert crop_on_screen(tab) == pytest.approx(CROP, abs=0.01)
    assert not tab.complaints


def test_best_prediction_is_on_the_image_on_a_phone(page: Page, open_tab: OpenTab) -> None:
    tab = open_tab(page, viewport={"width": 375, "height": 812})
    tab.shows("#best", "red")
    tab.shows("#best", "%")
    best, image = (tab.view.locator(each).bounding_box() for each in ("#best", "#image"))
    assert image["y"] < best["y"] < best["y"] + best["height"] <= image["y"] + image["height"] + 1
    tab.view.get_by_role("button", name="openvino fp32").click()
    tab.shows("#best", "red")
    tab.view.set_viewport_size({"width": 1200, "height": 800})
    tab.hides("#best")
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
