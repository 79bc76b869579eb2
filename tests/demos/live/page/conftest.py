"""A small session for the page: a real scheduler and loop, with models that know three colors."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from demos.live import dashboard
from demos.live.page.frames import encode_jpeg
from demos.live.page.server import Page
from demos.live.result import FrameResult, ModelResult
from demos.live.sources.base import LiveSource
from demos.live.sources.scheduler import SourceScheduler
from runtimes import Prediction
from simplenet.artifacts import Artifact
from simplenet.errors import ArtifactError, UsageError
from tests.demos.live.page.chromium import OpenTab, Tab

COLORS = ("red", "green", "blue")
CROP = [0.125, 0.0, 0.875, 1.0]
CHOICES = {"backend": ["onnxruntime", "openvino", "torch"], "precision": ["fp32", "int8"], "variant": ["1.5m", "3m"]}


class Scene(LiveSource):
    """A local camera that gives frames of one `color`, 30 times a second."""

    def __init__(self, name: str = "camera 0") -> None:
        super().__init__(name, "camera")
        self.color, self.size = "red", (640, 480)
        self._over = threading.Event()
        self._player = threading.Thread(target=self._play, daemon=True)
        self._player.start()

    def _play(self) -> None:
        while not self._over.wait(1 / 30):
            self.push(plain(self.color, *self.size))

    def lose(self, note: str) -> None:
        """Give no frames any more, and reconnect."""
        self._over.set()
        self._player.join()
        self.set_state("reconnecting", note)

    def close(self) -> None:
        self._over.set()
        super().close()


class Demo:
    """The part of a Session that the page uses."""

    def __init__(self) -> None:
        self.scheduler = SourceScheduler()
        self.commands: list[tuple[str, str | None]] = []
        self.seen: list[FrameResult] = []
        self.facts: dict[str, Any] = {
            "paused": False,
            "switching": False,
            "recording": None,
            "notice": None,
            "untrained": False,
            "preprocessing_doubt": "",
        }
        self.selected: dict[str, Any] = {"backend": ["onnxruntime", "openvino"], "precision": "fp32", "variant": "1.5m"}
        self._listeners: list[Callable[[FrameResult], None]] = []
        self._latencies: deque[float] = deque([0.3], maxlen=60)
        self._frames: dict[int, tuple[int, int, int]] = {}
        self._number = 0
        self._over = False
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def command(self, name: str, value: str | None = None) -> None:
        if name in CHOICES:
            if value is None or not set(value.split(",")) <= set(CHOICES[name]):
                raise UsageError(f"unknown {name} {value!r}; one of: {', '.join(CHOICES[name])}")
            self.selected[name] = value.split(",") if name == "backend" else value
        elif name == "pause":
            self.facts["paused"] = not self.facts["paused"]
        elif name == "record":
            recording = {"path": "/tmp/simplenet.mp4", "seconds": 72.5}
            self.facts["recording"] = None if self.facts["recording"] else recording
        self.commands.append((name, value))

    def state(self) -> dict[str, Any]:
        state = {
            "schema_version": 1, "variant": self.selected["variant"], "weights": "fashion-mnist", "ended": None,
            "loop_fps": 30.0, "frames": self._number,
            "choices": CHOICES, "selected": self.selected, **self.facts,
            "sources": [self._source(source) for source in self.scheduler.sources],
            "models": [self._model(at, name) for at, name in enumerate(self.selected["backend"])],
        }  # fmt: skip
        return {**state, "dashboard": dashboard.build(state)}

    def subscribe(self, callback: Callable[[FrameResult], None]) -> None:
        self._listeners.append(callback)

    def onnx_artifact(self) -> Artifact:
        raise ArtifactError("this demo has no model; type: python export/to_onnx.py")

    def close(self) -> None:
        self._over = True
        self._thread.join(5)
        self.scheduler.close()

    def _loop(self) -> None:
        while not self._over:
            served = None if self.facts["paused"] else self.scheduler.next(0.02)
            if served is None:
                time.sleep(0.005)
                continue
            source, frame = served
            self._number += 1
            width, height = frame.image.shape[1::-1]
            self._frames[source.id] = self._frames.get(source.id, (0, 0, 0))[0] + 1, width, height
            age_ms = (time.perf_counter() - frame.captured_s) * 1e3
            answers = tuple(self._answer(at, name, frame.image) for at, name in enumerate(self.selected["backend"]))
            update = FrameResult(source, frame, answers, age_ms, 0.1, self._number)
            self.seen = [*self.seen[-9:], update]
            for listener in list(self._listeners):
                listener(update)

    def _answer(self, at: int, backend: str, image: npt.NDArray[np.uint8]) -> ModelResult:
        light = image.reshape(-1, 3).mean(axis=0) + 1e-3
        shares = light / light.sum()
        best = [Prediction(COLORS[index], int(index), float(shares[index])) for index in np.argsort(-shares)]
        latency_ms = 0.2 + 0.1 * at + 0.05 * abs(np.sin(self._number / 3))
        self._latencies.append(latency_ms)
        name = f"{backend} {self.selected['precision']}"
        return ModelResult(
            name, backend, self.selected["precision"], tuple(best), latency_ms, None if at == 0 else True
        )

    def _model(self, at: int, backend: str) -> dict[str, Any]:
        recent = [latency + 0.1 * at for latency in list(self._latencies)]
        return {
            "name": f"{backend} {self.selected['precision']}", "backend": backend, "device": "CPU", "threads": 2,
            "precision": self.selected["precision"], "infer_p50_ms": float(np.median(recent)), "infer_p90_ms": None,
            "recent_infer_ms": recent, "agrees_percent": None if at == 0 else 99.5, "compared": 200 * (at > 0),
        }  # fmt: skip

    def _source(self, source: Any) -> dict[str, Any]:
        frames, width, height = self._frames.get(source.id, (0, 0, 0))
        return {
            "id": source.id, "name": source.name, "kind": source.kind, "is_live": True, "state": source.state,
            "note": source.note, "width": width, "height": height, "frames": frames, "dropped": source.dropped,
            "reconnects": source.reconnects, "frame_age_p50_ms": 0.2, "frame_age_p90_ms": None,
            "crop": CROP if frames else None,
        }  # fmt: skip


def plain(color: str, width: int = 64, height: int = 48) -> npt.NDArray[np.uint8]:
    """An image of one color, RGB uint8 [H, W, 3]."""
    image = np.full((height, width, 3), 20, np.uint8)
    image[..., COLORS.index(color)] = 220
    return image


@pytest.fixture
def demo() -> Iterator[Demo]:
    demo = Demo()
    yield demo
    demo.close()


@pytest.fixture
def scene(demo: Demo) -> Scene:
    scene = Scene()
    demo.scheduler.add(scene)
    return scene


@pytest.fixture
def page(demo: Demo, scene: Scene) -> Iterator[Page]:
    with Page(demo, port=0) as page:
        yield page


@pytest.fixture(scope="module")
def shared_page() -> Iterator[Page]:
    """A page for tests that do not change its state: starting one takes 0.2 s, and running it a fifth of a core."""
    demo = Demo()
    demo.scheduler.add(Scene())
    with contextlib.closing(demo), Page(demo, port=0) as page:
        yield page


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
    """Chromium's flag for a fake camera: green for a second, then blue, and so on."""
    path = tmp_path_factory.mktemp("film") / "film.mjpeg"
    frames = [encode_jpeg(plain(color, 320, 240)) for color in ("green", "blue") for _ in range(30)]
    path.write_bytes(b"".join(frames))
    return f"--use-file-for-fake-video-capture={path}"
