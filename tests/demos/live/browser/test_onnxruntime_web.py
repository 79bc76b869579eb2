"""Fetching onnxruntime-web with a fake npm (a shell script): complete, or an error that leaves nothing behind."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from demos.live.browser import onnxruntime_web
from simplenet.errors import DownloadError

Npm = Callable[[str], None]


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Npm:
    """`npm(script)`: the only npm on the PATH, a shell script that runs in the current folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def write(script: str) -> None:
        (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "npm").chmod(0o755)

    return write


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package with the right members; its hash is pinned for this test."""
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in (
            "package.json",
            "README.md",
            *(f"dist/{name}" for name in onnxruntime_web.SERVED),
            "dist/other.mjs",
        ):
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(onnxruntime_web, "SHA512", digest)
    return path


def packing(package: Path) -> str:
    """A script that does what `npm pack` does, and checks its arguments."""
    version = onnxruntime_web.VERSION
    called = f'test "$1 $2" = "pack onnxruntime-web@{version}" || exit 2'
    return f"{called}\ncp '{package}' onnxruntime-web-{version}.tgz"


def test_keeps_only_served_files(tmp_path: Path, npm: Npm, package: Path) -> None:
    vendor = tmp_path / "vendor"
    old = vendor / "onnxruntime-web-0.0.1"
    old.mkdir(parents=True)
    npm(packing(package))
    assert not onnxruntime_web.is_complete(vendor)
    folder = onnxruntime_web.fetch(vendor)
    assert onnxruntime_web.is_complete(vendor)
    assert {path.name for path in folder.iterdir()} == {*onnxruntime_web.SERVED, "package.json", "README.md"}
    assert all((folder / name).read_text() == f"dist/{name}" for name in onnxruntime_web.SERVED)
    assert [path.name for path in vendor.iterdir()] == [folder.name]  # neither the old version nor the package


def test_fetches_only_what_is_incomplete(tmp_path: Path, npm: Npm, package: Path) -> None:
    npm(packing(package))
    folder = onnxruntime_web.fetch(tmp_path / "vendor")
    npm("exit 1")
    assert onnxruntime_web.fetch(tmp_path / "vendor") == folder
    (folder / "ort.wasm.bundle.min.mjs").unlink()
    with pytest.raises(DownloadError, match="npm cannot fetch"):
        onnxruntime_web.fetch(tmp_path / "vendor")
    npm(packing(package))
    assert onnxruntime_web.fetch(tmp_path / "vendor") == folder
    assert onnxruntime_web.is_complete(tmp_path / "vendor")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'npm error code ENOTFOUND' >&2; echo 'npm error\tnetwork' >&2; exit 1", "ENOTFOUND npm error network"),
        ("exit 0", "no output"),
        (f"echo another > onnxruntime-web-{onnxruntime_web.VERSION}.tgz", "is not the pinned one"),
    ],
)
def test_npm_failure_is_one_line_and_leaves_nothing(tmp_path: Path, npm: Npm, script: str, message: str) -> None:
    npm(script)
    with pytest.raises(DownloadError, match=message) as caught:
        onnxruntime_web.fetch(tmp_path / "vendor")
    assert str(caught.value).endswith("type: make web")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "vendor").iterdir()) == []


def test_missing_npm_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError, match=r"npm is not installed; .*apt install npm.* make web"):
        onnxruntime_web.fetch(tmp_path / "vendor")


def test_unwritable_folder_is_a_download_error(tmp_path: Path, npm: Npm, package: Path) -> None:
    npm(packing(package))
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot keep onnxruntime-web in"):
        onnxruntime_web.fetch(tmp_path / "file" / "vendor")


@pytest.mark.network
@pytest.mark.slow
def test_published_package_has_the_pinned_hash(tmp_path: Path) -> None:
    try:
        folder = onnxruntime_web.fetch(tmp_path / "vendor")
    except DownloadError as error:
        if "is not the pinned one" in str(error):
            raise
        pytest.skip(str(error))
    assert (folder / "ort-wasm-simd-threaded.wasm").read_bytes().startswith(b"\0asm")
