"""The browser's own model: its routes over HTTP."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demos.live.browser import onnxruntime_web
from simplenet.artifacts import Artifact
from tests.demos.live.browser.one_model import OneModel, changed, served


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; the path goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    """Small files by the names of the real ones, and one that is not for serving."""
    folder = onnxruntime_web.folder(tmp_path / "vendor")
    folder.mkdir(parents=True)
    for name in (*onnxruntime_web.SERVED, "package.json"):
        (folder / name).write_text(f"this is {name}")
    return tmp_path / "vendor"


def test_the_manifest_and_the_model_are_the_sessions(artifact: Artifact, tmp_path: Path) -> None:
    with served(OneModel(artifact), tmp_path) as port:
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


def test_the_routes_follow_the_session_to_another_model(artifact: Artifact, tmp_path: Path) -> None:
    session = OneModel(artifact)
    with served(session, tmp_path) as port:
        _, _, body = get(port, "/model/manifest.json")
        old = json.loads(body)["files"]["model.onnx"]
        assert get(port, f"/model/model.onnx?sha256={old}")[0] == 200
        assert session.asked == 1  # an export is not asked for again and again
        session.artifact = changed(artifact, tmp_path / "other", variant="cifar-460k")
        status, _, body = get(port, "/model/manifest.json")
        assert (status, json.loads(body)["variant"]) == (200, "cifar-460k")
        status, _, body = get(port, f"/model/model.onnx?sha256={old}")
        assert status == 409
        assert "changed" in json.loads(body)["error"]
        # The same model, made anew on disk:
        session.artifact = changed(artifact, tmp_path / "anew", variant="cifar-460k")
        shutil.copy(session.artifact.model_file, tmp_path / "other" / "model.onnx")
        assert json.loads(get(port, "/model/manifest.json")[2])["files"] == session.artifact.manifest.files


def test_a_model_file_alone_is_served_with_its_hash(artifact: Artifact, tmp_path: Path) -> None:
    alone = tmp_path / "mine.onnx"  # as runtimes.load finds it: with the manifest inside, which cannot name its hash
    shutil.copy(artifact.model_file, alone)
    session = OneModel(Artifact(alone, dataclasses.replace(artifact.manifest, files={})))
    with served(session, tmp_path) as port:
        manifest = json.loads(get(port, "/model/manifest.json")[2])
        assert manifest["files"] == {"model.onnx": hashlib.sha256(alone.read_bytes()).hexdigest()}
        status, _, body = get(port, f"/model/model.onnx?sha256={manifest['files']['model.onnx']}")
        assert (status, body) == (200, alone.read_bytes())
        assert get(port, "/model/model.onnx?sha256=undefined")[0] == 409


def test_a_model_that_cannot_be_made_is_an_error_in_one_line(artifact: Artifact, tmp_path: Path) -> None:
    session = OneModel(None)
    with served(session, tmp_path) as port:
        for address in ("/model/manifest.json", "/model/model.onnx"):
            status, _, body = get(port, address)
            assert status == 503
            assert json.loads(body) == {"error": "PyTorch cannot export this network; type: make tea"}
        session.artifact = changed(artifact, tmp_path / "fleeting")
        session.artifact.model_file.unlink()
        assert get(port, "/model/model.onnx")[0] == 503
        session.artifact = artifact
        assert get(port, "/model/model.onnx")[0] == 200  # an error is not kept


def test_a_slow_export_runs_once_and_holds_up_nothing_else(artifact: Artifact, vendor: Path) -> None:
    session = OneModel(artifact)
    session.may_answer.clear()
    with served(session, vendor) as port, ThreadPoolExecutor(60) as pool:
        waiting = [
            pool.submit(get, port, "/model/manifest.json") for _ in range(60)
        ]  # more than the server has threads
        assert get(port, "/onnxruntime-web/ort.wasm.bundle.min.mjs")[0] == 200
        assert not any(one.done() for one in waiting)
        session.may_answer.set()
        assert {one.result()[0] for one in waiting} == {200}
    assert (session.asked, session.most_at_once) == (1, 1)


def test_the_runtimes_files_have_the_types_that_browsers_insist_on(artifact: Artifact, vendor: Path) -> None:
    with served(OneModel(artifact), vendor) as port:
        for name in onnxruntime_web.SERVED:
            status, headers, body = get(port, f"/onnxruntime-web/{name}")
            wanted = "application/wasm" if name.endswith(".wasm") else "text/javascript"
            assert (status, headers["content-type"], body) == (200, wanted, f"this is {name}".encode())
            assert get(port, f"/onnxruntime-web/{name}", If_None_Match=headers["etag"])[0] == 304


@pytest.mark.parametrize(
    "name",
    [
        "package.json",  # it is there, but nobody needs it
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
def test_no_other_file_can_be_had(artifact: Artifact, vendor: Path, name: str) -> None:
    with served(OneModel(artifact), vendor) as port:
        status, headers, body = get(port, f"/onnxruntime-web/{name}")
        assert status in (404, 307)  # 307: without the slash, it would be served
        assert "x-evil" not in headers
        assert b"root:" not in body
        assert len(body) < 300


def test_files_that_were_not_fetched_are_an_error_that_says_what_to_type(artifact: Artifact, tmp_path: Path) -> None:
    with served(OneModel(artifact), tmp_path) as port:
        status, _, body = get(port, "/onnxruntime-web/ort.wasm.bundle.min.mjs")
        assert status == 404
        assert json.loads(body) == {"error": "onnxruntime-web has not been fetched; type: make web"}
