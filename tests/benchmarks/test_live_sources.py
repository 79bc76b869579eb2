"""Cost of frames before inference: `make bench`. No timing is asserted.

`frame-age` waits for frames, so its own time is the frame rate of the source. The frame age, from capture until the
loop has the frame, is in the extra information (`make bench ARGS=--benchmark-json=bench.json`): frame_age_p50_ms,
frame_age_p90_ms, n.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from demos.live.sources.base import LiveSource
from demos.live.sources.factory import open_source
from demos.live.sources.scheduler import SourceScheduler
from demos.live.sources.synthetic import Scene
from tests.demos.live.sources.network_camera import Request, jpeg, send_part, serving, start_stream

FRAMES = 300


@pytest.mark.parametrize("size", ["640x480", "1280x720", "1920x1080"])
def test_drawing_a_synthetic_frame(benchmark: BenchmarkFixture, size: str) -> None:
    width, height = map(int, size.split("x"))
    scene, numbers = Scene(width, height, 30), iter(range(10**9))
    benchmark.group = "drawing a synthetic frame"
    benchmark.pedantic(lambda: scene.frame(next(numbers)), rounds=FRAMES, warmup_rounds=20)


@pytest.mark.parametrize("count", [1, 8])
def test_reading_a_frame_that_is_ready(benchmark: BenchmarkFixture, count: int) -> None:
    sources = [LiveSource(str(number), "visitor") for number in range(count)]
    scheduler, pixels = SourceScheduler(sources), np.zeros((480, 640, 3), np.uint8)

    def push_and_read() -> None:
        sources[-1].push(pixels)
        assert scheduler.next(timeout_s=1) is not None

    benchmark.group = f"scheduler, {count} sources"
    benchmark.pedantic(push_and_read, rounds=1000, warmup_rounds=50)


def test_waking_a_waiting_loop(benchmark: BenchmarkFixture) -> None:
    """Round trip: the frame wakes the thread of the loop, which wakes this one."""
    source = LiveSource("visitor", "visitor")
    scheduler, pixels = SourceScheduler([source]), np.zeros((480, 640, 3), np.uint8)
    taken: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def loop() -> None:
        while not scheduler.all_ended:
            if scheduler.next(timeout_s=1) is not None:
                taken.put(True)

    def push_and_wait() -> None:
        source.push(pixels)
        taken.get()

    thread = threading.Thread(target=loop)
    thread.start()
    benchmark.group = "scheduler, the loop waits in another thread"
    benchmark.pedantic(push_and_wait, rounds=1000, warmup_rounds=50)
    scheduler.close()
    thread.join()


@contextlib.contextmanager
def address(kind: str) -> Iterator[str]:
    if kind == "synthetic":
        yield "synthetic:640x480@60"
        return

    def respond(request: Request, _: int) -> None:
        start_stream(request)
        content = jpeg(90, 640, 480)
        while True:
            send_part(request, content)
            time.sleep(1 / 60)

    with serving(respond) as host:
        yield f"http://{host}/live.mjpg"


@pytest.mark.parametrize("kind", ["synthetic", "http-mjpeg"])
def test_frame_age(benchmark: BenchmarkFixture, kind: str) -> None:
    ages_ms = []
    with address(kind) as text:
        scheduler = SourceScheduler([open_source(text)])

        def take() -> None:
            served = scheduler.next(timeout_s=10)
            assert served is not None
            ages_ms.append(1e3 * (time.perf_counter() - served[1].captured_s))

        benchmark.group = "frame-age"
        benchmark.pedantic(take, rounds=FRAMES, warmup_rounds=20)
        scheduler.close()
    p50_ms, p90_ms = np.percentile(ages_ms, [50, 90])
    benchmark.extra_info |= {"frame_age_p50_ms": p50_ms, "frame_age_p90_ms": p90_ms, "n": len(ages_ms)}
