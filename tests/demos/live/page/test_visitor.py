"""/visitor: a camera's JPEGs in, results out; untrusted bytes are bounded, and frames are shown to no other visitor."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from demos.live.page import visitor
from demos.live.page.frames import encode_jpeg
from demos.live.page.server import Page
from demos.live.sources.base import LiveSource
from tests.demos.live.page.conftest import Demo, Scene, plain
from tests.demos.live.page.test_frames import announcing, encoded
from tests.demos.live.page.test_live import receive, request, send_and_read_on, state_where
from tests.demos.live.page.test_server import open_socket
from tests.demos.live.sources.scripted_camera import next_frame
from tests.waiting import wait_until


def jpeg_of(color: str, width: int = 320, height: int = 240) -> bytes:
    return encode_jpeg(plain(color, width, height))


@contextmanager
def join(page: Page) -> Iterator[tuple[ClientConnection, dict[str, Any]]]:
    """A visitor's socket and its welcome message."""
    with open_socket(page, "visitor") as client:
        yield client, receive(client, str)


def classify(client: ClientConnection, content: bytes) -> dict[str, Any]:
    client.send(content)
    return dict(receive(client, str))


def test_frame_gets_results_of_all_models(page: Page) -> None:
    with join(page) as (client, welcome):
        assert welcome["type"] == "welcome"
        for color in ("green", "blue", "red"):
            result = classify(client, jpeg_of(color))
            assert result["source"] == welcome["source"]
            assert (result["width"], result["height"]) == (320, 240)
            assert [answer["backend"] for answer in result["model_results"]] == ["onnxruntime", "openvino"]
            assert {answer["predictions"][0]["label"] for answer in result["model_results"]} == {color}
            assert result["model_results"][0]["infer_ms"] > 0
            assert result["frame_age_ms"] >= result["decode_ms"] > 0


def test_visitor_is_a_source_that_viewers_cannot_see(page: Page, demo: Demo) -> None:
    with join(page) as (client, welcome), open_socket(page) as viewer:
        classify(client, jpeg_of("green"))
        request(viewer, look=welcome["source"])
        for _ in range(5):
            head, _ = receive(viewer, bytes)
            assert head["source"] == 0
            request(viewer, shown=head["number"])
        assert [source.kind for source in demo.scheduler.sources] == ["camera", "visitor"]
        assert page.frames.newest(welcome["source"]) is None
    wait_until(lambda: [source.kind for source in demo.scheduler.sources] == ["camera"])


def test_every_visitor_gets_its_own_results(page: Page) -> None:
    with ExitStack() as stack:
        visitors = {color: stack.enter_context(join(page))[0] for color in ("red", "green", "blue")}
        for _ in range(5):
            for color, client in visitors.items():
                client.send(jpeg_of(color))
            for color, client in visitors.items():
                assert receive(client, str)["model_results"][0]["predictions"][0]["label"] == color


@pytest.mark.parametrize(
    ("garbage", "code", "reason"),
    [
        ("hello", 1003, "images expected"),
        (b"hello", 1007, "convert it to JPEG"),
        (b"", 1007, "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), 1007, "convert it to JPEG"),
        (encoded()[:-300], 1007, "send it again"),
        (announcing(10_000, 10_000), 1007, "10000x10000 pixels are over 8 million"),
        (encoded(2000, 2), 1007, "2000x2 pixels cannot be used"),
        (bytes(visitor.MAX_BYTES + 1), 1009, ""),
    ],
)
def test_invalid_frame_disconnects_only_its_sender(
    shared_page: Page, garbage: str | bytes, code: int, reason: str
) -> None:
    with join(shared_page) as (good, _), join(shared_page) as (bad, _):
        with pytest.raises(ConnectionClosed) as caught:
            send_and_read_on(bad, garbage)
        closed = caught.value.rcvd
        assert (closed is None and len(garbage) > 1 << 20) or (closed is not None and closed.code == code)
        assert closed is None or reason in closed.reason
        assert classify(good, jpeg_of("blue"))["model_results"][0]["predictions"][0]["label"] == "blue"


def test_flood_of_frames_stalls_only_its_sender(page: Page, demo: Demo) -> None:
    """It sends without waiting for results; unread frames stay in its socket buffers, and others are served."""
    content = encoded(1280, 960, quality=100) + bytes(1_000_000)
    with join(page) as (client, welcome), open_socket(page) as viewer:
        head, _ = receive(viewer, bytes)
        demo.command("pause")
        client.socket.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError, OSError, ConnectionClosed):
            for _ in range(500):
                client.send(content)
                sent += 1
        assert sent < 50
        demo.command("pause")
        for _ in range(3):
            request(viewer, shown=head["number"])
            head, _ = receive(viewer, bytes)
        wait_until(lambda: welcome["source"] not in [source.id for source in demo.scheduler.sources])


def test_limits_the_number_of_visitors(page: Page) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(join(page))[0] for _ in range(visitor.MAX_VISITORS)]
        with open_socket(page, "visitor") as late, pytest.raises(ConnectionClosed, match="try again later"):
            late.recv(10)
        clients.pop().close()
        wait_until(lambda: page.visitors.connections < visitor.MAX_VISITORS)
        with join(page) as (client, _):
            assert classify(client, jpeg_of("red"))["model_results"]


def test_disconnects_idle_visitor(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "IDLE_TIMEOUT_S", 0.2)
    with join(page) as (client, _), pytest.raises(ConnectionClosed, match="no frame for"):
        client.recv(10)


def test_no_results_while_paused(page: Page, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "RESULT_TIMEOUT_S", 0.3)
    with join(page) as (client, _), open_socket(page) as viewer:
        demo.command("pause")
        state_where(viewer, "paused", True)
        time.sleep(0.1)
        assert classify(client, jpeg_of("green"))["model_results"] is None
        monkeypatch.setattr(visitor, "RESULT_TIMEOUT_S", 10)
        demo.command("pause")
        assert classify(client, jpeg_of("blue"))["model_results"][0]["predictions"][0]["label"] == "blue"


def test_disconnects_visitors_when_the_demo_ends(page: Page, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "RESULT_TIMEOUT_S", 0.3)
    with join(page) as (client, _):
        classify(client, jpeg_of("green"))
        demo.close()
        with pytest.raises(ConnectionClosed, match="the demo has ended"):
            send_and_read_on(client, jpeg_of("green"))


def test_source_keeps_newest_frame_and_counts_drops(demo: Demo, scene: Scene) -> None:
    source = LiveSource("visitor 1", "visitor")
    assert source.poll() is None
    assert next_frame(source, 0.01) is None
    for number in range(3):
        source.push(plain("red"), float(number))
    assert source.dropped == 2
    frame = next_frame(source, 1)
    assert frame is not None
    assert frame.captured_s == 2
    source.close()
    assert next_frame(source) is None
    assert source.has_ended
    assert json.dumps(source.state) == '"ended"'
