"""The tile "In this browser" in a real Chromium, compared with ONNX Runtime in Python."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import runtimes
from demos.live.browser import onnxruntime_web
from demos.live.page.security import HEADERS
from simplenet import preprocessing
from simplenet.artifacts import Artifact
from simplenet.preprocessing import UInt8Array
from tests.demos.live.browser.fake_session import FakeSession, changed, serve_tile
from tests.demos.live.page.chromium import in_chromium
from tests.waiting import wait_until

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = in_chromium
_TIMEOUT_MS = 60_000  # on a machine with much else to do
needs_runtime = pytest.mark.skipif(
    not onnxruntime_web.is_complete(), reason="onnxruntime-web has not been fetched; type: make web"
)


class Tile:
    """The tile on its page, used as a person and the page use it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requested: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.set_default_timeout(_TIMEOUT_MS)

    def start(self, threads: int | None = None) -> None:
        if threads is not None:
            self.page.get_by_label("Threads").select_option(str(threads))
        self.page.get_by_role("button", name="Run in this browser").click()

    def expect(self, text: str) -> None:
        """Wait until the tile shows `text`."""
        sync_api.expect(self.page.locator("#tile")).to_contain_text(text, timeout=_TIMEOUT_MS)

    def call(self, function: str, image: UInt8Array, *values: Any) -> Any:
        """Call a function of the page's script with a frame."""
        height, width = image.shape[:2]
        rgba = base64.b64encode(np.dstack([image, np.full((height, width), 255, np.uint8)]).tobytes()).decode()
        return self.page.evaluate(f"(values) => {function}(...values)", [rgba, width, height, *values])

    def show(self, image: UInt8Array, sequence: int) -> None:
        self.call("show", image, sequence, [])

    def classify(self, image: UInt8Array, sequence: int = 0) -> Any:
        """Show a frame and wait for its result."""
        return self.call("classify", image, sequence, [])


@contextlib.contextmanager
def tile_of(
    browser: Any, session: FakeSession, vendor: Path = onnxruntime_web.VENDOR, headers: dict[str, str] = HEADERS
) -> Iterator[Tile]:
    with serve_tile(session, vendor, headers) as port, contextlib.closing(browser().new_context()) as context:
        tile = Tile(context.new_page())
        tile.page.goto(f"http://127.0.0.1:{port}/")
        tile.expect("In this browser")
        yield tile
        assert tile.errors == []


def scene(width: int, height: int, seed: int) -> UInt8Array:
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def expected_logits(artifact: Artifact, image: UInt8Array) -> Any:
    """ONNX Runtime's logits for the pixels of Pillow's one-step resize."""
    config = artifact.manifest.preprocessing
    box = preprocessing.crop_geometry(image.shape[1], image.shape[0], config).box
    crop = Image.fromarray(image).resize((config.crop_size,) * 2, Image.Resampling.BICUBIC, box=box)
    pixels = np.pad(np.asarray(crop), ((config.padding,) * 2, (config.padding,) * 2, (0, 0)))[None]
    batch = pixels if artifact.manifest.input.dtype == "uint8" else preprocessing.normalize(pixels, config)
    with runtimes.load(artifact.folder, threads=1) as model:
        return model.infer(batch)[0]


@pytest.mark.slow
@needs_runtime
@pytest.mark.parametrize("threads", [1, 2])
def test_logits_match_onnx_runtime(browser: Any, artifact: Artifact, threads: int) -> None:
    with tile_of(browser, FakeSession(artifact)) as tile:
        if threads > tile.page.evaluate("navigator.hardwareConcurrency"):
            pytest.skip("this machine has one core")
        tile.start(threads)
        tile.expect(f"{threads} thread")
        for sequence, size in enumerate([(640, 480), (320, 240), (28, 28), (1280, 720)]):
            image = scene(*size, seed=sequence)
            found = tile.classify(image, sequence)
            expected = expected_logits(artifact, image)
            assert np.array(found["logits"]) == pytest.approx(expected, rel=1e-3, abs=1e-3)
            best = runtimes.top_k(expected[None], 5, artifact.manifest.labels)[0]
            assert [one["label"] for one in found["predictions"]] == [one.label for one in best]
            assert found["predictions"][0]["probability"] == pytest.approx(best[0].probability, abs=1e-3)
        tile.expect(best[0].label)
        bars, widths = tile.page.locator(".bar i"), "(bars) => bars.map((bar) => parseFloat(bar.style.width))"
        chances = pytest.approx([100 * one.probability for one in best], abs=0.1)
        wait_until(lambda: bars.evaluate_all(widths) == chances)  # the tile redraws ten times a second


@pytest.mark.slow
@needs_runtime
def test_artifact_with_float32_input(browser: Any, artifact: Artifact, tmp_path: Path) -> None:
    from export.to_onnx import export_onnx

    floats = export_onnx(variant="cifar-310k", weights="fashion-mnist", input="float32", artifacts=tmp_path)
    with tile_of(browser, FakeSession(floats)) as tile:
        tile.start()
        image = scene(640, 480, seed=5)
        expected = expected_logits(floats, image)
        assert np.array(tile.classify(image)["logits"]) == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert expected == pytest.approx(expected_logits(artifact, image), rel=1e-3, abs=1e-3)


@pytest.mark.slow
@needs_runtime
def test_shows_agreement_and_latencies(browser: Any, artifact: Artifact) -> None:
    image = scene(64, 48, seed=0)
    best = runtimes.top_k(expected_logits(artifact, image)[None], 1)[0][0].index

    def server_results(index: int, name: str = "openvino int8") -> list[dict[str, Any]]:
        return [{"name": name, "predictions": [{"label": "?", "index": index, "probability": 1.0}]}]

    with tile_of(browser, FakeSession(artifact)) as tile:
        tile.start()
        tile.call("classifyAll", image, 0, [server_results(best if n % 4 else best + 1) for n in range(60)])
        tile.call("classifyAll", image, 60, [server_results(best)])
        tile.expect("75.4 % of 61 with openvino int8")
        tile.expect("p50 of 61; p90 needs 64")
        tile.call("classifyAll", image, 61, [[], [], [], server_results(best + 1)])  # []: nothing to compare with
        tile.expect("74.2 % of 62 with openvino int8")
        tile.expect("p50 of 65; p90 ")
        assert "p90 needs" not in tile.page.inner_text("#tile")
        found = tile.page.evaluate("browserResults")
        assert [one["agrees"] for one in found] == [n % 4 != 0 for n in range(60)] + [True, None, None, None, False]
        assert all(one["infer_ms"] > 0 and one["preprocess_ms"] > 0 for one in found)
        tile.call("classifyAll", image, 65, [server_results(best, "openvino fp32")] * 3)  # counted by itself
        tile.expect("100.0 % of 3 with openvino fp32")


@pytest.mark.slow
@needs_runtime
def test_drops_stale_frames(browser: Any, artifact: Artifact) -> None:
    with tile_of(browser, FakeSession(artifact)) as tile:
        tile.start()
        tile.classify(scene(64, 48, seed=0))
        burst = "(frame) => { for (let sequence = 1; sequence <= 40; sequence++) show(frame, 8, 8, sequence, []); }"
        tile.page.evaluate(burst, base64.b64encode(bytes(256)).decode())
        sequences = tile.page.evaluate("resultOf(40).then(() => browserResults.map(({ sequence }) => sequence))")
        assert sequences == sorted(sequences)
        assert len(sequences) < 20


@pytest.mark.slow
@needs_runtime
def test_follows_server_to_another_model(browser: Any, artifact: Artifact, tmp_path: Path) -> None:
    """Labels are untrusted: they are inserted as text."""
    session = FakeSession(artifact)
    evil = tuple(f"<img src=x onerror=document.title='evil{index}'>" for index in range(artifact.manifest.num_classes))
    random = dataclasses.replace(artifact.manifest.weights, source="random", name="random")
    with tile_of(browser, session) as tile:
        tile.start()
        tile.expect("cifar-310k, weights fashion-mnist, fp32")
        sync_api.expect(tile.page.get_by_text("UNTRAINED")).to_be_hidden(timeout=_TIMEOUT_MS)
        session.artifact = changed(artifact, tmp_path / "other", variant="cifar-460k", weights=random, labels=evil)
        tile.expect("cifar-460k, weights random")
        sync_api.expect(tile.page.get_by_text("UNTRAINED")).to_be_visible(timeout=_TIMEOUT_MS)
        tile.classify(scene(64, 48, 0), 1)
        tile.expect("<img src=x onerror=")
        session.artifact = None
        tile.expect("PyTorch cannot export this network; type: make tea")
        assert tile.page.title() == "test"
        assert tile.page.locator("#tile img").count() == 0


def test_loads_nothing_before_start(browser: Any, artifact: Artifact, tmp_path: Path) -> None:
    with tile_of(browser, FakeSession(artifact), tmp_path) as tile:
        tile.show(scene(64, 48, 0), 0)
        assert not any("/model/" in url or "/onnxruntime-web/" in url for url in tile.requested)
        assert tile.page.get_by_label("Run on").locator("option[value=webgpu]").is_disabled()  # --disable-gpu
        tile.expect("No WebGPU:")
        tile.start()
        tile.expect("onnxruntime-web has not been fetched; type: make web")
        sync_api.expect(tile.page.get_by_role("button", name="Run in this browser")).to_be_enabled(timeout=_TIMEOUT_MS)
        tile.show(scene(64, 48, 0), 1)  # the page goes on


@needs_runtime
def test_rejects_file_with_another_hash(browser: Any, artifact: Artifact, tmp_path: Path) -> None:
    session = FakeSession(changed(artifact, tmp_path / "bad"))
    assert session.artifact is not None
    session.artifact.model_file.write_bytes(session.artifact.model_file.read_bytes()[:-1])
    with tile_of(browser, session) as tile:
        tile.start()
        tile.expect("SHA-256 is not the manifest's")


@needs_runtime
def test_one_thread_without_isolation(browser: Any, artifact: Artifact) -> None:
    isolating = ("Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy")
    headers = {name: value for name, value in HEADERS.items() if name not in isolating}
    with tile_of(browser, FakeSession(artifact), headers=headers) as tile:
        tile.expect("Only one thread")
        assert tile.page.get_by_label("Threads").locator("option").count() == 1
        tile.start()
        tile.expect("1 thread")
        image = scene(64, 48, 0)
        assert np.array(tile.classify(image)["logits"]) == pytest.approx(expected_logits(artifact, image), abs=1e-3)


@pytest.mark.slow
@needs_runtime
def test_stop_and_start_again(browser: Any, artifact: Artifact) -> None:
    with tile_of(browser, FakeSession(artifact)) as tile:
        tile.start()
        tile.classify(scene(64, 48, 0), 0)
        tile.page.get_by_role("button", name="Stop").click()
        tile.expect("Stopped.")
        tile.show(scene(64, 48, 0), 1)
        tile.start()
        tile.expect("weights fashion-mnist")
        tile.classify(scene(64, 48, 0), 2)
        assert tile.page.evaluate("browserResults.map(({ sequence }) => sequence)") == [0, 2]
