"""Official weights: fetched once, checked, and where they are kept."""

from __future__ import annotations

import hashlib
import socket
import sys
from pathlib import Path

import pytest

from simplenet import download, fetch
from simplenet.errors import DownloadError, UsageError, WeightsError
from simplenet.http_get import Limits
from tests.simplenet.broken_server import CONTENT, Server

FAST = Limits(connect_s=5.0, stall_s=5.0, attempts=3, pause_s=0.01)


VARIANT = "1.5m"


def test_a_file_is_downloaded_once(server: Server, target: Path) -> None:
    assert download.fetch_official(VARIANT, FAST) == target
    assert target.read_bytes() == CONTENT
    assert download.fetch_official("simplenetv1_small_m2_05", FAST) == target
    assert server.requests == [(f"/{target.name}", None)]
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name, f"{target.name}.lock"]


def test_the_official_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMPLENET_WEIGHTS_URL", raising=False)
    assert download.BASE_URL == "https://github.com/Coderx7/SimpleNet_Pytorch/releases/download/v1.0.0/"


def test_a_file_in_the_cache_needs_no_network_and_no_lock(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", "https://nowhere.invalid/")
    assert download.fetch_official(VARIANT, FAST) == target
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_another_file_than_the_name_says(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = [lambda handler: handler.send(200, b"another file")]
    actual, expected = hashlib.sha256(b"another file").hexdigest(), hashlib.sha256(CONTENT).hexdigest()[:8]
    rejected = target.with_name(target.name + ".rejected")
    with pytest.raises(WeightsError) as caught:
        download.fetch_official(VARIANT, FAST)
    assert not isinstance(caught.value, DownloadError)  # --weights auto must not pass over it
    for part in (actual, expected, str(rejected), "SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS=1"):
        assert part in str(caught.value)
    assert rejected.read_bytes() == b"another file"
    assert not target.exists()

    monkeypatch.setenv("SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS", "1")
    server.requests.clear()
    with pytest.warns(fetch.UnverifiedFileWarning, match=f"should begin with {expected} but is {actual}"):
        assert download.fetch_official(VARIANT, FAST) == target
    assert target.read_bytes() == b"another file"
    assert server.requests == []  # it is here already

    monkeypatch.delenv("SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS")
    with pytest.raises(WeightsError, match="kept aside"):
        download.fetch_official(VARIANT, FAST)


@pytest.mark.parametrize(
    "url", ["file:///tmp/", "ftp://host/", "host/folder", "https://", "https://me:secret@host/", "http://a:b/"]
)
def test_a_mirror_that_is_no_address(cache: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", url)
    with pytest.raises(UsageError, match="SIMPLENET_WEIGHTS_URL: ") as caught:
        download.fetch_official(VARIANT, FAST)
    assert "secret" not in str(caught.value)


def test_no_network(cache: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", f"http://127.0.0.1:{port}/")
    with pytest.raises(DownloadError, match=r"Connection refused\); put the file at .*, or type --weights random"):
        download.fetch_official(VARIANT, FAST)
    monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", "https://nowhere.invalid/")
    with pytest.raises(DownloadError, match=r"cannot download https://nowhere\.invalid/"):
        download.fetch_official(VARIANT, FAST)


@pytest.mark.parametrize("variant", ["cifar-310k", "simplenet_cifar_5m"])
def test_variants_without_official_weights(cache: Path, variant: str) -> None:
    with pytest.raises(UsageError, match="has no official weights; type --weights"):
        download.fetch_official(variant, FAST)


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
