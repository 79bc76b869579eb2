"""/live: state, frames and commands; clients that misbehave do not affect others."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from demos.live.page import frames, protocol, server, viewer
from demos.live.page.server import Page
from demos.live.page.visitor import decode_frame
from demos.live.result import FrameResult
from tests.demos.live.page.conftest import Demo, Scene, plain
from tests.demos.live.page.test_server import deaf_client, open_socket
from tests.waiting import wait_until


def receive(client: ClientConnection, kind: type, timeout_s: float = 10) -> Any:
    """The next message of that kind: a state or error as a dictionary, or a frame as (head, JPEG)."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        message = json.loads(client.recv(max(0.001, deadline_s - time.monotonic())))
        if message["type"] == "frame":
            jpeg = b""
            while len(jpeg) < message["jpeg_bytes"]:
                piece = client.recv(10)
                assert isinstance(piece, bytes)
                jpeg += piece
            if kind is bytes:
                return message, jpeg
        elif kind is str:
            return message


def state_where(client: ClientConnection, name: str, value: object) -> dict[str, Any]:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        message = receive(client, str)
        if message["type"] == "state" and message["state"][name] == value:
            return dict(message["state"])
    raise AssertionError(f"{name} never became {value!r}")


def send_and_read_on(client: ClientConnection, message: str | bytes) -> None:
    """Send, then read until the server closes; if it closes while this side still sends, its reason is lost."""
    client.send(message)
    while True:
        client.recv(10)


def request(client: ClientConnection, **fields: object) -> None:
    client.send(json.dumps(fields))


def test_viewer_gets_state_and_frames_with_results(page: Page, scene: Scene) -> None:
    with open_socket(page) as client:
        assert receive(client, str)["state"]["sources"][0]["name"] == "camera 0"
        head, content = receive(client, bytes)
        image = decode_frame(content)
        assert image.shape == (480, 640, 3)
        np.testing.assert_allclose(image, plain("red", 640, 480), atol=6)
        assert head["model_results"][0]["predictions"][0]["label"] == "red"
        assert [answer["agrees"] for answer in head["model_results"]] == [None, True]
        scene.color = "blue"
        deadline_s = time.monotonic() + 10
        while head["model_results"][0]["predictions"][0]["label"] != "blue" and time.monotonic() < deadline_s:
            request(client, shown=head["number"])
            head, content = receive(client, bytes)
        np.testing.assert_allclose(decode_frame(content), plain("blue", 640, 480), atol=6)


def test_sends_no_frame_before_the_last_one_is_shown(page: Page, demo: Demo) -> None:
    with open_socket(page) as client:
        first, _ = receive(client, bytes)
        request(client, shown=first["number"] + 1000)  # not that one
        with pytest.raises(TimeoutError):
            receive(client, bytes, timeout_s=1)
        wait_until(lambda: demo._number >= first["number"] + 10)
        request(client, shown=first["number"])
        second, _ = receive(client, bytes)
        assert second["number"] >= first["number"] + 10  # the newest one, not the next


def test_encodes_once_for_all_viewers_and_never_for_none(
    page: Page, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[FrameResult] = []
    encode = frames._encode

    def count_and_encode(result: FrameResult) -> frames.Encoded:
        encoded.append(result)
        return encode(result)

    monkeypatch.setattr(frames, "_encode", count_and_encode)
    start = demo._number
    while demo._number < start + 10:
        time.sleep(0.01)
    assert not encoded
    demo.command("pause")
    before = -1
    while before != demo._number:  # a frame may be on its way
        before = demo._number
        time.sleep(0.5)
    with ExitStack() as stack:
        clients = [stack.enter_context(open_socket(page)) for _ in range(5)]
        assert len({receive(client, bytes)[1] for client in clients}) == 1
        assert len(encoded) == 1


def test_command_changes_the_state_at_once(page: Page, demo: Demo) -> None:
    with open_socket(page) as client, open_socket(page) as other:
        request(client, command="backend", value="openvino")
        request(client, command="precision", value="int8")
        request(client, command="pause")
        for viewer_of_it in (client, other):
            assert state_where(viewer_of_it, "paused", True)["selected"]["precision"] == "int8"
        assert demo.selected["backend"] == ["openvino"]


def test_invalid_command_is_reported_to_its_sender_only(page: Page, demo: Demo) -> None:
    with open_socket(page) as client, open_socket(page) as other:
        for fields in ({"command": "backend", "value": "abacus"}, {"command": "quit"}, {"command": "x" * 999}):
            request(client, **fields)
            while (message := receive(client, str))["type"] == "state":
                pass
            assert message["type"] == "error"
            assert "one of: " in message["message"]
        assert {receive(other, str)["type"] for _ in range(4)} == {"state"}
        assert not demo.commands


def test_viewer_chooses_its_source(page: Page, demo: Demo) -> None:
    garden = Scene("garden")
    garden.color = "green"
    demo.scheduler.add(garden)
    with open_socket(page) as client:
        assert receive(client, bytes)[0]["source"] == 0
        request(client, look=garden.id)
        head, _ = receive(client, bytes)
        assert head["source"] == garden.id
        assert head["model_results"][0]["predictions"][0]["label"] == "green"
        while (message := receive(client, str))["looking_at"] != garden.id:
            pass
        demo.scheduler.remove(garden)
        request(client, shown=head["number"])
        while (message := receive(client, str))["looking_at"] != 0:
            assert message["type"] == "state"


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (b"\xff\xd8", 1003),
        ("{", 1007),
        ("[]", 1007),
        ("{}", 1007),
        ('{"command": 1}', 1007),
        ('{"command": "pause", "value": []}', 1007),
        ('{"shown": true}', 1007),
        ('{"look": "0"}', 1007),
        ("[" * 1999, 1007),
        ('{"shown": ' + "9" * 1900 + "}", None),
        ('"' + "x" * 3000 + '"', 1009),
        ("x" * (5 << 20), 1009),
    ],
)
def test_invalid_request_disconnects_its_sender(shared_page: Page, garbage: str | bytes, code: int | None) -> None:
    with open_socket(shared_page) as other, open_socket(shared_page) as client:
        if code is None:  # valid
            client.send(garbage)
            for _ in range(3):
                receive(client, str)
        else:
            with pytest.raises(ConnectionClosed) as caught:
                send_and_read_on(client, garbage)
            closed = caught.value.rcvd
            assert (closed is None and len(garbage) > 1 << 20) or (closed is not None and closed.code == code)
            assert closed is None or closed.reason
        for _ in range(3):
            receive(other, str)


def test_flood_of_commands_stalls_only_its_sender(page: Page, demo: Demo) -> None:
    with open_socket(page) as flooder, open_socket(page) as other:
        flooder.socket.settimeout(0.5)
        flood = json.dumps({"command": "backend", "value": "openvino"}) + " " * 1900
        sent = 0
        with contextlib.suppress(TimeoutError, OSError, ConnectionClosed):
            for _ in range(100_000):
                flooder.send(flood)
                sent += 1
        assert sent < 100_000  # the socket buffers are full
        assert len(demo.commands) < 1000
        for _ in range(5):
            receive(other, str)


def test_disconnects_viewer_that_does_not_read(demo: Demo, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place and its socket are freed, and other viewers continue."""
    demo.facts["notice"] = "x" * 100_000
    monkeypatch.setattr(protocol, "SEND_TIMEOUT_S", 1.0)
    monkeypatch.setattr(server, "_STALLED_TIMEOUT_S", 1.0)
    monkeypatch.setattr(viewer, "STATE_EVERY_S", 0.001)
    with Page(demo, port=0) as page, deaf_client(page), open_socket(page) as other:
        assert page._server is not None
        connections = page._server.server_state.connections
        wait_until(lambda: page.viewers.connections == len(connections) == 2)
        head, _ = receive(other, bytes)
        deadline_s = time.monotonic() + 20
        while max(page.viewers.connections, len(connections)) > 1 and time.monotonic() < deadline_s:
            request(other, shown=head["number"])
            head, _ = receive(other, bytes)
        assert page.viewers.connections == 1
        if sys.platform == "linux":  # TCP_USER_TIMEOUT
            assert len(connections) == 1


def test_limits_the_number_of_viewers(page: Page) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(open_socket(page)) for _ in range(viewer.MAX_VIEWERS)]
        for client in clients:
            receive(client, bytes)
        with open_socket(page) as late, pytest.raises(ConnectionClosed, match="try again later"):
            late.recv(10)
        clients.pop().close()
        deadline_s = time.monotonic() + 10
        while page.viewers.connections == viewer.MAX_VIEWERS and time.monotonic() < deadline_s:
            time.sleep(0.01)
        with open_socket(page) as late:
            receive(late, bytes)
