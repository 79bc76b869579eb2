"""Downloads from a server that breaks off, stalls, lies or redirects: bounded, resumed, and never half there."""

from __future__ import annotations

import dataclasses
import hashlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from simplenet import download, http_get
from simplenet.errors import DownloadError
from simplenet.http_get import GetError, Limits
from tests.simplenet.broken_server import (
    CONTENT,
    SLOW,
    Answer,
    Handler,
    Server,
    dripping,
    other_range,
    ranged,
    silent,
    stalled,
    status,
    truncated,
    whole,
)
from tests.waiting import wait_while_running

ROOT = Path(__file__).parents[2]


FAST = Limits(connect_s=5.0, stall_s=5.0, attempts=3, pause_s=0.01)


IMPATIENT = dataclasses.replace(FAST, stall_s=0.5)


VARIANT = "1.5m"


def part_of(target: Path, content: bytes) -> Path:
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(content)
    return part


@pytest.mark.parametrize("answer", [ranged, whole, other_range], ids=["206", "ignored", "wrong 206"])
def test_half_a_file_is_resumed_or_begun_again(server: Server, target: Path, answer: Answer) -> None:
    part = part_of(target, CONTENT[:120_000])
    server.answers = [answer]
    download.fetch_official(VARIANT, FAST)
    assert target.read_bytes() == CONTENT
    assert not part.exists()
    assert server.requests[0][1] == "bytes=120000-"
    assert len(server.requests) == (2 if answer is other_range else 1)


@pytest.mark.parametrize("garbage", [b"x" * 120_000, b"x" * len(CONTENT), b"x" * 400_000], ids=["half", "all", "more"])
def test_a_part_of_another_file_is_begun_again(server: Server, target: Path, garbage: bytes) -> None:
    part_of(target, garbage)
    server.answers = [ranged]
    download.fetch_official(VARIANT, FAST)
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_complete_is_not_downloaded(server: Server, target: Path) -> None:
    part_of(target, CONTENT)
    download.fetch_official(VARIANT, FAST)
    assert target.read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize(
    "first", [truncated, stalled, dripping, silent, status(500), status(503), status(429)],
    ids=["truncated", "stalled", "dripping", "silent", "500", "503", "429"],
)  # fmt: skip
def test_a_second_attempt_completes_it(server: Server, target: Path, first: Answer) -> None:
    server.answers = [first, ranged]
    download.fetch_official(VARIANT, IMPATIENT if first in SLOW else FAST)
    assert target.read_bytes() == CONTENT
    assert server.requests[1][1] == ("bytes=100000-" if first in (truncated, stalled) else server.requests[1][1])
    assert len(server.requests) == 2 + (first is dripping)  # what dripped in was garbage: once more from the start


@pytest.mark.parametrize(
    ("answer", "reason", "requests"),
    [
        (truncated, "the connection ended after 100000 of 300000 bytes", 3),
        (stalled, "timed out", 3),
        (silent, "timed out", 3),
        (dripping, "the server sends less than 1024 bytes a second", 3),
        (status(500), "the server answers 500 Internal Server Error", 3),
        (status(404), "the server answers 404 Not Found", 1),
        (status(403), "the server answers 403 Forbidden", 1),
        (status(204), "the server answers 204", 1),
        (status(302), "the server answers 302", 1),
        (lambda handler: handler.send(200, b"<html>", Content_Type="text/html; charset=x"), "a web page", 1),
        (lambda handler: handler.send(200, length=10**12), "1000000000000 bytes are too many", 1),
        (lambda handler: handler.wfile.write(b"garbage\r\n\r\n"), "garbage", 3),
        (lambda handler: handler.wfile.write(b""), "closed connection without response", 3),
    ],
)
def test_failures_are_one_line_that_says_what_to_type(
    server: Server, target: Path, answer: Answer, reason: str, requests: int
) -> None:
    server.answers = [answer]
    with pytest.raises(DownloadError) as caught:
        download.fetch_official(VARIANT, IMPATIENT if answer in SLOW else FAST)
    message = str(caught.value)
    assert message.startswith(f"cannot download {server.url}{target.name} (")
    assert reason in message
    assert message.endswith(f"; put the file at {target}, or type --weights random")
    assert "\n" not in message
    assert len(server.requests) == requests
    assert not target.exists()


def test_an_endless_answer_is_cut_off(server: Server, target: Path) -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(100_000))

    server.answers = [endless]
    with pytest.raises(DownloadError, match="over 1000000 bytes are too many for this file"):
        download.fetch_official(VARIANT, Limits(2, 5, largest_bytes=1_000_000))
    assert not target.exists()


def test_an_interrupted_download_goes_on_next_time(server: Server, target: Path) -> None:
    server.answers = [truncated, status(404)]
    with pytest.raises(DownloadError):
        download.fetch_official(VARIANT, FAST)
    server.answers = [ranged]
    server.requests.clear()
    download.fetch_official(VARIANT, FAST)
    assert target.read_bytes() == CONTENT
    assert server.requests == [(f"/{target.name}", "bytes=100000-")]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/passwd", "only http and https addresses are allowed, not file"),
        ("ftp://127.0.0.1/x", "not ftp"),
        ("http://example.invalid/x", "redirects to example.invalid without https"),
        ("http://127.0.0.1.example.invalid/x", "without https"),
        ("http://user:secret@127.0.0.1/x", "with a user name or password"),
        ("http://[::1/x", "not valid"),
    ],
)
def test_redirects_to_unsafe_places_are_refused(server: Server, target: Path, location: str, reason: str) -> None:
    server.answers = [status(302, location)]
    with pytest.raises(DownloadError, match=reason) as caught:
        download.fetch_official(VARIANT, FAST)
    assert "secret" not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_on_this_machine_are_followed(server: Server, target: Path, code: int) -> None:
    server.answers = [status(code, "/elsewhere"), status(code, f"{server.url}there"), whole]
    download.fetch_official(VARIANT, FAST)
    assert [path for path, _ in server.requests] == [f"/{target.name}", "/elsewhere", "/there"]
    assert target.read_bytes() == CONTENT


def test_redirects_without_end(server: Server, target: Path) -> None:
    server.answers = [status(302, "/again")]
    with pytest.raises(DownloadError, match="more than 5 redirects"):
        download.fetch_official(VARIANT, FAST)
    assert len(server.requests) == 6


def test_a_host_that_never_answers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full drops what arrives, as a firewall does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(8):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
        monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", f"http://127.0.0.1:{listener.getsockname()[1]}/")
        with pytest.raises(DownloadError, match="timed out"):
            download.fetch_official(VARIANT, Limits(connect_s=0.2, stall_s=0.2, pause_s=0.01))
        for client in waiting:
            client.close()


def test_a_name_that_nobody_looks_up(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: released.wait(10) and [])
    with pytest.raises(GetError, match=r"the name somewhere.invalid was not found within 0.1 s"):
        http_get.get("https://somewhere.invalid/", {}, Limits(connect_s=0.1))
    released.set()


FETCH = """
import os, sys
from simplenet import cli, download, variants
from simplenet.http_get import Limits
variants.Variant.official_sha256_prefix = property(lambda self: sys.argv[1])
{before}
def main():
    print(download.fetch_official("1.5m", Limits(2, 5, pause_s=0.01)))
    return 0
cli.run(main)
"""


def fetching(before: str = "") -> subprocess.Popen[str]:
    """`fetch_official` in a process of its own."""
    prefix = hashlib.sha256(CONTENT).hexdigest()[:8]
    return subprocess.Popen(
        [sys.executable, "-c", FETCH.format(before=before), prefix],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_two_processes_at_once_download_once(server: Server, target: Path) -> None:
    def slowly(handler: Handler) -> None:
        handler.send(200, CONTENT[:1000], length=len(CONTENT))
        time.sleep(0.5)
        handler.wfile.write(CONTENT[1000:])

    server.answers = [slowly]
    processes = [fetching() for _ in range(3)]
    for process in processes:
        output, errors = process.communicate()
        assert (process.returncode, output, errors) == (0, f"{target}\n", "")
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_killed_download_is_resumed(server: Server, target: Path) -> None:
    server.answers = [stalled, ranged]
    process = fetching()
    part = target.with_name(target.name + ".part")
    wait_while_running(process, lambda: part.exists() and part.stat().st_size > 50_000)
    process.kill()
    process.communicate()
    assert not target.exists()
    download.fetch_official(VARIANT, FAST)
    assert target.read_bytes() == CONTENT
    assert server.requests[1][1] is not None


def test_the_disk_fills_up(server: Server, target: Path) -> None:
    """A limit on file sizes stands for the full disk: the kernel refuses the write in the same way."""
    process = fetching("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors == f"error: cannot keep {target} (File too large); name another folder: SIMPLENET_CACHE=DIR\n"
    assert [path.name for path in target.parent.iterdir()] == [f"{target.name}.lock"]


def test_a_cache_that_cannot_be_written(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "cache", Path("/proc/cache")):
        monkeypatch.setenv("SIMPLENET_CACHE", str(place))
        with pytest.raises(DownloadError, match=r"cannot keep .*; name another folder: SIMPLENET_CACHE=DIR"):
            download.fetch_official(VARIANT, FAST)


def test_a_folder_in_the_place_of_the_file(target: Path, server: Server) -> None:
    target.mkdir(parents=True)
    with pytest.raises(DownloadError, match="cannot keep"):
        download.fetch_official(VARIANT, FAST)
    assert target.is_dir()
