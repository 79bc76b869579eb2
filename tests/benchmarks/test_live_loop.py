"""Overhead of the live loop and of a viewer of the page: `make bench`. No timing is asserted.

The time of a row is that of a whole run of frames. The overhead is in the extra information
(`make bench ARGS=--benchmark-json=bench.json`), and printed with `make bench ARGS=-s`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import runtimes
from demos import webcam
from demos.live.model_config import ModelConfig
from demos.live.model_group import ModelGroup
from demos.live.page.server import Page
from demos.live.session import Session
from demos.live.sources.base import Frame, Source
from demos.live.sources.factory import open_source
from demos.live.sources.scheduler import SourceScheduler
from demos.live.window.display import Display
from demos.live.window.view import Screen
from demos.models import ModelRequest
from simplenet import image_sets
from simplenet.preprocessing import IMAGENET_PREPROCESSING
from tests.conftest import MakeArtifact

FRAMES = 1000
CASES = [("onnx", "fp32"), ("openvino", "int8")]

# Stands in for a browser, in its own process: receives every image and requests the next one.
_VIEWER = """
import json, sys
from websockets.sync.client import connect
with connect(sys.argv[1], origin=sys.argv[2], max_size=None) as socket:
    print("connected", flush=True)
    for message in socket:
        if isinstance(message, str):
            head = json.loads(message)
            missing = head.get("jpeg_bytes", 0)
        else:
            missing -= len(message)
            if missing == 0:
                socket.send(json.dumps({"shown": head["number"]}))
"""


class Still(Source):
    """The same 640x480 image as every frame, at no cost, so that only the rest of the loop is measured."""

    is_live = False

    def __init__(self) -> None:
        super().__init__("still", "file")
        self._image = np.ascontiguousarray(image_sets.synthetic(1, IMAGENET_PREPROCESSING)[0])
        self._image = np.resize(self._image, (480, 640, 3))

    def poll(self) -> Frame | None:
        return Frame(self._image, 0.0)

    def ready_at_s(self) -> float:
        return 0.0

    def close(self) -> None:
        self.state = "ended"


def session_of(make_artifact: MakeArtifact, format: str, precision: str, source: Source) -> Session:
    artifact = make_artifact(format, precision)
    model = runtimes.load(artifact)
    request = ModelRequest(artifact=artifact.folder, precision=model.precision)
    config = ModelConfig(request, (model.name,), manifest=model.manifest)
    model_group = ModelGroup([model])
    model_group.warm_up()
    return Session(SourceScheduler([source]), config, model_group, log=lambda line: None)


def run(session: Session, frames: int) -> dict[str, float]:
    """Medians of one run of `frames` frames."""
    start = session.timer.frames
    webcam.run(session, Screen(session, Display(), Path()), max_frames=start + frames)
    summary = session.summary("--max-frames")
    (stats,) = session.model_group.stats.values()
    infer_ms = float(np.median(stats.infer.latest_ms(frames)))
    return {"infer_p50_ms": infer_ms, "loop_ms": summary.seconds * 1e3 / frames}


@pytest.mark.slow
@pytest.mark.parametrize(("format", "precision"), CASES, ids=lambda value: str(value))
def test_loop_overhead(benchmark: BenchmarkFixture, make_artifact: MakeArtifact, format: str, precision: str) -> None:
    """640x480, no display: time per frame minus inference. The goal is 0.5 ms."""
    runs: list[dict[str, float]] = []
    with session_of(make_artifact, format, precision, Still()) as session:
        benchmark.group = f"live loop, {FRAMES} frames"
        frames = 50 if benchmark.disabled else FRAMES
        benchmark.pedantic(lambda: runs.append(run(session, frames)), rounds=5, warmup_rounds=1)
    overhead_ms = sorted(one["loop_ms"] - one["infer_p50_ms"] for one in runs[1:] or runs)
    benchmark.extra_info |= {"overhead_ms": overhead_ms, "infer_p50_ms": [one["infer_p50_ms"] for one in runs]}
    print(f"\n{format} {precision}: overhead {overhead_ms[0]:.3f} to {overhead_ms[-1]:.3f} ms a frame")


@pytest.fixture
def live_session(make_artifact: MakeArtifact) -> Iterator[Session]:
    with session_of(make_artifact, "onnx", "fp32", open_source("synthetic:640x480@30")) as session:
        yield session


def test_viewer_overhead(benchmark: BenchmarkFixture, live_session: Session) -> None:
    """Inference p50 at 30 frames per second, with and without a viewer, alternating. The goal is 5 %."""
    seconds, without, with_viewer = (0.2, [], []) if benchmark.disabled else (3.0, [], [])

    def infer_p50_ms() -> float:
        before = live_session.timer.frames
        webcam.run(live_session, Screen(live_session, Display(), Path()), duration_s=seconds)
        (stats,) = live_session.model_group.stats.values()
        return float(np.median(stats.infer.latest_ms(live_session.timer.frames - before)))

    with Page(live_session, port=0) as page:

        def alternate() -> None:
            without.append(infer_p50_ms())
            address = page.url.replace("http", "ws") + "live"
            command = [sys.executable, "-c", _VIEWER, address, page.url.rstrip("/")]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as viewer:
                assert viewer.stdout is not None
                assert viewer.stdout.readline() == b"connected\n"
                with_viewer.append(infer_p50_ms())
                viewer.kill()

        benchmark.pedantic(alternate, rounds=1 if benchmark.disabled else 10)
    ratios = sorted(viewed / alone for viewed, alone in zip(with_viewer, without, strict=True))
    benchmark.extra_info |= {"infer_p50_ratios": ratios, "without_ms": without, "with_viewer_ms": with_viewer}
    print(
        f"\ninfer p50 with a viewer: {ratios[0]:.3f} to {ratios[-1]:.3f} of that without, {np.median(without):.3f} ms"
    )


@pytest.mark.slow
def test_memory_does_not_grow(make_artifact: MakeArtifact) -> None:
    """10,000 frames of 0.9 MB. This is asserted, because it is not a timing."""
    process = psutil.Process()
    with session_of(make_artifact, "onnx", "fp32", Still()) as session:
        run(session, 500)
        before = process.memory_info().rss
        run(session, 10_000)
        grown_mb = (process.memory_info().rss - before) / 1e6
    assert session.timer.frames == 10_500
    assert grown_mb < 20  # only the samples of the summary are kept, and their number is bounded
    print(f"\nmemory after 10,000 frames: {grown_mb:+.1f} MB")
