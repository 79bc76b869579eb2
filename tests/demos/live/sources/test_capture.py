"""Cameras and streams: the newest frame is read, a lost capture is reopened, and nothing blocks forever."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from demos.live.sources import capture
from demos.live.sources.base import FrameReader
from demos.live.sources.capture import CaptureSource
from demos.live.sources.opencv import opencv
from simplenet.errors import SourceError
from tests.demos.live.sources.scripted_camera import ScriptedCamera, brightness, next_frame, source_of
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("quick_pauses")


@pytest.fixture
def camera() -> ScriptedCamera:
    return ScriptedCamera()


def end(source: CaptureSource, *cameras: ScriptedCamera) -> None:
    """Unblock the reads, so that the thread can end."""
    source.request_stop()
    for camera in cameras:
        camera.end()
    source.close()


def test_returns_newest_frame_and_counts_dropped_ones(camera: ScriptedCamera) -> None:
    source = source_of(camera)
    for value in (10, 20, 30):  # before the first read: not counted as dropped
        camera.show(value)
    camera.wait_for_reads(4)
    assert brightness(source) == 30
    assert source.dropped == 0
    assert source.poll() is None
    for value in (40, 50, 60, 70):
        camera.show(value)
    camera.wait_for_reads(8)
    assert brightness(source) == 70
    assert source.dropped == 3
    camera.show(80)
    assert brightness(source) == 80
    end(source, camera)
    assert next_frame(source) is None
    assert (source.state, source.dropped, source.reconnects) == ("ended", 3, 0)
    assert camera.releases == 1


def test_frame_wakes_reader_and_subscribed_condition(camera: ScriptedCamera) -> None:
    changed = threading.Condition()
    source = source_of(camera)
    source.subscribe(changed)
    assert brightness(source) == 1
    assert next_frame(source, 0.01) is None
    assert source.state == "running"
    threading.Timer(0.05, camera.show, [90]).start()
    start_s = time.perf_counter()
    frame = next_frame(source)
    assert frame is not None
    assert frame.captured_s > start_s
    with changed:
        threading.Timer(0.05, camera.show, [91]).start()
        assert changed.wait(10)
        wait_until(lambda: source.ready_at_s() == 0)
    assert brightness(source) == 91
    end(source, camera)


def test_reconnects_with_another_frame_size_and_no_black_frame(camera: ScriptedCamera) -> None:
    second = ScriptedCamera()
    source = source_of(camera, second)
    assert brightness(source) == 1
    camera.show(50)
    assert brightness(source) == 50
    camera.end()
    assert brightness(source) == 1  # the second's first
    assert (source.state, source.reconnects, source.note) == ("running", 1, None)
    second.show(60, width=12, height=6)
    frame = next_frame(source)
    assert frame is not None
    assert frame.image.shape == (6, 12, 3)
    second.end()
    wait_until(lambda: source.state == "reconnecting" and "cannot be opened" in str(source.note))
    assert next_frame(source, 0.05) is None
    source.close()
    assert camera.releases == second.releases == 1


def test_fails_after_the_reconnect_timeout(camera: ScriptedCamera) -> None:
    with source_of(camera, reconnect_timeout_s=0.2) as source:
        assert brightness(source) == 1
        camera.end()
        for _ in range(2):
            with pytest.raises(SourceError, match=r"camera 7 gave no frame for 0\.2 s: camera 7 cannot be opened"):
                next_frame(source)
        assert source.state == "failed"
        assert "\n" not in str(source.note)


def test_backoff_doubles_up_to_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MAX_BACKOFF_S", 0.04)
    tries_s: list[float] = []

    def open() -> FrameReader:
        tries_s.append(time.perf_counter())
        raise SourceError("unplugged")

    with CaptureSource("camera 7", "camera", open, reconnect_timeout_s=0.3) as source:
        wait_until(lambda: source.state == "failed")
    gaps_s = np.diff(tries_s)
    assert gaps_s[0] >= 0.02
    assert min(gaps_s[1:-1]) >= 0.04  # the reconnect timeout cuts the last one short
    assert len(tries_s) >= 4


@pytest.mark.parametrize(("stable_s", "grows"), [(3600.0, True), (0.0, False)])
def test_backoff_grows_while_a_stream_breaks_off_at_once(
    monkeypatch: pytest.MonkeyPatch, stable_s: float, grows: bool
) -> None:
    monkeypatch.setattr(capture, "STABLE_S", stable_s)
    pauses_s: list[float] = []
    camera = ScriptedCamera()
    source = source_of(camera, *(short := [ScriptedCamera() for _ in range(5)]))
    wait_for = source._changed.wait_for
    monkeypatch.setattr(
        source._changed, "wait_for", lambda done, pause_s: pauses_s.append(pause_s) or wait_for(done, pause_s)
    )
    for each in (camera, *short):
        each.end()
    wait_until(lambda: len(pauses_s) >= 5)
    assert pauses_s[:5] == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32] if grows else [0.02] * 5)
    end(source, *short)


def test_close_interrupts_the_backoff(camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FIRST_BACKOFF_S", 3600.0)
    source = source_of(camera, reconnect_timeout_s=10_000)
    camera.end()
    wait_until(lambda: source.state == "reconnecting")
    source.close()
    assert not [thread for thread in threading.enumerate() if thread.name == f"reader of {source.name}"]
    source.close()


def test_driver_error_reconnects_and_unusable_frame_fails(camera: ScriptedCamera) -> None:
    second = ScriptedCamera()
    source = source_of(camera, second)
    camera.frames.put(opencv().error("the driver is\nconfused"))
    wait_until(lambda: source.reconnects == 1)
    second.frames.put(np.zeros((10_000, 10_000, 3), np.uint8))
    wait_until(lambda: source.state == "failed")
    assert next_frame(source) is not None  # the one before
    with pytest.raises(SourceError, match="10000x10000, over 50 megapixels"):
        next_frame(source)
    source.close()


def test_skips_single_damaged_frames(camera: ScriptedCamera) -> None:
    source = source_of(camera)
    assert brightness(source) == 1
    for _ in range(3):
        camera.frames.put(None)
    camera.show(20)
    assert brightness(source) == 20
    assert source.reconnects == 0
    end(source, camera)


def test_stalled_read_is_not_retried(camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos.live.sources.opencv.MAX_DAMAGED_S", 0.0)
    source = source_of(camera)
    camera.frames.put(None)  # after a read that took too long
    wait_until(lambda: source.state == "reconnecting")
    assert camera.reads == 1
    source.close()
