"""The browser's own model: its routes over HTTP, and the tile in a real Chromium against ONNX Runtime in Python."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import http.client
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import runtimes
from demos.live.page import browser_model, onnxruntime_web
from demos.live.page.guard import HEADERS
from simplenet import artifacts, preprocessing
from simplenet.artifacts import Artifact
from simplenet.errors import ExportError
from simplenet.preprocessing import UInt8Array
from tests.conftest import MakeArtifact
from tests.demos.live.page.chromium import wait_until

sync_api = pytest.importorskip("playwright.sync_api")

STATIC = Path(browser_model.__file__).parent / "static"
CHROMIUM = shutil.which("chromium")
_PATIENCE_MS = 60_000  # on a machine with much else to do
PAGE = """<!doctype html><title>test</title><link rel="stylesheet" href="/static/panels.css">
<section id="tile"></section><script type="module" src="/page.js"></script>"""
PAGE_SCRIPT = """
import { mount } from "/static/browser_model.js";
globalThis.unmount = mount(document.getElementById("tile"));
globalThis.answers = [];
document.addEventListener("browser-answer", ({ detail }) => answers.push({ ...detail, logits: [...detail.logits] }));
globalThis.show = (rgba, width, height, sequence, answers) => {
  const canvas = new OffscreenCanvas(width, height);
  const bytes = Uint8ClampedArray.from(atob(rgba), (character) => character.charCodeAt(0));
  canvas.getContext("2d").putImageData(new ImageData(bytes, width), 0, 0);
  document.dispatchEvent(new CustomEvent("frame", { detail: { canvas, sequence, answers } }));
};
globalThis.answerTo = async (sequence) => {
  for (;;) {
    const found = globalThis.answers.find((answer) => answer.sequence === sequence);
    if (found !== undefined) return found;
    await new Promise((resolve) => document.addEventListener("browser-answer", resolve, { once: true }));
  }
};
globalThis.classify = (rgba, width, height, sequence, answers) => {
  show(rgba, width, height, sequence, answers);
  return answerTo(sequence);
};
globalThis.classifyAll = async (rgba, width, height, first, answersOfEach) => {
  for (const answers of answersOfEach) await classify(rgba, width, height, first++, answers);
};
"""


class OneModel:
    """Stands in for the Session: has an artifact, or an error, and another one when it is told so."""

    def __init__(self, artifact: Artifact | None) -> None:
        self.artifact = artifact
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        manifest = self.artifact.manifest if self.artifact else None
        return {
            "variant": manifest.variant if manifest else "none",
            "weights": manifest.weights.name if manifest else "none",
        }

    def onnx_artifact(self) -> Artifact:
        with self._lock:
            self.asked += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.may_answer.wait(30)
        with self._lock:
            self.at_once -= 1
        if self.artifact is None:
            raise ExportError("PyTorch cannot export\nthis network; type: make tea")
        return self.artifact


class _Headers:
    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self._app, self._headers = app, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)


@contextlib.contextmanager
def served(session: OneModel, vendor: Path, headers: dict[str, str] = HEADERS) -> Iterator[int]:
    """The port of a server of a page with nothing but the tile."""

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def script(request: Request) -> Response:
        return Response(PAGE_SCRIPT, media_type="text/javascript")

    mount = Mount("/static", StaticFiles(directory=STATIC))
    pages = [Route("/", page), Route("/page.js", script), mount]
    app = Starlette(
        routes=[*pages, *browser_model.routes(session, vendor)], middleware=[Middleware(_Headers, headers=headers)]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        session.may_answer.set()
        server.should_exit = True
        thread.join()
        listener.close()


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; the path goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.fixture(scope="module")
def artifact(make_artifact: MakeArtifact) -> Artifact:
    return make_artifact("onnx", "fp32")


def changed(artifact: Artifact, folder: Path, **values: Any) -> Artifact:
    """A copy with another manifest and a file of another hash."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(artifact.model_file)
    graph.doc_string = str(folder)
    folder.mkdir()
    onnx.save(graph, folder / "model.onnx")
    return artifacts.write_manifest(folder, dataclasses.replace(artifact.manifest, **values))


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    """Small files by the names of the real ones, and one that is not for serving."""
    folder = onnxruntime_web.folder(tmp_path / "vendor")
    folder.mkdir(parents=True)
    for name in (*onnxruntime_web.SERVED, "package.json"):
        (folder / name).write_text(f"this is {name}")
    return tmp_path / "vendor"


# Over HTTP.


def test_the_manifest_and_the_model_are_the_sessions(artifact: Artifact, tmp_path: Path) -> None:
    with served(OneModel(artifact), tmp_path) as port:
        status, headers, body = get(port, "/model/manifest.json")
        assert (status, headers["content-type"]) == (200, "application/json")
        manifest = json.loads(body)
        assert manifest == json.loads(artifact.manifest.to_json())
        sha256 = manifest["files"]["model.onnx"]
        for address in ("/model/model.onnx", f"/model/model.onnx?sha256={sha256}"):
            status, _, body = get(port, address)
            assert status == 200
            assert hashlib.sha256(body).hexdigest() == sha256
        assert get(port, "/model/manifest.json", If_None_Match=headers["etag"])[0] == 304
        assert get(port, "/model/manifest.json", If_None_Match='"other"')[0] == 200
        assert get(port, "/model/manifest.json", "POST")[0] == 405


def test_the_routes_follow_the_session_to_another_model(artifact: Artifact, tmp_path: Path) -> None:
    session = OneModel(artifact)
    with served(session, tmp_path) as port:
        _, headers, body = get(port, "/model/manifest.json")
        old = json.loads(body)["files"]["model.onnx"]
        assert get(port, f"/model/model.onnx?sha256={old}")[0] == 200
        assert session.asked == 1  # an export is not asked for again and again
        session.artifact = changed(artifact, tmp_path / "other", variant="cifar-460k")
        status, _, body = get(port, "/model/manifest.json", If_None_Match=headers["etag"])
        assert (status, json.loads(body)["variant"]) == (200, "cifar-460k")
        status, _, body = get(port, f"/model/model.onnx?sha256={old}")
        assert status == 409
        assert "changed" in json.loads(body)["error"]
        # The same model, made anew on disk:
        session.artifact = changed(artifact, tmp_path / "anew", variant="cifar-460k")
        shutil.copy(session.artifact.model_file, tmp_path / "other" / "model.onnx")
        assert json.loads(get(port, "/model/manifest.json")[2])["files"] == session.artifact.manifest.files


def test_a_model_that_cannot_be_made_is_an_error_in_one_line(artifact: Artifact, tmp_path: Path) -> None:
    session = OneModel(None)
    with served(session, tmp_path) as port:
        for address in ("/model/manifest.json", "/model/model.onnx"):
            status, _, body = get(port, address)
            assert status == 503
            assert json.loads(body) == {"error": "PyTorch cannot export this network; type: make tea"}
        session.artifact = changed(artifact, tmp_path / "fleeting")
        session.artifact.model_file.unlink()
        assert get(port, "/model/model.onnx")[0] == 503
        session.artifact = artifact
        assert get(port, "/model/model.onnx")[0] == 200  # an error is not kept


def test_a_slow_export_runs_once_and_holds_up_nothing_else(artifact: Artifact, vendor: Path) -> None:
    session = OneModel(artifact)
    session.may_answer.clear()
    with served(session, vendor) as port, ThreadPoolExecutor(60) as pool:
        waiting = [
            pool.submit(get, port, "/model/manifest.json") for _ in range(60)
        ]  # more than the server has threads
        assert get(port, "/onnxruntime-web/ort.wasm.bundle.min.mjs")[0] == 200
        assert not any(one.done() for one in waiting)
        session.may_answer.set()
        assert {one.result()[0] for one in waiting} == {200}
    assert (session.asked, session.most_at_once) == (1, 1)


def test_the_runtimes_files_have_the_types_that_browsers_insist_on(artifact: Artifact, vendor: Path) -> None:
    with served(OneModel(artifact), vendor) as port:
        for name in onnxruntime_web.SERVED:
            status, headers, body = get(port, f"/onnxruntime-web/{name}")
            wanted = "application/wasm" if name.endswith(".wasm") else "text/javascript"
            assert (status, headers["content-type"], body) == (200, wanted, f"this is {name}".encode())
            assert get(port, f"/onnxruntime-web/{name}", If_None_Match=headers["etag"])[0] == 304


@pytest.mark.parametrize(
    "name",
    [
        "package.json",  # it is there, but nobody needs it
        "",
        ".",
        "..",
        "../browser_model.py",
        "..%2f..%2fbrowser_model.py",
        "%2e%2e/%2e%2e/browser_model.py",
        "..%5c..%5cbrowser_model.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "ort.wasm.bundle.min.mjs/",
        "ort.wasm.bundle.min.mjs%00",
        "ORT.WASM.BUNDLE.MIN.MJS",
        "%ff%0d%0aX-Evil:%201",
        "x" * 5000,
    ],
)
def test_no_other_file_can_be_had(artifact: Artifact, vendor: Path, name: str) -> None:
    with served(OneModel(artifact), vendor) as port:
        status, headers, body = get(port, f"/onnxruntime-web/{name}")
        assert status in (404, 307)  # 307: without the slash, it would be served
        assert "x-evil" not in headers
        assert b"root:" not in body
        assert len(body) < 300


def test_files_that_were_not_fetched_are_an_error_that_says_what_to_type(artifact: Artifact, tmp_path: Path) -> None:
    with served(OneModel(artifact), tmp_path) as port:
        status, _, body = get(port, "/onnxruntime-web/ort.wasm.bundle.min.mjs")
        assert status == 404
        assert json.loads(body) == {"error": "onnxruntime-web has not been fetched; type: make web"}


# In the browser.

needs_runtime = pytest.mark.skipif(
    not onnxruntime_web.is_complete(), reason="onnxruntime-web has not been fetched; type: make web"
)
browser_test = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Tile:
    """The tile on its page, through what a person and the page around it can do."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requested: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.set_default_timeout(_PATIENCE_MS)

    def start(self, threads: int | None = None) -> None:
        if threads is not None:
            self.page.get_by_label("Threads").select_option(str(threads))
        self.page.get_by_role("button", name="Run in this browser").click()

    def says(self, text: str) -> None:
        """Waits until the tile shows `text`."""
        sync_api.expect(self.page.locator("#tile")).to_contain_text(text, timeout=_PATIENCE_MS)

    def call(self, function: str, image: UInt8Array, *values: Any) -> Any:
        """One of the page script's functions, with a frame."""
        height, width = image.shape[:2]
        rgba = base64.b64encode(np.dstack([image, np.full((height, width), 255, np.uint8)]).tobytes()).decode()
        return self.page.evaluate(f"(values) => {function}(...values)", [rgba, width, height, *values])

    def show(self, image: UInt8Array, sequence: int) -> None:
        self.call("show", image, sequence, [])

    def classify(self, image: UInt8Array, sequence: int = 0) -> Any:
        """Shows a frame and waits for the browser's answer to it."""
        return self.call("classify", image, sequence, [])


@contextlib.contextmanager
def tile_of(
    browser: Any, session: OneModel, vendor: Path = onnxruntime_web.VENDOR, headers: dict[str, str] = HEADERS
) -> Iterator[Tile]:
    with served(session, vendor, headers) as port, contextlib.closing(browser.new_context()) as context:
        tile = Tile(context.new_page())
        tile.page.goto(f"http://127.0.0.1:{port}/")
        tile.says("In this browser")
        yield tile
        assert tile.complaints == []


def scene(width: int, height: int, seed: int) -> UInt8Array:
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def expected_logits(artifact: Artifact, image: UInt8Array) -> Any:
    """ONNX Runtime's, on the pixels of Pillow's one-step resize."""
    config = artifact.manifest.preprocessing
    box = preprocessing.crop_geometry(image.shape[1], image.shape[0], config).box
    crop = Image.fromarray(image).resize((config.crop_size,) * 2, Image.Resampling.BICUBIC, box=box)
    pixels = np.pad(np.asarray(crop), ((config.padding,) * 2, (config.padding,) * 2, (0, 0)))[None]
    batch = pixels if artifact.manifest.input.dtype == "uint8" else preprocessing.normalise(pixels, config)
    with runtimes.load(artifact.folder, threads=1) as model:
        return model.infer(batch)[0]


@browser_test
@needs_runtime
@pytest.mark.parametrize("threads", [1, 2])
def test_the_browser_computes_what_onnx_runtime_computes(browser: Any, artifact: Artifact, threads: int) -> None:
    with tile_of(browser, OneModel(artifact)) as tile:
        if threads > tile.page.evaluate("navigator.hardwareConcurrency"):
            pytest.skip("this machine has one core")
        tile.start(threads)
        tile.says(f"{threads} thread")
        for sequence, size in enumerate([(640, 480), (320, 240), (28, 28), (1280, 720)]):
            image = scene(*size, seed=sequence)
            found = tile.classify(image, sequence)
            expected = expected_logits(artifact, image)
            assert np.array(found["logits"]) == pytest.approx(expected, rel=1e-3, abs=1e-3)
            best = runtimes.top_k(expected[None], 5, artifact.manifest.labels)[0]
            assert [one["label"] for one in found["predictions"]] == [one.label for one in best]
            assert found["predictions"][0]["probability"] == pytest.approx(best[0].probability, abs=1e-3)
        tile.says(best[0].label)
        bars, widths = tile.page.locator(".bar i"), "(bars) => bars.map((bar) => parseFloat(bar.style.width))"
        chances = pytest.approx([100 * one.probability for one in best], abs=0.1)
        wait_until(lambda: bars.evaluate_all(widths) == chances)  # the tile shows its last answer in its own time


@browser_test
@needs_runtime
def test_an_artifact_that_wants_normalised_floats_gets_them(browser: Any, artifact: Artifact, tmp_path: Path) -> None:
    from export.to_onnx import export_onnx

    floats = export_onnx(variant="cifar-310k", weights="fashion-mnist", input="float32", artifacts=tmp_path)
    with tile_of(browser, OneModel(floats)) as tile:
        tile.start()
        image = scene(640, 480, seed=5)
        expected = expected_logits(floats, image)
        assert np.array(tile.classify(image)["logits"]) == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert expected == pytest.approx(expected_logits(artifact, image), rel=1e-3, abs=1e-3)


@browser_test
@needs_runtime
def test_figures_and_agreement_are_shown_and_no_percentile_that_n_cannot_carry(
    browser: Any, artifact: Artifact
) -> None:
    image = scene(64, 48, seed=0)
    best = runtimes.top_k(expected_logits(artifact, image)[None], 1)[0][0].index

    def server_says(index: int) -> list[dict[str, Any]]:
        return [{"name": "openvino int8", "predictions": [{"label": "?", "index": index, "probability": 1.0}]}]

    with tile_of(browser, OneModel(artifact)) as tile:
        tile.start()
        tile.call("classifyAll", image, 0, [server_says(best if n % 4 else best + 1) for n in range(60)])
        tile.call("classifyAll", image, 60, [server_says(best)])
        tile.says("75.4 % of 61 with openvino int8")
        tile.says("p50 of 61; p90 needs 64")
        tile.call("classifyAll", image, 61, [[], [], [], server_says(best + 1)])  # []: nothing to compare with
        tile.says("74.2 % of 62 with openvino int8")
        tile.says("p50 of 65; p90 ")
        assert "p90 needs" not in tile.page.inner_text("#tile")
        found = tile.page.evaluate("answers")
        assert [one["agrees"] for one in found] == [n % 4 != 0 for n in range(60)] + [True, None, None, None, False]
        assert all(one["infer_ms"] > 0 and one["preprocess_ms"] > 0 for one in found)


@browser_test
@needs_runtime
def test_of_frames_that_come_too_fast_the_newest_is_classified(browser: Any, artifact: Artifact) -> None:
    with tile_of(browser, OneModel(artifact)) as tile:
        tile.start()
        tile.classify(scene(64, 48, seed=0))
        burst = "(frame) => { for (let sequence = 1; sequence <= 40; sequence++) show(frame, 8, 8, sequence, []); }"
        tile.page.evaluate(burst, base64.b64encode(bytes(256)).decode())
        sequences = tile.page.evaluate("answerTo(40).then(() => answers.map(({ sequence }) => sequence))")
        assert sequences == sorted(sequences)
        assert len(sequences) < 20


@browser_test
@needs_runtime
def test_it_follows_the_server_to_another_model_and_says_what_is_untrained(
    browser: Any, artifact: Artifact, tmp_path: Path
) -> None:
    """Labels come from a file that anybody may have written: they stay text."""
    session = OneModel(artifact)
    evil = tuple(f"<img src=x onerror=document.title='evil{index}'>" for index in range(artifact.manifest.num_classes))
    random = dataclasses.replace(artifact.manifest.weights, source="random", name="random")
    with tile_of(browser, session) as tile:
        tile.start()
        tile.says("cifar-310k, weights fashion-mnist, fp32")
        sync_api.expect(tile.page.get_by_text("UNTRAINED")).to_be_hidden(timeout=_PATIENCE_MS)
        session.artifact = changed(artifact, tmp_path / "other", variant="cifar-460k", weights=random, labels=evil)
        tile.says("cifar-460k, weights random")
        sync_api.expect(tile.page.get_by_text("UNTRAINED")).to_be_visible(timeout=_PATIENCE_MS)
        tile.classify(scene(64, 48, 0), 1)
        tile.says("<img src=x onerror=")
        session.artifact = None
        tile.says("PyTorch cannot export this network; type: make tea")
        assert tile.page.title() == "test"
        assert tile.page.locator("#tile img").count() == 0


@browser_test
def test_nothing_is_loaded_before_it_is_started_and_missing_files_are_explained(
    browser: Any, artifact: Artifact, tmp_path: Path
) -> None:
    with tile_of(browser, OneModel(artifact), tmp_path) as tile:
        tile.show(scene(64, 48, 0), 0)
        assert not any("/model/" in url or "/onnxruntime-web/" in url for url in tile.requested)
        assert tile.page.get_by_label("Run on").locator("option[value=webgpu]").is_disabled()  # --disable-gpu
        tile.says("No WebGPU:")
        tile.start()
        tile.says("onnxruntime-web has not been fetched; type: make web")
        sync_api.expect(tile.page.get_by_role("button", name="Run in this browser")).to_be_enabled(timeout=_PATIENCE_MS)
        tile.show(scene(64, 48, 0), 1)  # the page goes on


@browser_test
@needs_runtime
def test_a_file_that_is_not_what_its_manifest_says_is_refused(browser: Any, artifact: Artifact, tmp_path: Path) -> None:
    session = OneModel(changed(artifact, tmp_path / "bad"))
    assert session.artifact is not None
    session.artifact.model_file.write_bytes(session.artifact.model_file.read_bytes()[:-1])
    with tile_of(browser, session) as tile:
        tile.start()
        tile.says("not the file its manifest describes")


@browser_test
@needs_runtime
def test_without_isolation_there_is_one_thread_and_the_tile_says_so(browser: Any, artifact: Artifact) -> None:
    isolating = ("Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy")
    headers = {name: value for name, value in HEADERS.items() if name not in isolating}
    with tile_of(browser, OneModel(artifact), headers=headers) as tile:
        tile.says("Only one thread")
        assert tile.page.get_by_label("Threads").locator("option").count() == 1
        tile.start()
        tile.says("1 thread")
        tile.says("page not isolated")
        image = scene(64, 48, 0)
        assert np.array(tile.classify(image)["logits"]) == pytest.approx(expected_logits(artifact, image), abs=1e-3)


@browser_test
@needs_runtime
def test_it_can_be_stopped_started_again_and_taken_away(browser: Any, artifact: Artifact) -> None:
    with tile_of(browser, OneModel(artifact)) as tile:
        tile.start()
        tile.classify(scene(64, 48, 0), 0)
        tile.page.get_by_role("button", name="Stop").click()
        tile.says("Stopped.")
        tile.show(scene(64, 48, 0), 1)
        tile.start()
        tile.says("weights fashion-mnist")
        tile.classify(scene(64, 48, 0), 2)
        assert tile.page.evaluate("answers.map(({ sequence }) => sequence)") == [0, 2]
        tile.page.evaluate("unmount()")
        tile.show(scene(64, 48, 0), 3)
        assert tile.page.inner_text("#tile") == ""
