"""Files lose no frame, live sources show only the newest, and whatever is wrong is one clear line."""

from __future__ import annotations

import base64
import http.server
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demos.live import sources
from demos.live.opencv import opencv
from demos.live.source_choice import open_source, redacted
from demos.live.sources import LiveSource, Source, VideoFile
from simplenet.errors import SourceError, UsageError
from tests.demos.conftest import WriteVideo, shades


def brightness(source: Source) -> float:
    """Of the next frame's red channel; the others must be dark."""
    frame = source.next()
    assert frame is not None
    assert frame.image.dtype == np.uint8
    assert frame.image[..., 1:].max() < 40
    return float(frame.image[..., 0].mean())


class ScriptedCamera:
    """Stands in for cv2.VideoCapture: `read` blocks until the test lets the next frame (or the end) through."""

    def __init__(self) -> None:
        self.frames: queue.Queue[npt.NDArray[np.uint8] | Exception | None] = queue.Queue()
        self.reads = self.releases = 0

    def read(self) -> tuple[bool, npt.NDArray[np.uint8] | None]:
        assert not self.releases, "read after release"
        self.reads += 1
        frame = self.frames.get(timeout=10)
        if isinstance(frame, Exception):
            raise frame
        return frame is not None, frame

    def release(self) -> None:
        self.releases += 1

    def show(self, brightness: int) -> None:
        frame = np.zeros((8, 8, 3), np.uint8)
        frame[..., 2] = brightness  # OpenCV's order is blue, green, red
        self.frames.put(frame)

    def wait_for_reads(self, count: int) -> None:
        """Until the reader asks for frame number `count`, so that those before it have been dealt with."""
        deadline = time.monotonic() + 10
        while self.reads < count:
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.fixture
def camera() -> ScriptedCamera:
    return ScriptedCamera()


def test_a_file_gives_every_frame_in_order_as_rgb_however_slow_the_caller(write_video: WriteVideo) -> None:
    path = write_video("clip.avi", shades(40))
    with open_source(str(path)) as source:
        assert not source.is_live
        seen = []
        for index in range(40):
            seen.append(brightness(source))
            if index == 5:
                time.sleep(0.2)
        assert source.next() is None
    np.testing.assert_allclose(seen, 5 * np.arange(40), atol=4)
    assert source.dropped == 0
    assert source.note is None


def test_a_truncated_file_gives_what_is_there_and_says_so(write_video: WriteVideo) -> None:
    path = write_video("clip.avi", shades(40))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with open_source(str(path)) as source:
        count = 0
        while source.next() is not None:
            count += 1
    assert 5 <= count < 40
    assert source.note == f"{path} announces 40 frames, {count} could be decoded"


def test_what_is_no_video_is_refused_in_one_line_that_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "empty.avi").touch()
    (tmp_path / "text.avi").write_text("a video, honestly\n" * 99)
    (tmp_path / "header.avi").write_bytes(b"RIFF\xff\xff\xff\xffAVI LIST")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    os.mkfifo(tmp_path / "pipe.avi")
    for name, complaint in {
        "missing.avi": "no such video",
        "empty.avi": "is empty",
        "text.avi": "is not a video",
        "header.avi": "is not a video",
        "pipe.avi": "is not a regular file",
        "picture.png": "is a picture, not a video; type: python demos/classify.py",
        ".": "is a folder, not a video; type: python demos/classify.py",
        "x" * 5000: "cannot read",
    }.items():
        with pytest.raises(SourceError, match=complaint) as caught:
            open_source(str(tmp_path / name))
        assert "\n" not in str(caught.value)
        assert "--source" in str(caught.value) or "classify.py" in str(caught.value)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.binary(min_size=1, max_size=400),
    kind=st.sampled_from([b"", b"RIFF\0\0\1\0AVI LIST", b"\0\0\0 ftypisom"]),
)
def test_random_bytes_are_never_more_than_a_source_error(tmp_path: Path, content: bytes, kind: bytes) -> None:
    path = tmp_path / "clip.avi"
    path.write_bytes(kind + content)
    with pytest.raises(SourceError), open_source(str(path)) as source:
        source.next()


def test_a_picture_named_as_a_video_is_not_taken_for_a_numbered_sequence(tmp_path: Path) -> None:
    cv2 = opencv()
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"frame{number:03}.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SourceError, match="no such video"):
        open_source(str(tmp_path / "frame%03d.png"))


def test_a_file_of_huge_frames_is_refused_before_one_is_read(
    write_video: WriteVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video("clip.avi", shades(2, width=640, height=480))
    monkeypatch.setattr(sources, "LARGEST_FRAME_MEGAPIXELS", 0.3)
    with pytest.raises(SourceError, match=r"640x480, over 0\.3 megapixels"):
        open_source(str(path))


def test_a_frame_that_grows_beyond_bounds_is_refused() -> None:
    camera = ScriptedCamera()
    camera.frames.put(np.zeros((5, 7, 3), np.uint8))
    camera.frames.put(np.zeros((10_000, 10_000, 3), np.uint8))
    with VideoFile("clip", camera, 0) as source:
        assert source.next() is not None
        with pytest.raises(SourceError, match="10000x10000, over 50 megapixels"):
            source.next()


def test_a_camera_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no camera 98: /dev/video98 does not exist; plug it in"):
        open_source("98")
    with pytest.raises(SourceError, match="camera /dev/null cannot be opened"):
        open_source("/dev/null")


def test_a_live_source_hands_over_the_newest_frame_and_counts_the_others(camera: ScriptedCamera) -> None:
    with LiveSource("camera", camera, may_end=True) as source:
        for value in (10, 20, 30):  # before anybody has asked: not lost, nobody wanted them yet
            camera.show(value)
        camera.wait_for_reads(4)
        assert brightness(source) == 30
        assert source.dropped == 0
        for value in (40, 50, 60, 70):
            camera.show(value)
        camera.wait_for_reads(8)
        assert brightness(source) == 70
        assert source.dropped == 3
        camera.show(80)
        assert brightness(source) == 80
        camera.frames.put(None)
        assert source.next() is None
        assert source.dropped == 3
    assert camera.releases == 1


def test_a_waiting_caller_is_woken_by_the_frame_itself(camera: ScriptedCamera) -> None:
    with LiveSource("camera", camera, may_end=True, timeout_s=30) as source:
        threading.Timer(0.1, camera.show, [90]).start()
        asked_s = time.perf_counter()
        frame = source.next()
        assert frame is not None
        assert frame.captured_s > asked_s
        camera.frames.put(None)


def test_a_camera_that_fails_stalls_or_never_starts_is_an_error(camera: ScriptedCamera) -> None:
    with LiveSource("camera 7", camera, may_end=False, timeout_s=0.05) as source:
        with pytest.raises(SourceError, match=r"camera 7 gave no frame for 0\.05 s"):
            source.next()
        camera.frames.put(None)
        with pytest.raises(SourceError, match="camera 7 gave no frame at all"):
            source.next()
    other = ScriptedCamera()
    with LiveSource("camera 8", other, may_end=False) as source:
        other.show(10)
        assert brightness(source) == 10
        other.frames.put(None)
        with pytest.raises(SourceError, match="camera 8 stopped giving frames"):
            source.next()
    broken = ScriptedCamera()
    with LiveSource("camera 9", broken, may_end=True) as source:
        broken.frames.put(opencv().error("the driver is confused"))
        with pytest.raises(SourceError, match="camera 9 cannot be decoded: the driver is confused"):
            source.next()
    assert camera.releases == other.releases == broken.releases == 1


@pytest.fixture
def mjpeg_server() -> Iterator[tuple[str, list[str]]]:
    """host:port of a server that streams 30 frames of rising brightness, and what users and passwords it was sent."""
    cv2 = opencv()
    authorizations: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "")
            if not given:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            authorizations.append(base64.b64decode(given.removeprefix("Basic ")).decode())
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for image in shades(30):
                jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", authorizations
        server.shutdown()
        thread.join()


def test_a_network_stream_is_live_and_its_password_is_used_but_not_shown(
    mjpeg_server: tuple[str, list[str]],
) -> None:
    host, authorizations = mjpeg_server
    with open_source(f"http://cook:p4ssw0rd@{host}/stream.mjpg?key=s3cret") as source:
        assert source.is_live
        assert source.name == f"http://***@{host}/stream.mjpg?…"
        values = [brightness(source)]
        while (frame := source.next()) is not None:
            values.append(float(frame.image[..., 0].mean()))
    assert values == sorted(values)
    assert values[-1] == pytest.approx(5 * 29, abs=4)
    assert set(authorizations) == {"cook:p4ssw0rd"}


def test_a_stream_that_cannot_be_opened_does_not_show_its_password() -> None:
    for address in (
        "rtsp://cook:p4ss@127.0.0.1:9/x",
        "http://cook:p4ss@127.0.0.1:9/x",
        "ftp://cook:p4ss@host/",
        "rtsp:cook:p4ss@host",
    ):
        with pytest.raises((SourceError, UsageError)) as caught:
            open_source(address)
        assert "p4ss" not in str(caught.value)


@given(user=st.text(min_size=1), password=st.text(), query=st.text())
def test_redaction_leaves_nothing_of_user_password_or_query(user: str, password: str, query: str) -> None:
    shown = redacted(f"rtsp://{user}:{password}@camera.local/stream?{query}")
    assert shown == "rtsp://***@camera.local/stream?…" or ("@" in query and shown.startswith("rtsp://***@"))
