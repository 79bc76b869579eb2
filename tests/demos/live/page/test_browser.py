"""The page in a real browser: what a person sees and presses, with a camera from a file, a refused one and none."""

from __future__ import annotations

import base64
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demos.live.page import jpeg
from demos.live.page.server import Page
from tests.conftest import MakeArtifact
from tests.demos.conftest import ROOT
from tests.demos.live.page.conftest import Demo, Scene, plain

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install '.[dev]'")
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; sudo apt install chromium"),
]

FLAGS = ["--no-sandbox", "--disable-gpu"]
ALLOWED = "--use-fake-ui-for-media-stream"
FAKE = "--use-fake-device-for-media-stream"

OpenTab = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Callable[..., Any]]:
    """`browser(*flags)`: one of each kind for all tests; they start slowly."""
    with sync_api.sync_playwright() as driver:
        started: dict[tuple[str, ...], Any] = {}

        def start(*flags: str) -> Any:
            if flags not in started:
                started[flags] = driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
            return started[flags]

        yield start
        for each in started.values():
            each.close()


class Tab:
    """A page in a browser of its own, and everything that went wrong or elsewhere in it."""

    def __init__(self, view: Any) -> None:
        self.view = view
        self.complaints: list[str] = []
        self.requests: list[str] = []
        view.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        view.on("pageerror", lambda error: self.complaints.append(str(error)))
        view.on("request", lambda request: self.requests.append(request.url))
        view.on("websocket", lambda websocket: self.requests.append(websocket.url))

    def pixel(self) -> list[int]:
        """The picture's middle, RGB."""
        script = "c => [...c.getContext('2d').getImageData(c.width >> 1, c.height >> 1, 1, 1).data].slice(0, 3)"
        return list(self.view.locator("#picture").evaluate(script))

    def shows(self, selector: str, text: str) -> None:
        sync_api.expect(self.view.locator(selector)).to_contain_text(text, timeout=15_000)

    def hides(self, selector: str) -> None:
        sync_api.expect(self.view.locator(selector)).to_be_hidden(timeout=15_000)

    def best(self, label: str) -> None:
        self.shows("#answers li:first-child", label)


@pytest.fixture
def open_tab(browser: Callable[..., Any]) -> Iterator[OpenTab]:
    contexts = []

    def open_tab(page: Page | str, *flags: str, **options: Any) -> Tab:
        contexts.append(browser(*flags).new_context(**options))
        tab = Tab(contexts[-1].new_page())
        tab.view.goto(page if isinstance(page, str) else page.url)
        return tab

    yield open_tab
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A camera that sees green for a second, then blue, and so on."""
    path = tmp_path_factory.mktemp("film") / "film.mjpeg"
    frames = [jpeg.encode(plain(colour, 320, 240), 320)[0] for colour in ("green", "blue") for _ in range(30)]
    path.write_bytes(b"".join(frames))
    return f"--use-file-for-fake-video-capture={path}"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_picture_answers_and_figures_are_shown_and_follow_the_scene(
    page: Page, scene: Scene, open_tab: OpenTab
) -> None:
    tab = open_tab(page)
    tab.best("red")
    assert tab.pixel()[0] > 200
    assert max(tab.pixel()[1:]) < 40
    scene.colour = "blue"
    tab.best("blue")
    tab.shows("#answers", "green")
    assert tab.pixel()[2] > 200
    tab.shows("#model", "1.5m, fashion-mnist weights")
    tab.shows("#status", "live")
    tab.shows("#figures", "Loop FPS")
    tab.shows("#models", "agrees 99.5 %")
    assert len(tab.view.locator("#models polyline").first.get_attribute("points").split()) > 10
    assert tab.view.get_by_role("img", name="Live picture of camera 0, probably").is_visible()
    assert tab.view.locator("#untrained").is_hidden()
    assert not tab.complaints
    assert tab.view.evaluate("crossOriginIsolated")
    here = {urllib.parse.urlsplit(page.url).netloc}
    assert {urllib.parse.urlsplit(address).netloc for address in tab.requests} == here


def test_what_runs_can_be_chosen_live(page: Page, demo: Demo, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.best("red")
    tab.view.get_by_label("torch").check()
    tab.shows("#models", "torch fp32")
    tab.view.get_by_label("int8").check()
    tab.view.get_by_label("Variant").select_option("3m")
    tab.shows("#model", "3m")
    tab.shows("#answers-of", "onnxruntime int8")
    assert demo.selected == {"backend": ["onnxruntime", "openvino", "torch"], "precision": "int8", "variant": "3m"}
    tab.view.get_by_label("onnxruntime").uncheck()
    tab.view.get_by_label("openvino").uncheck()
    wait_until(lambda: demo.selected["backend"] == ["torch"])
    tab.view.get_by_label("torch").click()  # the last one stays
    tab.shows("#notice", "At least one backend has to run")
    assert tab.view.get_by_label("torch").is_checked()
    assert demo.selected["backend"] == ["torch"]
    assert not tab.complaints


def test_another_models_answers_can_be_chosen(page: Page, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.shows("#answers-of", "onnxruntime fp32")
    tab.view.get_by_role("button", name="openvino fp32").click()
    tab.shows("#answers-of", "openvino fp32")


def test_a_command_that_fails_is_told_and_the_control_goes_back(
    page: Page, demo: Demo, open_tab: OpenTab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simplenet.errors import UsageError

    def refuse(name: str, value: str | None = None) -> None:
        raise UsageError("int8 is not for you; type: --precision fp32")

    tab = open_tab(page)
    tab.best("red")
    monkeypatch.setattr(demo, "command", refuse)
    tab.view.get_by_label("int8").check(force=True)
    tab.shows("#notice", "int8 is not for you; type: --precision fp32")
    sync_api.expect(tab.view.get_by_label("fp32")).to_be_checked(timeout=10_000)


def test_pause_record_and_snapshots_by_button_and_by_key(
    page: Page, demo: Demo, open_tab: OpenTab, tmp_path: Path
) -> None:
    tab = open_tab(page)
    tab.best("red")
    tab.view.get_by_role("button", name="Pause").click()
    tab.shows("#veil", "paused")
    tab.view.locator("h1").click()  # focus off the button: there, the space bar is the button's
    tab.view.keyboard.press("Space")
    tab.shows("#status", "live")
    tab.view.get_by_role("button", name="Record on the server").click()
    tab.shows("#status", "recording")
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
        assert saved.size[1] > 480 + 60  # the answers are below the picture
        assert saved.convert("RGB").getpixel((320, 240))[0] > 200
    assert not tab.complaints


def test_help_and_the_keys_can_be_turned_off(page: Page, demo: Demo, open_tab: OpenTab) -> None:
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


def test_untrained_and_notices_cannot_be_missed(page: Page, demo: Demo, open_tab: OpenTab) -> None:
    demo.facts.update(untrained=True, notice="loading openvino int8…")
    tab = open_tab(page)
    tab.shows("#untrained", "UNTRAINED")
    assert tab.view.locator("#untrained").is_visible()
    assert tab.view.locator("#untrained").bounding_box()["width"] > 500
    tab.shows("#notice", "loading openvino int8…")
    demo.facts.update(untrained=False, notice=None)
    tab.hides("#untrained")
    tab.hides("#notice")


def test_a_source_that_reconnects_keeps_its_last_picture_and_says_so(
    page: Page, demo: Demo, scene: Scene, open_tab: OpenTab
) -> None:
    garden = Scene("garden")
    garden.colour = "green"
    demo.feeds.add(garden)
    tab = open_tab(page)
    tab.best("red")
    tab.view.get_by_label("garden").check()
    tab.best("green")
    garden.state, garden.note = "reconnecting", "no frame for 5 s"
    tab.shows("#veil", "garden: reconnecting; this is its last picture")
    tab.shows("#sources", "no frame for 5 s")
    assert tab.pixel()[1] > 200


def test_my_camera_from_a_file_is_classified_and_shown_to_me_alone(
    page: Page, demo: Demo, film: str, open_tab: OpenTab
) -> None:
    tab = open_tab(page, ALLOWED, FAKE, film)
    other = open_tab(page)
    tab.view.get_by_label("My camera").check()
    for colour in ("green", "blue", "green"):
        tab.best(colour)
        tab.shows("#models .says >> nth=1", colour)
    wait_until(lambda: max(tab.pixel()[1:]) > 180 and tab.pixel()[0] < 60)
    tab.shows("#figures", "Round trip")
    other.shows("#visitors", "1 visitor\N{RIGHT SINGLE QUOTATION MARK}s camera, not shown")
    other.best("red")
    assert [source.kind for source in demo.feeds.sources] == ["camera", "visitor"]
    tab.view.locator("#place input[value=server]").check()
    tab.best("red")
    wait_until(lambda: [source.kind for source in demo.feeds.sources] == ["camera"])
    assert not tab.complaints
    assert not other.complaints


def test_a_demo_without_sources_asks_for_the_visitors_camera(demo: Demo, film: str, open_tab: OpenTab) -> None:
    with Page(demo, port=0) as page:
        tab = open_tab(page, ALLOWED, FAKE, film)
        tab.shows("#veil", "no picture of its own: choose")
        tab.view.get_by_label("My camera").check()
        tab.best("green")


def test_a_refused_camera_is_explained(page: Page, film: str, open_tab: OpenTab) -> None:
    tab = open_tab(page, FAKE, "--deny-permission-prompts", film)
    tab.view.get_by_label("My camera").check()
    tab.shows("#camera-trouble", "The camera was not allowed")
    tab.shows("#camera-trouble", "allow the camera, and try again")
    tab.view.get_by_role("button", name="Try again").click()
    tab.shows("#camera-trouble", "The camera was not allowed")
    tab.view.get_by_role("button", name="Show the server").click()
    tab.best("red")
    tab.hides("#camera-trouble")
    assert not tab.complaints


def test_no_camera_is_explained(page: Page, open_tab: OpenTab) -> None:
    tab = open_tab(page, ALLOWED)
    tab.view.get_by_label("My camera").check()
    tab.shows("#camera-trouble", "No camera found")
    tab.shows("#camera-trouble", "Plug one in and try again")
    assert not tab.complaints


def test_an_address_that_may_not_use_a_camera_names_the_tunnel(demo: Demo, scene: Scene, open_tab: OpenTab) -> None:
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
        tab.shows("#camera-trouble", "may not use a camera")
        tab.shows("#camera-trouble", f"ssh -L 8000:127.0.0.1:{port} {address}")


def test_a_server_that_goes_away_is_told_and_found_again(demo: Demo, film: str, open_tab: OpenTab) -> None:
    scene = Scene()
    demo.feeds.add(scene)
    page = Page(demo, port=0)
    page.start()
    port = urllib.parse.urlsplit(page.url).port or 0
    tab, mine = open_tab(page), open_tab(page, ALLOWED, FAKE, film)
    mine.view.get_by_label("My camera").check()
    tab.best("red")
    mine.best("green")
    page.close()
    for each in (tab, mine):
        each.shows("#trouble", "The demo does not answer")
        each.shows("#status", "not connected")
    tab.shows("#veil", "this is the last picture")
    assert tab.pixel()[0] > 200
    scene.colour = "blue"
    with Page(demo, port=port):
        for each in (tab, mine):
            each.hides("#trouble")
            each.shows("#status", "live")
            each.best("blue")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_and_every_control_has_a_name(page: Page, demo: Demo, scheme: str, open_tab: OpenTab) -> None:
    demo.facts.update(untrained=True, notice="loading openvino int8…")
    tab = open_tab(page, ALLOWED, color_scheme=scheme, viewport={"width": 375, "height": 812})
    tab.best("red")
    tab.view.evaluate("document.getElementById('trouble').classList.add('shown')")
    tab.view.evaluate("document.getElementById('trouble').textContent = 'The demo does not answer.'")
    for _ in range(2):
        assert tab.view.evaluate("document.documentElement.scrollWidth") <= 375
        nodes = tab.view.context.new_cdp_session(tab.view).send("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "checkbox", "radio", "combobox", "img", "image", "heading", "dialog", "region", "group"}
        named = {
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored") and node["role"]["value"] in roles
        }
        assert not [role for role, name in named if not name.strip() and role != "group"]
        assert ("radio", "My camera") in named
        assert ("checkbox", "openvino") in named
        assert ("combobox", "Variant") in named
        assert tab.view.evaluate(LOW_CONTRAST) == []
        tab.view.get_by_label("My camera").check()  # and once more with the explanation
        tab.shows("#camera-trouble", "No camera found")
    ids = tab.view.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))


# Texts with less than 4.5:1 (3:1 where large) between their colour and what they lie on; not those over the picture.
LOW_CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const isElsewhere = element.closest(".veil, .skip, .hidden, noscript");
    if (!texts.currentNode.data.trim() || !element.checkVisibility() || isElsewhere) continue;
    let under = element;
    while (under && rgba(getComputedStyle(under).backgroundColor)[3] < 255) under = under.parentElement;
    const style = getComputedStyle(element);
    const [a, b] = [light(rgba(style.color)), light(rgba(getComputedStyle(under ?? document.body).backgroundColor))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) found.push(`${texts.currentNode.data.trim()} ${ratio}`);
  }
  return found;
}"""


def test_focus_can_be_seen_and_reaches_everything(page: Page, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.best("red")
    seen = []
    for _ in range(30):
        tab.view.keyboard.press("Tab")
        described = tab.view.evaluate(
            """() => { const element = document.activeElement, drawn = element.nextElementSibling ?? element;
            const outline = (e, p) => e && getComputedStyle(e, p).outlineStyle !== "none";
            const name = element.id || element.value || element.textContent;
            return [name, outline(element) || outline(drawn) || outline(element, "::after")]; }"""
        )
        seen.append(described)
    names = {name for name, _ in seen}
    assert {"pause", "snapshot", "help", "server", "variant", "record", "server-snapshot", "openvino"} <= names
    assert not [name for name, is_visible in seen if name and not is_visible and "SimpleNet" not in name]


def test_motion_is_only_for_those_who_want_it(page: Page, open_tab: OpenTab) -> None:
    tab = open_tab(page, reduced_motion="reduce")
    tab.best("red")
    script = "getComputedStyle(document.querySelector('.bar i')).transitionDuration"
    assert tab.view.evaluate(script) == "0s"


def test_a_frame_event_tells_other_parts_of_every_picture_shown(page: Page, scene: Scene, open_tab: OpenTab) -> None:
    tab = open_tab(page)
    tab.best("red")
    detail = tab.view.evaluate(
        """() => new Promise((done) => document.addEventListener("frame", ({ detail }) => done({
            url: detail.canvas.toDataURL("image/png"), sequence: detail.sequence, answers: detail.answers }),
            { once: true }))"""
    )
    with Image.open(io.BytesIO(base64.b64decode(detail["url"].partition(",")[2]))) as shown:
        assert shown.size == (640, 480)
        assert shown.convert("RGB").getpixel((1, 1))[0] > 200
    assert isinstance(detail["sequence"], int)
    assert set(detail["answers"][0]["predictions"][0]) == {"label", "index", "probability"}
    assert json.dumps(detail["answers"][1]["agrees"]) == "true"


@pytest.mark.slow
def test_the_whole_demo_on_the_page(
    make_artifact: MakeArtifact, environment: dict[str, str], open_tab: OpenTab, film: str
) -> None:
    """The script itself, in a process of its own: another backend takes over, a visitor joins, Ctrl-C ends it all."""
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
            tab.shows("#model", "cifar-310k, fashion-mnist weights")
            tab.shows("#answers", "%")
            tab.shows("#models", "onnxruntime fp32")
            tab.view.get_by_label("openvino").check()
            tab.shows("#models", "openvino fp32")
            tab.shows("#models", "agrees")
            tab.view.get_by_label("My camera").check()
            tab.shows("#figures", "Round trip")
            tab.shows("#models .says >> nth=1", "")
            tab.shows("#answers", "%")
            assert not tab.complaints
        finally:
            demo.send_signal(signal.SIGINT)
            out, err = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Traceback" not in err
    assert "ended by Ctrl-C" in out
    tab.shows("#trouble", "The demo does not answer")
