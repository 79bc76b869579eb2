"""Live sources show only the newest frame; what is lost comes back, with another size if need be; nothing hangs."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from demos.live.sources import capture
from demos.live.sources.capture import CaptureSource
from demos.live.sources.live import LiveSource
from demos.live.sources.opencv import FrameReader, opencv
from simplenet.errors import SourceError
from tests.demos.live.sources.scripted_camera import ScriptedCamera, brightness, source_of
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("quick_pauses")


@pytest.fixture
def camera() -> ScriptedCamera:
    return ScriptedCamera()


def end(source: CaptureSource, *cameras: ScriptedCamera) -> None:
    """Lets the blocked reads go, so that the reader can end."""
    source.request_stop()
    for camera in cameras:
        camera.end()
    source.close()


def test_a_live_source_hands_over_the_newest_frame_and_counts_the_others(camera: ScriptedCamera) -> None:
    source = source_of(camera)
    for value in (10, 20, 30):  # before anybody has asked: not lost, nobody wanted them yet
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
    assert source.next() is None
    assert (source.state, source.dropped, source.reconnects) == ("ended", 3, 0)
    assert camera.releases == 1


def test_a_waiting_caller_is_woken_by_the_frame_itself_and_so_is_the_shared_condition(camera: ScriptedCamera) -> None:
    changed = threading.Condition()
    source = source_of(camera)
    source.subscribe(changed)
    assert brightness(source) == 1
    assert source.next(timeout_s=0.01) is None
    assert source.state == "running"
    threading.Timer(0.1, camera.show, [90]).start()
    asked_s = time.perf_counter()
    frame = source.next()
    assert frame is not None
    assert frame.captured_s > asked_s
    with changed:
        threading.Timer(0.1, camera.show, [91]).start()
        assert changed.wait(10)
        wait_until(lambda: source.ready_at_s() == 0)
    assert brightness(source) == 91
    end(source, camera)


def test_a_lost_camera_comes_back_with_another_size_and_never_as_a_black_picture(camera: ScriptedCamera) -> None:
    second = ScriptedCamera()
    source = source_of(camera, second)
    assert brightness(source) == 1
    camera.show(50)
    assert brightness(source) == 50
    camera.end()
    assert brightness(source) == 1  # the second's first
    assert (source.state, source.reconnects, source.note) == ("running", 1, None)
    second.show(60, width=12, height=6)
    frame = source.next()
    assert frame is not None
    assert frame.image.shape == (6, 12, 3)
    second.end()
    wait_until(lambda: source.state == "reconnecting" and "cannot be opened" in str(source.note))
    assert source.next(timeout_s=0.05) is None
    source.close()
    assert camera.releases == second.releases == 1


def test_a_lost_camera_that_stays_away_has_failed_after_a_while(camera: ScriptedCamera) -> None:
    with source_of(camera, reconnect_timeout_s=0.2) as source:
        assert brightness(source) == 1
        camera.end()
        for _ in range(2):
            with pytest.raises(SourceError, match=r"camera 7 gave no frame for 0\.2 s: camera 7 cannot be opened"):
                source.next()
        assert source.state == "failed"
        assert "\n" not in str(source.note)


def test_the_pauses_between_tries_double_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MAX_BACKOFF_S", 0.04)
    tries_s: list[float] = []

    def open() -> FrameReader:
        tries_s.append(time.perf_counter())
        raise SourceError("unplugged")

    with CaptureSource("camera 7", "camera", open, reconnect_timeout_s=0.5) as source:
        wait_until(lambda: source.state == "failed")
    gaps_s = np.diff(tries_s)
    assert gaps_s[0] >= 0.02
    assert min(gaps_s[1:-1]) >= 0.04  # the last is cut short by the end of patience
    assert len(tries_s) >= 4


def test_close_does_not_wait_for_a_pause(camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FIRST_BACKOFF_S", 3600.0)
    source = source_of(camera, reconnect_timeout_s=10_000)
    camera.end()
    wait_until(lambda: source.state == "reconnecting")
    source.close()
    assert not [thread for thread in threading.enumerate() if thread.name == f"reader of {source.name}"]
    source.close()


def test_a_driver_that_raises_is_a_lost_camera_and_a_frame_that_is_none_a_failure(camera: ScriptedCamera) -> None:
    second = ScriptedCamera()
    source = source_of(camera, second)
    camera.frames.put(opencv().error("the driver is\nconfused"))
    wait_until(lambda: source.reconnects == 1)
    second.frames.put(np.zeros((10_000, 10_000, 3), np.uint8))
    wait_until(lambda: source.state == "failed")
    assert source.next() is not None  # the one before
    with pytest.raises(SourceError, match="10000x10000, over 50 megapixels"):
        source.next()
    source.close()


def test_single_damaged_frames_are_passed_over(camera: ScriptedCamera) -> None:
    source = source_of(camera)
    assert brightness(source) == 1
    for _ in range(3):
        camera.frames.put(None)
    camera.show(20)
    assert brightness(source) == 20
    assert source.reconnects == 0
    end(source, camera)


def test_a_paced_video_from_the_network_comes_at_its_own_rate_and_whole(camera: ScriptedCamera) -> None:
    for value in range(2, 7):
        camera.show(value)
    camera.end()
    start_s = time.perf_counter()
    with source_of(camera, frames=6, pace=True) as source:  # of 100 frames a second
        assert [brightness(source) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        assert time.perf_counter() - start_s >= 5 / 100 - 0.001  # it may be slower, never faster
        assert source.next() is None
        assert (source.state, source.is_live, source.note) == ("ended", False, None)


def test_a_stall_is_not_waited_for_again_and_again(camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos.live.sources.opencv.MAX_DAMAGED_S", 0.0)
    source = source_of(camera)
    camera.frames.put(None)  # after a read that took too long
    wait_until(lambda: source.state == "reconnecting")
    assert camera.reads == 1
    source.close()


def test_what_is_pushed_is_the_newest_frame_of_a_visitor() -> None:
    source = LiveSource("visitor", "visitor")
    source.push(np.full((4, 4, 3), 1, np.uint8))
    source.push(np.full((4, 4, 3), 2, np.uint8))
    frame = source.poll()
    assert frame is not None
    assert frame.image[0, 0, 0] == 2
    source.set_state("failed", "the visitor sent garbage")
    with pytest.raises(SourceError, match="the visitor sent garbage"):
        source.next()
    source.push(np.full((4, 4, 3), 3, np.uint8))
    assert source.poll() is None
    other = LiveSource("visitor", "visitor")
    other.push(np.full((4, 4, 3), 1, np.uint8))
    other.close()
    assert other.next() is None
