"""The server binds, rejects foreign requests, survives invalid ones, and closes in time."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from demos.live.page import protocol, server
from demos.live.page.hosts import allowed_host
from demos.live.page.server import Page
from simplenet.errors import SimpleNetError
from tests.demos.live.page.conftest import Demo, Scene
from tests.waiting import wait_until


def get(page: Page, path: str = "/", method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    address = urllib.parse.urlsplit(page.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def open_socket(page: Page, path: str = "live", **options: object) -> ClientConnection:
    options = {"origin": page.url.rstrip("/"), "open_timeout": 10, "close_timeout": 5, **options}
    return connect(page.url.replace("http", "ws") + path, **options)  # type: ignore[arg-type]


@contextmanager
def deaf_client(page: Page, path: str = "/live") -> Iterator[socket.socket]:
    """A WebSocket whose client never reads, with a small receive buffer."""
    address = urllib.parse.urlsplit(page.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect((address.hostname, address.port))
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nOrigin: {page.url.rstrip('/')}\r\nUpgrade: websocket\r\n"
        )
        key = "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        client.sendall((head + key).encode())
        yield client


def test_files_have_security_headers(shared_page: Page) -> None:
    for path, kind in {"/": "text/html", "/main.js": "text/javascript", "/style.css": "text/css"}.items():
        answer = get(shared_page, path)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith(kind)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe-inline" not in policy
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
    body = get(shared_page).body.decode()  # type: ignore[attr-defined]
    assert "<style" not in body
    assert "style=" not in body
    assert "//" not in body.replace("<!doctype", "")  # no address of another place


@pytest.mark.parametrize(
    "path", ["/../server.py", "/%2e%2e/server.py", "/..%2fserver.py", "//etc/passwd", "/static/", "/nothing", "/%00"]
)
def test_serves_no_other_files(shared_page: Page, path: str) -> None:
    assert get(shared_page, path).status == 404


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9000", "[::1]:1", "LOCALHOST:80", "localhost."])
def test_accepts_local_names_with_any_port(shared_page: Page, host: str) -> None:
    assert get(shared_page, Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]",
     "localhost@evil.example", "", "a b", "localhost:99999999", "[", "\xe9"],
)  # fmt: skip
def test_rejects_foreign_host_names(shared_page: Page, host: str) -> None:
    answer = get(shared_page, Host=host)
    assert answer.status in (400, 403)
    if answer.status == 403:
        assert b"address that the demo printed" in answer.body  # type: ignore[attr-defined]


def test_rejects_two_host_headers_or_none(shared_page: Page) -> None:
    address = urllib.parse.urlsplit(shared_page.url)
    for hosts in ("", f"Host: {address.netloc}\r\nHost: evil.example\r\n"):
        with socket.create_connection((address.hostname, address.port), timeout=10) as client:
            client.sendall(f"GET / HTTP/1.1\r\n{hosts}\r\n".encode())
            assert client.recv(99).split()[1] in (b"400", b"403")


@pytest.mark.parametrize("path", ["live", "visitor"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", None])
def test_rejects_websockets_of_foreign_pages(shared_page: Page, path: str, origin: str | None) -> None:
    with pytest.raises(InvalidStatus) as caught, open_socket(shared_page, path, origin=origin):
        pass
    assert caught.value.response.status_code == 403


def test_rejects_posts_of_foreign_pages(page: Page, demo: Demo) -> None:
    assert get(page, "/live", "POST", Origin="http://evil.example").status == 403
    assert get(page, "/", "POST", Origin=page.url.rstrip("/")).status == 405
    assert get(page, "/", "POST").status == 405  # curl sends no Origin
    assert not demo.commands


@pytest.mark.parametrize(("site", "mode", "dest", "status"), [
    ("cross-site", "no-cors", "image", 403), ("same-site", "cors", "empty", 403),
    ("cross-site", "navigate", "iframe", 403), ("cross-site", "navigate", "document", 200),
    ("same-origin", "cors", "worker", 200), ("none", "navigate", "document", 200),
])  # fmt: skip
def test_foreign_pages_may_link_but_not_embed(shared_page: Page, site: str, mode: str, dest: str, status: int) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    assert get(shared_page, **headers).status == status


def test_public_page_accepts_addresses_and_own_names(demo: Demo) -> None:
    with Page(demo, "0.0.0.0", 0) as page:
        assert page.is_public
        assert page.url.startswith("http://127.0.0.1:")
        for host in ("192.168.1.20:8000", "[fe80::1]", "localhost", socket.gethostname()):
            assert get(page, Host=host).status == 200
        assert get(page, Host="evil.example").status == 403


def test_loopback_page_is_not_public(shared_page: Page) -> None:
    assert not shared_page.is_public
    assert shared_page.urls == [shared_page.url]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "0"])
def test_public_page_lists_addresses_that_others_reach(demo: Demo, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr(server, "reachable_hosts", lambda with_ipv6: ["192.0.2.7", "[fd00::7]"][: 1 + with_ipv6])
    with Page(demo, host, 0) as page:
        port = urllib.parse.urlsplit(page.url).port
        reachable = ["192.0.2.7", "[fd00::7]"] if ":" in host else ["192.0.2.7"]
        assert page.urls == [f"http://{each}:{port}/" for each in reachable]
        assert page.is_public
        for each in (*reachable, "127.0.0.1", f"{socket.gethostname()}.local"):
            assert get(page, Host=f"{each}:{port}").status == 200
        assert get(page, Host="evil.example").status == 403
    monkeypatch.setattr(server, "reachable_hosts", lambda with_ipv6: [])  # no network
    with Page(demo, host, 0) as page:
        assert page.urls == [page.url]
        assert get(page).status == 200


def test_name_of_the_loopback_is_not_public(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's /etc/hosts maps the name of the machine to 127.0.1.1."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
    with Page(demo, "Pi", 0) as page:
        assert not page.is_public
        assert page._server is not None
        monkeypatch.undo()
        local = page.url.replace("Pi", "127.0.1.1")
        assert urllib.request.urlopen(urllib.request.Request(local, headers={"Host": "pi"})).status == 200


@pytest.fixture
def proxied(demo: Demo) -> Iterator[Page]:
    """A page behind a reverse proxy."""
    allowed = [allowed_host(name) for name in ("Demo.Example.", "b\u00fccher.example", "fd00::5")]
    with Page(demo, port=0, allowed_hosts=allowed) as page:
        yield page


@pytest.mark.parametrize("host", ["demo.example", "DEMO.example.:8443", "xn--bcher-kva.example", "[FD00::5]:80"])
def test_allowed_hosts_are_accepted(proxied: Page, host: str) -> None:
    assert get(proxied, Host=host).status == 200
    address = urllib.parse.urlsplit(proxied.url)
    tcp = socket.create_connection((address.hostname, address.port), timeout=10)
    with connect(f"ws://{host}/live", sock=tcp, origin=Origin(f"https://{host}")) as client:
        assert client.recv(10)
    with open_socket(proxied, origin=f"https://{host}") as client:  # the proxy has replaced the Host header
        assert client.recv(10)


@pytest.mark.parametrize("host", ["example", "x.demo.example", "demo.example.evil.example", "fd00::5", "[fd00::6]"])
def test_other_hosts_than_the_allowed_are_rejected(proxied: Page, host: str) -> None:
    assert get(proxied, Host=host).status in (400, 403)
    for origin in (f"https://{host}", f"https://demo.example@{host}", "file://demo.example", "null"):
        with pytest.raises(InvalidStatus), open_socket(proxied, origin=origin):
            pass


@pytest.mark.parametrize("path", ["/live", "/visitor"])
def test_silent_client_frees_its_place(demo: Demo, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Its network accepts everything and answers nothing."""
    monkeypatch.setattr(server, "_PING_EVERY_S", 0.2)
    monkeypatch.setattr(server, "_PONG_TIMEOUT_S", 0.2)
    with Page(demo, port=0) as page, open_socket(page) as other, deaf_client(page, path):
        endpoint = page.viewers if path == "/live" else page.visitors
        others = int(path == "/live")
        wait_until(lambda: endpoint.connections == others + 1)
        wait_until(lambda: endpoint.connections == others)
        assert other.recv(10)


def test_taken_port_error_names_a_free_one(page: Page, demo: Demo) -> None:
    port = urllib.parse.urlsplit(page.url).port
    with pytest.raises(SimpleNetError, match=rf"port {port} .* is taken .* type: --port \d+$") as caught:
        Page(demo, port=port or 0)
    assert "\n" not in str(caught.value)
    with Page(demo, port=int(str(caught.value).split()[-1])) as other:
        assert get(other).status == 200


@pytest.mark.parametrize("host", ["203.0.113.7", "no such name", "x" * 300, "a\x00b", "999.1.1.1"])
def test_unknown_address_is_a_one_line_error(demo: Demo, host: str) -> None:
    with pytest.raises(SimpleNetError, match=r"type: --host 127\.0\.0\.1$") as caught:
        Page(demo, host, 0)
    assert "\n" not in str(caught.value)


def test_binds_before_start_returns_and_can_restart(demo: Demo) -> None:
    page = Page(demo, port=0)
    port = urllib.parse.urlsplit(page.url).port
    assert get(page).status == 200
    page.close()
    page.close()
    with pytest.raises(ConnectionRefusedError):
        get(page)
    with Page(demo, port=port or 0) as again:
        assert get(again).status == 200


def test_close_takes_two_seconds_with_any_clients(demo: Demo, scene: Scene) -> None:
    scene.size = (1280, 960)
    before = threading.enumerate()
    page = Page(demo, port=0)
    address = urllib.parse.urlsplit(page.url)
    with ExitStack() as clients:
        for path in ("live", "live", "visitor"):
            clients.enter_context(open_socket(page, path))
        for _ in range(3):
            clients.enter_context(deaf_client(page))
        half = clients.enter_context(socket.create_connection((address.hostname, address.port)))
        half.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        time.sleep(0.5)
        started_s = time.monotonic()
        page.close()
        assert time.monotonic() - started_s < 3.0  # one more second for a busy machine
        wait_until(
            lambda: "page" not in {thread.name for thread in set(threading.enumerate()) - set(before)}, seconds=10
        )


def test_prints_nothing_and_takes_no_signal_handler(demo: Demo, capfd: pytest.CaptureFixture[str]) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT)
    with Page(demo, port=0) as page:
        get(page)
        get(page, Host="evil.example")
        address = urllib.parse.urlsplit(page.url)
        for garbage in (b"\x00\xff" * 500, b"GET /\r\n\r\n", b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01"):
            with socket.create_connection((address.hostname, address.port)) as client:
                client.sendall(garbage)
        with open_socket(page) as client:
            client.send(b"\x00")
            time.sleep(0.3)
        assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr() == ("", "")


def test_snapshot_is_the_newest_frame(shared_page: Page, demo: Demo) -> None:
    deadline_s = time.monotonic() + 10
    while (answer := get(shared_page, "/snapshot.jpg")).status == 404 and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.body.startswith(b"\xff\xd8")  # type: ignore[attr-defined]
    assert get(shared_page, "/snapshot.jpg?source=77").status == 404


def test_slow_clients_do_not_block_others(shared_page: Page) -> None:
    address = urllib.parse.urlsplit(shared_page.url)
    with ExitStack() as clients:
        for beginning in (b"", b"GET / HTTP/1.1\r\nHost: loc", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n") * 20:
            client = clients.enter_context(socket.create_connection((address.hostname, address.port), timeout=10))
            client.sendall(beginning)
        assert get(shared_page).status == 200


def test_too_many_connections_are_answered_with_503(shared_page: Page) -> None:
    address = urllib.parse.urlsplit(shared_page.url)
    with ExitStack() as clients:
        for _ in range(server._MAX_CONNECTIONS):
            clients.enter_context(socket.create_connection((address.hostname, address.port), timeout=10))
        assert get(shared_page).status == 503
    wait_until(lambda: get(shared_page).status == 200)


def test_send_after_close_is_a_disconnect() -> None:
    """uvicorn closes after an invalid text frame while a message may be on its way."""

    async def close_then_send() -> None:
        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def ignore(message: object) -> None:
            pass

        websocket = WebSocket({"type": "websocket"}, receive, ignore)
        await websocket.accept()
        await websocket.close()
        await protocol.send(websocket, "text")

    with ThreadPoolExecutor(1) as thread, pytest.raises(WebSocketDisconnect):  # playwright's loop runs in this thread
        thread.submit(asyncio.run, close_then_send()).result()
