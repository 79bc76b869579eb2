"""Streams and videos over real sockets: reconnecting, dropping stale frames, timeouts and credentials."""

from __future__ import annotations

import base64
import io
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demos.live.sources.factory import open_source
from demos.live.sources.opencv import opencv
from simplenet.errors import SourceError
from tests.demos.conftest import WriteVideo, shades
from tests.demos.live.sources.network_camera import (
    Request,
    Respond,
    jpeg,
    send_burst,
    send_file,
    send_frame,
    send_part,
    serving,
    start_stream,
)
from tests.demos.live.sources.rtsp_camera import rtsp_camera
from tests.demos.live.sources.scripted_camera import brightness, next_frame
from tests.demos.live.sources.videos import encode, packets, regular
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("quick_pauses")


def test_unresponsive_address_does_not_block_opening_a_file(
    write_video: WriteVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demos.live.sources.ffmpeg.OPEN_TIMEOUT_S", 10)
    clip = write_video("clip.avi", shades(2))
    requested, done = threading.Event(), threading.Event()

    def respond(_: Request, __: int) -> None:
        requested.set()
        done.wait(20)

    try:
        with serving(respond) as host, open_source(f"http://{host}/", connect_in_background=True) as source:
            assert requested.wait(10)
            with open_source(str(clip)) as file:
                assert next_frame(file) is not None
            assert source.note == f"connecting to http://{host}/"  # still
            done.set()
    finally:
        done.set()


def test_stream_uses_its_password_and_never_shows_it() -> None:
    authorizations: list[str] = []

    def respond(request: Request, _: int) -> None:
        given = request.headers.get("Authorization", "")
        if not given:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="camera"')
            request.end_headers()
            return
        authorizations.append(base64.b64decode(given.removeprefix("Basic ")).decode())
        start_stream(request)
        for value in range(0, 250, 5):
            send_frame(request, value)
            time.sleep(0.005)

    with (
        serving(respond) as host,
        open_source(f"http://cook:p4ssw0rd@{host}/stream.mjpg?key=s3cret", reconnect_timeout_s=0.05) as source,
    ):
        assert (source.kind, source.is_live) == ("stream", True)
        assert source.name == f"http://***@{host}/stream.mjpg?…"
        names = {thread.name for thread in threading.enumerate()}
        values = [brightness(source)]
        while (frame := next_frame(source, 10)) is not None and source.reconnects == 0:
            values.append(float(frame.image[..., 0].mean()))
    assert values == sorted(values)
    assert values[-1] == pytest.approx(245, abs=8)
    assert set(authorizations) == {"cook:p4ssw0rd"}
    assert "p4ssw0rd" not in f"{names}{source.note}"


def test_stream_reconnects_with_another_frame_size() -> None:
    def respond(request: Request, number: int) -> None:
        start_stream(request)
        for value in range(0, 50, 5):
            send_frame(request, value, *((64, 48) if number == 0 else (80, 32)))

    shapes = set()
    with serving(respond) as host, open_source(f"http://{host}/") as source:
        while source.reconnects < 2:
            frame = next_frame(source, 10)
            assert frame is not None
            assert frame.image[..., 1:].max() < 40
            shapes.add(frame.image.shape)
    assert shapes == {(48, 64, 3), (32, 80, 3)}


def test_reconnects_a_stalled_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos.live.sources.ffmpeg.READ_TIMEOUT_S", 0.2)
    done = threading.Event()

    def respond(request: Request, number: int) -> None:
        start_stream(request)
        send_burst(request, 40 + number)
        done.wait(20)

    try:
        with serving(respond) as host, open_source(f"http://{host}/") as source:
            while source.reconnects == 0:
                assert next_frame(source, 10) is not None
            assert source.state == "running"
            done.set()
    finally:
        done.set()


def test_fast_stream_drops_frames_and_can_be_closed() -> None:
    def respond(request: Request, _: int) -> None:
        start_stream(request)
        number = 0
        while True:
            send_frame(request, number % 250, 16, 16)
            number += 1

    with serving(respond) as host, open_source(f"http://{host}/") as source:
        for _ in range(50):
            assert next_frame(source, 10) is not None
            time.sleep(0.002)
        assert source.dropped > 0
        assert source.state == "running"


def test_stream_survives_garbage_between_frames() -> None:
    def respond(request: Request, _: int) -> None:
        start_stream(request)
        send_frame(request, 10)
        for value in range(10, 250):
            send_part(request, b"\xff\xd8\xff garbage" * 9 if value % 20 == 0 else b"")
            send_frame(request, value)
            time.sleep(0.002)

    with serving(respond) as host, open_source(f"http://{host}/", reconnect_timeout_s=0.1) as source:
        values = []
        while len(values) < 20 and (frame := next_frame(source, 10)) is not None:
            values.append(float(frame.image[..., 0].mean()))
    assert len(values) == 20


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
def test_network_video_drops_no_frame_and_ends(tmp_path: Path, suffix: str) -> None:
    content = video(tmp_path / f"clip.{suffix}", "MJPG" if suffix == "avi" else "mp4v")

    with (
        serving(lambda request, _: send_file(request, content)) as host,
        open_source(f"http://{host}/clip.{suffix}") as source,
    ):
        assert not source.is_live
        assert source.frame_rate == 30
        seen = []
        while (frame := next_frame(source, 10)) is not None:
            seen.append(float(frame.image[..., 0].mean()))
            time.sleep(0.003)  # slower than the network
        assert source.state == "ended"
    np.testing.assert_allclose(seen, 5 * np.arange(40), atol=6)
    assert (source.dropped, source.reconnects, source.note) == (0, 0, None)


def test_truncated_network_video_notes_missing_frames(tmp_path: Path) -> None:
    content = video(tmp_path / "clip.avi", "MJPG")

    def respond(request: Request, _: int) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2])

    with serving(respond) as host, open_source(f"http://{host}/clip.avi") as source:
        count = 0
        while next_frame(source, 20) is not None:
            count += 1
        assert source.state == "ended"
    assert 5 <= count < 40
    assert source.note == f"http://{host}/clip.avi: {40 - count} of 40 frames are damaged or missing"


def test_loop_restarts_a_network_video(tmp_path: Path) -> None:
    content = video(tmp_path / "clip.avi", "MJPG")
    with (
        serving(lambda request, _: send_file(request, content)) as host,
        open_source(f"http://{host}/clip.avi", loop=True) as source,
    ):
        seen = [brightness(source) for _ in range(90)]
    np.testing.assert_allclose(seen, 5 * (np.arange(90) % 40), atol=6)


def test_paced_network_video_plays_at_its_own_times(tmp_path: Path) -> None:
    content = encode(tmp_path / "clip.mkv", [0, 0.04, 0.3, 0.34]).read_bytes()
    with (
        serving(lambda request, _: send_file(request, content)) as host,
        open_source(f"http://{host}/clip.mkv", pace=True, loop=True) as source,
    ):
        start_s = time.perf_counter()
        frames = [next_frame(source, 10) for _ in range(5)]
        assert time.perf_counter() - start_s >= 0.35  # it may be slower, never faster
    times = [frame.media_s for frame in frames if frame]
    assert times == pytest.approx([0, 0.04, 0.3, 0.34, 0.38], abs=0.002)


def test_frames_of_a_stream_have_their_own_size_and_no_time_in_a_file() -> None:
    def respond(request: Request, _: int) -> None:
        start_stream(request)
        for number in range(60):
            send_frame(request, 90, *((64, 48) if number % 20 < 10 else (80, 32)))
            time.sleep(0.005)

    shapes = set()
    with serving(respond) as host, open_source(f"HTTP://{host}/") as source:
        assert source.name == f"HTTP://{host}/"
        while len(shapes) < 2:
            frame = next_frame(source, 10)
            assert frame is not None
            assert frame.media_s is None
            shapes.add(frame.image.shape)
    assert shapes == {(48, 64, 3), (32, 80, 3)}


@pytest.mark.parametrize("skipped", [5, 40])
def test_waits_for_the_first_key_frame_of_a_stream(tmp_path: Path, skipped: int) -> None:
    """The stream is joined in the middle of a group of 60 pictures, without its parameter sets."""
    path = encode(
        tmp_path / "clip.ts",
        regular(180),
        noise=True,
        options={"g": "60", "bf": "0", "sc_threshold": "0"},
        time_base=None,
    )
    content = path.read_bytes()[packets(path)[skipped][0] // 188 * 188 :]

    def respond(request: Request, _: int) -> None:
        request.send_response(200)
        request.end_headers()
        for start in range(0, len(content), 188 * 50):
            request.wfile.write(content[start : start + 188 * 50])
            time.sleep(0.002)
        time.sleep(0.5)

    with serving(respond) as host, open_source(f"http://{host}/live.ts") as source:
        assert (source.is_live, source.note) == (True, None)
        assert next_frame(source, 10) is not None
        assert (source.state, source.note, source.reconnects) == ("running", None, 0)


def test_gives_up_a_stream_whose_packets_cannot_be_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos.live.sources.ffmpeg.KEY_FRAME_TIMEOUT_S", 0.1)
    path = encode(
        tmp_path / "clip.ts",
        regular(100),
        noise=True,
        options={"g": "1000", "bf": "0", "sc_threshold": "0"},
        time_base=None,
    )
    content = path.read_bytes()[packets(path)[5][0] // 188 * 188 :]

    def respond(request: Request, _: int) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(content)

    with serving(respond) as host, pytest.raises(SourceError, match=r"no h264 frame that is complete for 0\.1 s"):
        open_source(f"http://{host}/live.ts")


def answer(code: int, body: bytes = b"", kind: str = "text/plain") -> Respond:
    def respond(request: Request, _: int) -> None:
        request.send_response(code)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return respond


def image(format: str, width: int = 64, height: int = 48) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), (200, 60, 30)).save(content, format)
    return content.getvalue()


@pytest.mark.parametrize(
    ("respond", "problem"),
    [
        (answer(401), "it wants another user and password (401); type "),
        (answer(403), "it refuses access (403); check "),
        (answer(404), "it does not exist (404); check the path"),
        (answer(410), "it reports "),
        (answer(500), "it has an error of its own (5xx); "),
        (answer(503), "it has an error of its own (5xx); "),
        (answer(200, b"<html><body>Please log in</body></html>" * 50, "text/html"), "gives a web page, not a stream; "),
        (answer(200, b"\n<!doctype html><title>Camera</title>" + b" " * 3000), "gives a web page, not a stream; "),
        (answer(200, image("JPEG"), "image/jpeg"), "gives one image, not a stream; "),
        (answer(200, image("PNG"), "image/png"), "gives one image, not a stream; "),
        (answer(200, image("WEBP"), "image/webp"), "gives one image, not a stream; "),
        (answer(200, b"#EXTM3U\n", "application/vnd.apple.mpegurl"), "gives a playlist, not a stream; "),
        (answer(200, b"hello " * 500), "it sends data, but FFmpeg recognizes no video; "),
        (answer(200, b'{"error": "busy"}', "application/json"), "gives a text in JSON, not a stream; "),
        (answer(200), "cannot be opened: it sends nothing; check the path"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "Http"])
def test_says_why_an_address_gives_no_stream(respond: Respond, problem: str, scheme: str) -> None:
    with serving(respond) as host, pytest.raises(SourceError) as caught:
        open_source(f"{scheme}://cook:p4ss@{host}/stream")
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"{scheme}://***@{host}/stream ")
    assert "p4ss" not in str(caught.value)


@pytest.mark.parametrize(("response", "problem"), [
    (b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body>Please log in" + b" " * 40, "gives a web page, "),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n <!DOCTYPE html>" + b"<p>Hello" * 9000, "gives a web page, "),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"error\": \"busy\"}", "gives a text in JSON, not a stream; "),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[]", "gives a text in JSON, not a stream; "),
    (b"HTTP/1.0 200 OK\r\n\r\nbusy", "it sends data, but FFmpeg recognizes no video; "),
    (b"HTTP/1.0 200 OK\r\n\r\n" + image("JPEG"), "gives one image, not a stream; "),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", "it sends nothing; check the path"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", "it sends nothing; check the path"),
    (b"", "it closes the connection without a frame; "),
])  # fmt: skip
def test_says_why_a_response_without_a_length_is_no_stream(response: bytes, problem: str) -> None:
    def respond(request: Request, _: int) -> None:
        request.wfile.write(response)

    with serving(respond) as host, pytest.raises(SourceError) as caught:
        open_source(f"http://{host}/stream")
    assert problem in str(caught.value)


def send_slowly(parts: Iterable[bytes]) -> Respond:
    """Send them without a length, a few each second, and keep the connection open."""

    def respond(request: Request, _: int) -> None:
        request.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        for part in parts:
            request.wfile.write(part)
            time.sleep(0.1)

    return respond


@pytest.mark.parametrize(("text", "problem"), [
    (b"<html>", "gives a web page, not a stream; "), (b"hi", "it sends data, but FFmpeg recognizes no video in time; ")
])  # fmt: skip
def test_says_that_a_slow_address_sends_no_video(text: bytes, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos.live.sources.ffmpeg.OPEN_TIMEOUT_S", 0.3)
    with serving(send_slowly([text] * 15)) as host, pytest.raises(SourceError) as caught:
        open_source(f"http://{host}/")
    assert problem in str(caught.value)


def test_opens_a_raw_stream_of_few_small_images_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos.live.sources.ffmpeg.OPEN_TIMEOUT_S", 0.3)
    with serving(send_slowly([jpeg(90, 16, 16)] * 15)) as host, open_source(f"http://{host}/") as source:
        assert brightness(source) == pytest.approx(90, abs=8)
        assert (source.is_live, source.reconnects) == (True, 0)


def test_a_stream_skips_frames_that_are_cut_in_half() -> None:
    whole = image("JPEG", 640, 480)

    def respond(request: Request, number: int) -> None:
        start_stream(request)
        while True:
            for content in (whole, whole[:-2], whole + bytes(700), whole[: len(whole) // 2]):
                send_part(request, content)
            time.sleep(0.005)

    with serving(respond) as host, open_source(f"http://{host}/") as source:
        for _ in range(12):
            frame = next_frame(source, 10)
            assert frame is not None
            assert frame.image[-10:, :, 0].min() > 150  # the lower half is red, not gray
        assert source.reconnects == 0


@pytest.mark.parametrize("scheme", ["http", "rtsp", "RTSP", "rtmp"])
def test_names_a_refused_connection_and_an_unknown_host(scheme: str) -> None:
    with pytest.raises(SourceError, match="cannot be opened: it refuses the connection; check host and port"):
        open_source(f"{scheme}://127.0.0.1:9/stream")
    with pytest.raises(SourceError, match="cannot be opened: it has an unknown host; check the name"):
        open_source(f"{scheme}://cook:p4ss@camera.invalid/stream")


def test_cause_is_shown_while_reconnecting() -> None:
    with serving(answer(401)) as host, open_source(f"http://{host}/", connect_in_background=True) as source:
        wait_until(lambda: "cannot be opened" in str(source.note))
        assert source.note == f"http://{host}/ cannot be opened: it wants another user and password (401)"


def test_connects_in_background_once_the_stream_is_up() -> None:
    def respond(request: Request, _: int) -> None:
        start_stream(request)
        while True:
            send_frame(request, 70)
            time.sleep(0.005)

    with serving(respond) as host:
        pass  # the port is free again
    with pytest.raises(SourceError, match="cannot be opened"):
        open_source(f"http://{host}/")
    with open_source(f"http://{host}/", connect_in_background=True) as source:
        assert source.state == "reconnecting"
        assert next_frame(source, 0.05) is None
        with serving(respond, port=int(host.partition(":")[2])):
            assert brightness(source) == pytest.approx(70, abs=4)
            assert (source.state, source.reconnects) == ("running", 0)
            source.close()


def test_reads_and_reconnects_an_rtsp_camera(tmp_path: Path) -> None:
    video(tmp_path / "clip.avi", "XVID")
    with (
        rtsp_camera(tmp_path / "clip.avi", "cook:p4ss") as host,
        open_source(f"rtsp://cook:p4ss@{host}/live") as source,
    ):
        assert (source.is_live, source.name) == (True, f"rtsp://***@{host}/live")
        while source.reconnects < 2:
            assert brightness(source) < 210
    with rtsp_camera(tmp_path / "clip.avi", "cook:other") as host, pytest.raises(SourceError) as caught:
        open_source(f"rtsp://cook:p4ss@{host}/live")
    assert "p4ss" not in str(caught.value)


def test_reads_a_udp_stream(tmp_path: Path) -> None:
    content = video(tmp_path / "clip.ts", "mp2v")
    stop = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
            while not stop.is_set():
                for start in range(0, len(content), 1316):
                    to.sendto(content[start : start + 1316], ("127.0.0.1", port))
                    time.sleep(0.002)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with open_source(f"udp://127.0.0.1:{port}") as source:
            assert source.is_live
            for _ in range(20):
                assert brightness(source) < 210
    finally:
        stop.set()
        sender.join()


def video(path: Path, codec: str) -> bytes:
    cv2 = opencv()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 30, (64, 48))
    for frame in shades(40):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path.read_bytes()
