"""What the live loop adds to its model, and what somebody who looks at the page adds: `make bench`.

Nothing is asserted about time. A row's own time is that of a whole run of frames; what counts is in the extra
information (`make bench ARGS=--benchmark-json=bench.json`), and printed with `make bench ARGS=-s`.
"""

from __future__ import annotations

import argparse
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
from demos.live.window.display import NoDisplay
from demos.live.window.view import Screen
from simplenet import image_sets
from simplenet.preprocessing import IMAGENET_PREPROCESSING
from tests.conftest import MakeArtifact

FRAMES = 1000
CASES = [("onnx", "fp32"), ("openvino", "int8")]

# A browser's part, in a process of its own: it takes every picture and asks for the next one.
_VIEWER = """
import json, sys
from websockets.sync.client import connect
with connect(sys.argv[1], origin=sys.argv[2], max_size=None) as socket:
    print("looking", flush=True)
    for message in socket:
        if isinstance(message, bytes):
            head = json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])
            socket.send(json.dumps({"shown": head["number"]}))
"""


class Still(Source):
    """The same 640x480 picture again and again, at no cost: what is measured is everything behind it."""

    is_live = False

    def __init__(self) -> None:
        super().__init__("still", "file")
        self._image = np.ascontiguousarray(image_sets.synthetic(1, IMAGENET_PREPROCESSING)[0])
        self._image = np.resize(self._image, (480, 640, 3))

    def next(self, timeout_s: float | None = None) -> Frame | None:
        return self.poll()

    def poll(self) -> Frame | None:
        return Frame(self._image, 0.0)

    def ready_at_s(self) -> float:
        return 0.0

    def close(self) -> None:
        self.state = "ended"


def session_of(make_artifact: MakeArtifact, format: str, precision: str, source: Source) -> Session:
    artifact = make_artifact(format, precision)
    model = runtimes.load(artifact)
    flags = argparse.Namespace(artifact=artifact.folder, variant=None, weights="auto", precision=None)
    selection = ModelConfig(flags, (model.name,), model.precision, manifest=model.manifest)
    model_group = ModelGroup([model])
    model_group.warm_up()
    return Session(SourceScheduler([source]), selection, model_group, log=lambda line: None)


def run(session: Session, frames: int) -> dict[str, float]:
    """Medians of one run of so many frames."""
    already, kept = session.timer.frames, session.model_group.records
    webcam.run(session, Screen(session, NoDisplay(), Path()), max_frames=already + frames)
    summary = session.summary("--max-frames")
    (record,) = kept.values()
    infer_ms = float(np.median(record.infer.latest_ms(frames)))
    return {"infer_p50_ms": infer_ms, "loop_ms": summary.seconds * 1e3 / frames}


@pytest.mark.parametrize(("format", "precision"), CASES, ids=lambda value: str(value))
def test_everything_around_the_model(
    benchmark: BenchmarkFixture, make_artifact: MakeArtifact, format: str, precision: str
) -> None:
    """640x480, no display: a loop's time for a frame less its model's. The goal is 0.5 ms."""
    runs: list[dict[str, float]] = []
    with session_of(make_artifact, format, precision, Still()) as session:
        benchmark.group = f"live loop, {FRAMES} frames"
        benchmark.pedantic(lambda: runs.append(run(session, FRAMES)), rounds=5, warmup_rounds=1)
    around_ms = sorted(one["loop_ms"] - one["infer_p50_ms"] for one in runs[1:] or runs)
    benchmark.extra_info |= {"around_the_model_ms": around_ms, "infer_p50_ms": [one["infer_p50_ms"] for one in runs]}
    print(f"\n{format} {precision}: around the model {around_ms[0]:.3f} to {around_ms[-1]:.3f} ms a frame")


@pytest.fixture
def live_session(make_artifact: MakeArtifact) -> Iterator[Session]:
    with session_of(make_artifact, "onnx", "fp32", open_source("synthetic:640x480@30")) as session:
        yield session


def test_somebody_looks_at_the_page(benchmark: BenchmarkFixture, live_session: Session) -> None:
    """The model's p50 at 30 frames a second, with a viewer and without, in turns. The goal is 5 %."""
    seconds, without, with_viewer = (0.2, [], []) if benchmark.disabled else (3.0, [], [])

    def infer_p50_ms() -> float:
        before = live_session.timer.frames
        webcam.run(live_session, Screen(live_session, NoDisplay(), Path()), duration_s=seconds)
        (record,) = live_session.model_group.records.values()
        return float(np.median(record.infer.latest_ms(live_session.timer.frames - before)))

    with Page(live_session, port=0) as page:

        def in_turns() -> None:
            without.append(infer_p50_ms())
            address = page.url.replace("http", "ws") + "live"
            command = [sys.executable, "-c", _VIEWER, address, page.url.rstrip("/")]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as viewer:
                assert viewer.stdout is not None
                assert viewer.stdout.readline() == b"looking\n"
                with_viewer.append(infer_p50_ms())
                viewer.kill()

        benchmark.pedantic(in_turns, rounds=1 if benchmark.disabled else 10)
    ratios = sorted(looked / alone for looked, alone in zip(with_viewer, without, strict=True))
    benchmark.extra_info |= {"infer_p50_ratios": ratios, "without_ms": without, "with_viewer_ms": with_viewer}
    print(
        f"\ninfer p50 with a viewer: {ratios[0]:.3f} to {ratios[-1]:.3f} of that without, {np.median(without):.3f} ms"
    )


def test_memory_does_not_grow(make_artifact: MakeArtifact) -> None:
    """10,000 frames of 0.9 MB: what a loop of weeks must not keep. This is asserted, since it is not a time."""
    process = psutil.Process()
    with session_of(make_artifact, "onnx", "fp32", Still()) as session:
        run(session, 500)
        before = process.memory_info().rss
        run(session, 10_000)
        grown_mb = (process.memory_info().rss - before) / 1e6
    assert session.timer.frames == 10_500
    assert grown_mb < 20  # the samples of the summary are the only thing that is kept, and they are bounded
    print(f"\nmemory after 10,000 frames: {grown_mb:+.1f} MB")
