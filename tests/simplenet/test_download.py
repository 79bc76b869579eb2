"""Downloads from a real server on this machine: verified, bounded, atomic, once for all processes."""

from __future__ import annotations

import hashlib
import http.client
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from simplenet import download
from simplenet.errors import DownloadError, SimpleNetWarning, UsageError, WeightsError
from tests.simplenet.broken_server import (
    CONTENT,
    Answer,
    Handler,
    Server,
    complete,
    endless,
    silent,
    stalled,
    status,
    trickling,
    truncated,
)
from tests.waiting import wait_while_running

ROOT = Path(__file__).parents[2]
VARIANT = "1.5m"


def left_in(folder: Path) -> list[str]:
    """Without the lock file, which stays."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.3)
    monkeypatch.setattr(download, "_TIME_LIMIT_S", 1.0)


def test_a_file_is_downloaded_once(server: Server, target: Path) -> None:
    assert download.fetch_official(VARIANT) == target
    assert target.read_bytes() == CONTENT
    assert download.fetch_official("simplenetv1_small_m2_05") == target
    assert server.requests == [f"/{target.name}"]
    assert left_in(target.parent) == [target.name]


def test_the_official_address() -> None:
    assert download.BASE_URL == "https://github.com/Coderx7/SimpleNet_Pytorch/releases/download/v1.0.0/"


def test_a_cached_file_needs_no_network_and_no_lock(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", "https://nowhere.invalid/")
    monkeypatch.setitem(sys.modules, "filelock", None)
    assert download.fetch_official(VARIANT) == target
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_missing_filelock_is_a_download_error(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(DownloadError, match="pip install filelock"):
        download.fetch_official(VARIANT)


def test_a_half_file_is_downloaded_again(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name(target.name + ".part").write_bytes(CONTENT[:1000])
    download.fetch_official(VARIANT)
    assert target.read_bytes() == CONTENT
    assert left_in(target.parent) == [target.name]


def test_a_wrong_digest_is_kept_aside_or_accepted(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [lambda handler: handler.send(200, b"another file")]
    actual, expected = hashlib.sha256(b"another file").hexdigest(), hashlib.sha256(CONTENT).hexdigest()[:8]
    rejected = target.with_name(target.name + ".rejected")
    with pytest.raises(WeightsError) as caught:
        download.fetch_official(VARIANT)
    assert not isinstance(caught.value, DownloadError)  # --weights auto must not continue with other weights
    for part in (actual, expected, str(rejected), "SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS=1"):
        assert part in str(caught.value)
    assert rejected.read_bytes() == b"another file"
    assert left_in(target.parent) == [rejected.name]

    monkeypatch.setenv("SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS", "1")
    server.requests.clear()
    with pytest.warns(SimpleNetWarning, match=f"should begin with {expected} but is {actual}"):
        assert download.fetch_official(VARIANT) == target
    assert target.read_bytes() == b"another file"
    assert server.requests == []  # the rejected file is used

    monkeypatch.delenv("SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS")
    with pytest.raises(WeightsError, match="kept aside"):
        download.fetch_official(VARIANT)


@pytest.mark.parametrize(
    "url", ["file:///tmp/", "ftp://host/", "host/folder", "https://", "https://me:secret@host/", "http://a:b/"]
)
def test_rejects_a_mirror_that_is_no_http_address(cache: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", url)
    with pytest.raises(UsageError, match="SIMPLENET_WEIGHTS_URL: name the http") as caught:
        download.fetch_official(VARIANT)
    assert "secret" not in str(caught.value)


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", f"http://127.0.0.1:{port}/")
    with pytest.raises(DownloadError, match=r"Connection refused\); put the file at .*, or type --weights random"):
        download.fetch_official(VARIANT)
    monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", "https://nowhere.invalid/")
    with pytest.raises(DownloadError, match=r"cannot download https://nowhere\.invalid/"):
        download.fetch_official(VARIANT)


@pytest.mark.usefixtures("short_timeouts")
def test_a_host_that_does_not_accept_connections(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener with a full queue drops connection requests, as a firewall does."""
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
            download.fetch_official(VARIANT)
        for client in waiting:
            client.close()


@pytest.mark.usefixtures("short_timeouts")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (truncated, "the connection ended after 100000 of 300000 bytes"),
        (stalled, "timed out"),
        (silent, "timed out"),
        (trickling, "bytes were received in 1 seconds"),
        (status(500), "the server answers 500 Internal Server Error"),
        (status(404), "the server answers 404 Not Found"),
        (status(204), "the server answers 204"),
        (status(302), "the server answers 302"),
        (lambda handler: handler.send(200, b"<html>", Content_Type="text/html; charset=x"), "text/html, no file"),
        (lambda handler: handler.send(200, b"x", length=10**12), "the file is larger than 209715200 bytes"),
        (lambda handler: handler.wfile.write(b"garbage\r\n\r\n"), "garbage"),
        (lambda handler: handler.wfile.write(b""), "closed connection without response"),
    ],
)
def test_a_failure_is_one_line_that_says_what_to_type(
    server: Server, target: Path, answer: Answer, reason: str
) -> None:
    server.answers = [answer]
    with pytest.raises(DownloadError) as caught:
        download.fetch_official(VARIANT)
    message = str(caught.value)
    assert message.startswith(f"cannot download {server.url}{target.name} (")
    assert reason in message
    assert message.endswith(f"; put the file at {target}, or type --weights random")
    assert "\n" not in message
    assert left_in(target.parent) == []


def test_a_body_without_end_is_cut_off(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_MAX_BYTES", 1_000_000)
    server.answers = [endless]
    with pytest.raises(DownloadError, match="the file is larger than 1000000 bytes"):
        download.fetch_official(VARIANT)
    assert left_in(target.parent) == []


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/passwd", "the server answers 302 Found"),
        ("ftp://127.0.0.1:1/x", "Connection refused"),
        ("http://[::1/x", "Invalid IPv6 URL"),
    ],
)
def test_rejects_redirects_to_unsafe_places(server: Server, target: Path, location: str, reason: str) -> None:
    server.answers = [status(302, location)]
    with pytest.raises(DownloadError, match=reason):
        download.fetch_official(VARIANT)
    assert len(server.requests) == 1


def test_rejects_a_redirect_from_https_to_http(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The opener stands for an https server that redirects to an http one."""
    urlopen = urllib.request.urlopen

    def redirected(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
        response: http.client.HTTPResponse = urlopen(request.full_url.replace("https:", "http:"), timeout=timeout)
        return response

    monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", server.url.replace("http:", "https:"))
    monkeypatch.setattr(urllib.request, "urlopen", redirected)
    with pytest.raises(DownloadError, match=r"redirects to http:.*, which is not https"):
        download.fetch_official(VARIANT)
    assert left_in(target.parent) == []


@pytest.mark.parametrize("code", [301, 302, 303, 307])  # Python 3.10 does not follow 308
def test_follows_redirects_on_the_same_host(server: Server, target: Path, code: int) -> None:
    server.answers = [
        status(code, "/elsewhere"),
        status(code, f"{server.url}there"),
        complete,
    ]
    download.fetch_official(VARIANT)
    assert server.requests == [f"/{target.name}", "/elsewhere", "/there"]
    assert target.read_bytes() == CONTENT


def test_redirects_without_end(server: Server, target: Path) -> None:
    server.answers = [status(302, "/again")]
    with pytest.raises(DownloadError, match="the server answers 302 Found"):
        download.fetch_official(VARIANT)
    assert len(server.requests) <= 6


FETCH = """
import sys
from simplenet import cli, download, variants
variants.Variant.official_sha256_prefix = property(lambda self: sys.argv[1])
{before}
def main():
    print(download.fetch_official("1.5m"))
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
    processes = [fetching() for _ in range(2)]
    for process in processes:
        output, errors = process.communicate()
        assert (process.returncode, output, errors) == (0, f"{target}\n", "")
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_leaves_no_final_file(server: Server, target: Path, ending: signal.Signals) -> None:
    server.answers = [stalled, complete]
    part = target.with_name(target.name + ".part")
    process = fetching()
    wait_while_running(process, lambda: part.exists() and part.stat().st_size > 50_000)
    process.send_signal(ending)
    process.communicate()
    assert left_in(target.parent) == ([] if ending == signal.SIGINT else [part.name])
    assert download.fetch_official(VARIANT).read_bytes() == CONTENT


def test_a_full_disk(server: Server, target: Path) -> None:
    """A limit on file sizes stands for the full disk: the kernel fails the write in the same way."""
    process = fetching("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors == f"error: cannot write {target} (File too large); choose another folder: SIMPLENET_CACHE=DIR\n"
    assert left_in(target.parent) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "cache", Path("/proc/cache")):
        monkeypatch.setenv("SIMPLENET_CACHE", str(place))
        with pytest.raises(DownloadError, match=r"cannot write .*; choose another folder: SIMPLENET_CACHE=DIR"):
            download.fetch_official(VARIANT)


def test_a_folder_in_the_place_of_the_file(target: Path, server: Server) -> None:
    target.mkdir(parents=True)
    with pytest.raises(DownloadError, match="cannot write"):
        download.fetch_official(VARIANT)
    assert target.is_dir()


def test_the_progress_bar_counts_bytes(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    download.fetch_official(VARIANT)
    assert "300.0/300.0 kB" in capsys.readouterr().err


@pytest.mark.parametrize("hide", [lambda patch: patch.setitem(sys.modules, "rich", None), lambda patch: None])
def test_no_progress_bar_without_rich_or_a_terminal(
    server: Server,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hide: Callable[[pytest.MonkeyPatch], None],
) -> None:
    hide(monkeypatch)
    assert download.fetch_official(VARIANT).read_bytes() == CONTENT
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("variant", ["cifar-310k", "simplenet_cifar_5m"])
def test_variants_without_official_weights(cache: Path, variant: str) -> None:
    with pytest.raises(UsageError, match="has no official weights; type --weights"):
        download.fetch_official(variant)


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(sys, "platform", "linux")
    for own, xdg, expected in (
        ("/my/cache", "/xdg", "/my/cache"),
        ("~/mine", "/xdg", "/home/me/mine"),
        ("", "/xdg", "/xdg/simplenet-edge"),
        ("", "relative", "/home/me/.cache/simplenet-edge"),
        ("", "", "/home/me/.cache/simplenet-edge"),
    ):
        monkeypatch.setenv("SIMPLENET_CACHE", own)
        monkeypatch.setenv("XDG_CACHE_HOME", xdg)
        assert download.cache_folder() == Path(expected)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert download.cache_folder() == Path("/home/me/Library/Caches/simplenet-edge")


@pytest.mark.network
def test_the_official_files_are_what_their_names_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMPLENET_CACHE", str(tmp_path))
    monkeypatch.delenv("SIMPLENET_WEIGHTS_URL", raising=False)
    try:
        path = download.fetch_official("1.5m")
    except DownloadError as error:
        pytest.skip(str(error))
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("ca4b3e2b")
