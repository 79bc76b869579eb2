"""Several sources are served in turn; a fast or failing source does not affect the others."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from demos.live.sources import files
from demos.live.sources.base import LiveSource, Source
from demos.live.sources.factory import open_source
from demos.live.sources.scheduler import SourceScheduler
from tests.demos.conftest import WriteVideo, shades
from tests.demos.live.sources.network_camera import Request, send_burst, serving, start_stream
from tests.demos.live.sources.scripted_camera import ScriptedCamera, red_frame, source_of, video_of
from tests.waiting import wait_until


class CountedFrames:
    """Stands in for cv2.VideoCapture: `count` frames, the n-th of brightness n."""

    def __init__(self, count: int) -> None:
        self.count, self.given, self.releases = count, 0, 0

    def read(self) -> tuple[bool, np.ndarray | None]:  # type: ignore[type-arg]
        if self.given == self.count:
            return False, None
        self.given += 1
        return True, red_frame(self.given)

    def release(self) -> None:
        self.releases += 1


def pixel(value: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.full((2, 2, 3), value, np.uint8)


@given(counts=st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_files_drop_no_frame_and_take_even_turns(counts: list[int]) -> None:
    captures = [CountedFrames(count) for count in counts]
    scheduler = SourceScheduler(map(video_of, captures))
    seen: dict[int, list[int]] = {number: [] for number in range(len(counts))}
    order: list[int] = []
    while not scheduler.all_ended:
        served = scheduler.next(timeout_s=5)
        if served is None:
            break
        source, frame = served
        seen[source.id].append(int(frame.image[0, 0, 0]))
        order.append(source.id)
    assert {number: list(range(1, count + 1)) for number, count in enumerate(counts)} == seen
    for until in range(len(order)):  # at any time, of those with frames left, none is more than one turn behind
        turns = Counter(order[:until])
        left = [turns[number] for number, count in enumerate(counts) if turns[number] < count]
        assert not left or max(left) - min(left) <= 1
    scheduler.close()
    assert all(capture.releases == 1 for capture in captures)


@given(pushes=st.lists(st.integers(0, 3), max_size=40), takes=st.lists(st.booleans(), max_size=40))
def test_live_frames_are_served_or_counted_as_dropped(pushes: list[int], takes: list[bool]) -> None:
    sources = [LiveSource(str(number), "visitor") for number in range(4)]
    scheduler = SourceScheduler(sources)
    for source in sources:
        source.poll()  # dropped frames are counted from the first read on
    pushed, served = Counter[int](), Counter[int]()
    latest: dict[int, int] = {}
    for step, (number, take) in enumerate(zip(pushes, takes, strict=False)):
        sources[number].push(pixel(step))
        pushed[number] += 1
        latest[number] = step
        if take and (received := scheduler.next(timeout_s=0)) is not None:
            assert received[1].image[0, 0, 0] == latest.pop(received[0].id)  # the newest one
            served[received[0].id] += 1
    while (received := scheduler.next(timeout_s=0)) is not None:
        served[received[0].id] += 1
    assert {number: served[number] + sources[number].dropped for number in pushed} == dict(pushed)


def test_fast_source_does_not_starve_others() -> None:
    loud, quiet = LiveSource("loud", "visitor"), LiveSource("quiet", "visitor")
    scheduler = SourceScheduler([loud, quiet])
    for number in range(20):
        loud.push(pixel(number))
        served = scheduler.next(timeout_s=0)
        assert served is not None
        assert served[0] is loud
        loud.push(pixel(number))  # it always has one
        quiet.push(pixel(number))
        served = scheduler.next(timeout_s=0)
        assert served is not None
        assert served[0] is quiet
        assert scheduler.next(timeout_s=0) is not None


def test_frame_wake_and_end_wake_the_loop() -> None:
    source = LiveSource("visitor", "visitor")
    scheduler = SourceScheduler([source])
    threading.Timer(0.05, source.push, [pixel(3)]).start()
    served = scheduler.next(timeout_s=30)
    assert served is not None
    assert served[0] is source
    threading.Timer(0.05, scheduler.wake).start()
    start_s = time.monotonic()
    assert scheduler.next(timeout_s=30) is None
    assert time.monotonic() - start_s < 20
    scheduler.wake()  # before `next` waits
    assert scheduler.next(timeout_s=30) is None
    assert scheduler.next(timeout_s=0.01) is None
    threading.Timer(0.05, source.close).start()
    assert scheduler.next(timeout_s=30) is None
    assert scheduler.all_ended


def test_adds_and_removes_sources_while_waiting() -> None:
    scheduler = SourceScheduler()
    assert not scheduler.all_ended  # a visitor may come
    source = LiveSource("visitor", "visitor")

    def come() -> None:
        source.push(pixel(1))
        scheduler.add(source)

    threading.Timer(0.05, come).start()
    served = scheduler.next(timeout_s=30)
    assert served is not None
    assert (served[0], source.id, scheduler.sources) == (source, 0, (source,))
    other = LiveSource("other", "visitor")
    scheduler.add(other)
    assert scheduler.sources == (source, other)
    scheduler.remove(source)
    scheduler.remove(source)
    assert (source.state, scheduler.sources, other.id) == ("ended", (other,), 1)
    scheduler.close()
    assert other.state == "ended"
    late = LiveSource("late", "visitor")
    scheduler.add(late)
    assert late.state == "ended"
    assert scheduler.next(timeout_s=30) is None


def test_serves_the_last_frame_of_an_ended_source() -> None:
    source = LiveSource("visitor", "visitor")
    scheduler = SourceScheduler([source])
    source.push(pixel(9))
    source.set_state("ended", None)
    assert not scheduler.all_ended
    assert scheduler.next(timeout_s=1) is not None
    assert scheduler.all_ended


def test_paced_file_does_not_delay_a_camera(tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    camera = ScriptedCamera()
    live = source_of(camera)
    scheduler = SourceScheduler([open_source(str(tmp_path), pace=True), live])
    names = []
    for number in range(6):
        served = scheduler.next(timeout_s=10)
        assert served is not None
        names.append(served[0].kind)
        if served[0] is live:
            camera.show(number)
    assert names == ["images"] + 5 * ["camera"]
    live.request_stop()
    camera.end()
    scheduler.close()


def test_failing_sources_do_not_affect_the_others(write_video: WriteVideo, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "junk.png").write_bytes(b"junk")
    clip = write_video("clip.avi", shades(10))

    def respond(request: Request, _: int) -> None:
        start_stream(request)
        send_burst(request, 90)

    with serving(respond) as host:
        stream = open_source(f"http://{host}/", reconnect_timeout_s=0.1)
    scheduler = SourceScheduler([
        open_source(str(tmp_path / "bad")),
        stream,
        open_source("http://127.0.0.1:9/", connect_in_background=True, reconnect_timeout_s=0.2),
        open_source(str(clip)),
    ])  # fmt: skip
    served: list[Source] = []
    while not scheduler.all_ended:
        if (received := scheduler.next(timeout_s=10)) is not None:
            served.append(received[0])
    states = [source.state for source in scheduler.sources]
    assert states == ["failed", "failed", "failed", "ended"]
    assert all(source.note for source in scheduler.sources[:3])
    counts = Counter(source.id for source in served)
    assert counts[3] == 10
    assert counts[1] >= 1
    scheduler.close()


def test_serves_a_paced_image_when_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "IMAGES_PER_SECOND", 20.0)
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    scheduler = SourceScheduler([open_source(str(tmp_path), pace=True)])
    start_s = time.monotonic()
    assert [scheduler.next(timeout_s=30) is not None for _ in range(4)] == [True, True, True, False]
    assert time.monotonic() - start_s < 20  # not after timeout_s


def test_requests_all_stops_before_waiting() -> None:
    events: list[str] = []

    class Slow(LiveSource):
        def request_stop(self) -> None:
            events.append("stop")

        def close(self) -> None:
            events.append("close")

    SourceScheduler([Slow("one", "visitor"), Slow("other", "visitor")]).close()
    assert events == ["stop", "stop", "close", "close"]


def test_close_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos.live.sources.ffmpeg.READ_TIMEOUT_S", 0.2)
    done = threading.Event()

    def respond(request: Request, _: int) -> None:
        start_stream(request)
        send_burst(request, 90)
        done.wait(20)

    try:
        with serving(respond) as host:
            scheduler = SourceScheduler(open_source(f"http://{host}/{number}") for number in range(4))
            wait_until(lambda: all(source.ready_at_s() == 0 for source in scheduler.sources))
            scheduler.close()
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader of")]
            done.set()
    finally:
        done.set()
