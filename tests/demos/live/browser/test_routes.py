"""The routes of the model in the browser, over HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demos.live.browser import onnxruntime_web
from runtimes.loader import read_artifact
from simplenet.artifacts import Artifact
from tests.demos.live.browser.fake_session import FakeSession, changed, serve_tile


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; the path is sent unchanged."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files with the names of the real ones, and one that must not be served."""
    vendor = tmp_path_factory.mktemp("vendor")
    folder = onnxruntime_web.folder(vendor)
    folder.mkdir(parents=True)
    for name in (*onnxruntime_web.SERVED, "package.json"):
        (folder / name).write_text(f"this is {name}")
    return vendor


@pytest.fixture(scope="module")
def vendor_port(vendor: Path) -> Iterator[int]:
    """A server with those files and without a model."""
    with serve_tile(FakeSession(None), vendor) as port:
        yield port


def test_serves_manifest_and_model_of_the_session(artifact: Artifact, tmp_path: Path) -> None:
    with serve_tile(FakeSession(artifact), tmp_path) as port:
        status, headers, body = get(port, "/model/manifest.json")
        assert (status, headers["content-type"]) == (200, "application/json")
        manifest = json.loads(body)
        assert manifest == json.loads(artifact.manifest.to_json())
        sha256 = manifest["files"]["model.onnx"]
        for address in ("/model/model.onnx", f"/model/model.onnx?sha256={sha256}"):
            status, _, body = get(port, address)
            assert status == 200
            assert hashlib.sha256(body).hexdigest() == sha256
        assert get(port, "/model/manifest.json", "POST")[0] == 405


def test_follows_session_to_another_model(artifact: Artifact, tmp_path: Path) -> None:
    session = FakeSession(artifact)
    with serve_tile(session, tmp_path) as port:
        _, _, body = get(port, "/model/manifest.json")
        old = json.loads(body)["files"]["model.onnx"]
        assert get(port, f"/model/model.onnx?sha256={old}")[0] == 200
        assert session.requests == 1  # an export is not asked for again and again
        session.artifact = changed(artifact, tmp_path / "other", variant="cifar-460k")
        status, _, body = get(port, "/model/manifest.json")
        assert (status, json.loads(body)["variant"]) == (200, "cifar-460k")
        status, _, body = get(port, f"/model/model.onnx?sha256={old}")
        assert status == 409
        assert b"changed" in body
        # The same model, made anew on disk:
        session.artifact = changed(artifact, tmp_path / "anew", variant="cifar-460k")
        shutil.copy(session.artifact.model_file, tmp_path / "other" / "model.onnx")
        assert json.loads(get(port, "/model/manifest.json")[2])["files"] == session.artifact.manifest.files


def test_serves_single_file_model_with_its_hash(artifact: Artifact, tmp_path: Path) -> None:
    alone = tmp_path / "mine.onnx"  # as runtimes.load finds it: with the manifest inside
    shutil.copy(artifact.model_file, alone)
    session = FakeSession(read_artifact(alone))
    with serve_tile(session, tmp_path) as port:
        manifest = json.loads(get(port, "/model/manifest.json")[2])
        assert manifest["files"] == {"model.onnx": hashlib.sha256(alone.read_bytes()).hexdigest()}
        status, _, body = get(port, f"/model/model.onnx?sha256={manifest['files']['model.onnx']}")
        assert (status, body) == (200, alone.read_bytes())
        assert get(port, "/model/model.onnx?sha256=undefined")[0] == 409


def test_failed_export_is_a_one_line_error(artifact: Artifact, tmp_path: Path) -> None:
    session = FakeSession(None)
    with serve_tile(session, tmp_path) as port:
        for address in ("/model/manifest.json", "/model/model.onnx"):
            status, _, body = get(port, address)
            assert status == 503
            assert body == b"PyTorch cannot export this network; type: make tea"
        session.artifact = changed(artifact, tmp_path / "fleeting")
        session.artifact.model_file.unlink()
        assert get(port, "/model/model.onnx")[0] == 503
        session.artifact = artifact
        assert get(port, "/model/model.onnx")[0] == 200  # an error is not kept


def test_slow_export_runs_once_and_blocks_nothing_else(artifact: Artifact, vendor: Path) -> None:
    session = FakeSession(artifact)
    session.may_return.clear()
    with serve_tile(session, vendor) as port, ThreadPoolExecutor(60) as pool:
        waiting = [
            pool.submit(get, port, "/model/manifest.json") for _ in range(60)
        ]  # more than the server has threads
        assert get(port, "/onnxruntime-web/ort.wasm.bundle.min.mjs")[0] == 200
        assert not any(one.done() for one in waiting)
        session.may_return.set()
        assert {one.result()[0] for one in waiting} == {200}
    assert (session.requests, session.max_concurrent) == (1, 1)


def test_runtime_files_have_mime_types_and_etags(artifact: Artifact, vendor: Path) -> None:
    with serve_tile(FakeSession(artifact), vendor) as port:
        for name in onnxruntime_web.SERVED:
            status, headers, body = get(port, f"/onnxruntime-web/{name}")
            wanted = "application/wasm" if name.endswith(".wasm") else "text/javascript; charset=utf-8"
            assert (status, headers["content-type"], body) == (200, wanted, f"this is {name}".encode())
            assert get(port, f"/onnxruntime-web/{name}", If_None_Match=headers["etag"])[0] == 304


@pytest.mark.parametrize(
    "name",
    [
        "package.json",  # fetched, but not served
        "",
        ".",
        "..",
        "../onnxruntime_web.py",
        "..%2f..%2fonnxruntime_web.py",
        "%2e%2e/%2e%2e/onnxruntime_web.py",
        "..%5c..%5connxruntime_web.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "ort.wasm.bundle.min.mjs/",
        "ort.wasm.bundle.min.mjs%00",
        "ORT.WASM.BUNDLE.MIN.MJS",
        "%ff%0d%0aX-Evil:%201",
        "x" * 5000,
    ],
)
def test_serves_no_other_files(vendor_port: int, name: str) -> None:
    status, headers, body = get(vendor_port, f"/onnxruntime-web/{name}")
    assert status in (404, 307)  # 307: without the slash, it would be served
    assert "x-evil" not in headers
    assert b"root:" not in body
    assert len(body) < 300


def test_missing_runtime_error_says_what_to_type(artifact: Artifact, tmp_path: Path) -> None:
    with serve_tile(FakeSession(artifact), tmp_path) as port:
        status, _, body = get(port, "/onnxruntime-web/ort.wasm.bundle.min.mjs")
        assert status == 404
        assert body == b"onnxruntime-web has not been fetched; type: make web"
