"""Fixtures: an empty cache, a server that has the official weights, and an artifact."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from simplenet import variants
from tests.simplenet.broken_server import CONTENT, Server
from tests.simplenet.published import publish


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the server is the mirror of the official weights, which are CONTENT."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SIMPLENET_CACHE", str(folder))
    monkeypatch.setenv("SIMPLENET_WEIGHTS_URL", server.url)
    monkeypatch.delenv("SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    expect(monkeypatch, CONTENT)
    return folder


def expect(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    prefix = hashlib.sha256(content).hexdigest()[:8]
    monkeypatch.setattr(variants.Variant, "official_sha256_prefix", property(lambda self: prefix))


@pytest.fixture
def target(cache: Path) -> Path:
    return cache / "simplenetv1_small_m2_05-ca4b3e2b.pth"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good artifact."""
    publish(tmp_path / "cifar-310k-fashion-mnist" / "onnx-int8")
    return tmp_path / "cifar-310k-fashion-mnist" / "onnx-int8"
