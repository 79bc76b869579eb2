"""Brings onnxruntime-web, which runs the model inside the browser, from npm into a git-ignored folder.

    make web
    python demos/live/browser/onnxruntime_web.py

Only the files that the page serves are kept: about 41 MB of a package of 145 MB. The hash of the package is pinned,
whichever registry or mirror npm is set up for. What is there already is not fetched again.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from simplenet import cli, files
from simplenet.errors import DownloadError, one_line

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Base64, as npm writes it: `npm view onnxruntime-web@VERSION dist.integrity`."""

SERVED = {
    "ort.wasm.bundle.min.mjs": "text/javascript",
    "ort-wasm-simd-threaded.wasm": "application/wasm",
    "ort.webgpu.bundle.min.mjs": "text/javascript",
    "ort-wasm-simd-threaded.asyncify.wasm": "application/wasm",
}
"""The files the browser asks for and their MIME types: per execution provider one module and its WebAssembly."""

COMMAND = "make web"
VENDOR = Path(__file__).resolve().parent / "vendor"
_KEPT_BESIDE = ("package/package.json", "package/README.md")  # they name its license, MIT; the package has no LICENSE
_LARGEST_PACKAGE_BYTES = 100 << 20
_NPM_TIMEOUT_S = 600


def folder(vendor: Path = VENDOR) -> Path:
    """Where the files of this version are, or would be."""
    return vendor / f"onnxruntime-web-{VERSION}"


def is_complete(vendor: Path = VENDOR) -> bool:
    return all((folder(vendor) / name).is_file() for name in SERVED)


def fetch(vendor: Path = VENDOR) -> Path:
    """Fetches the package with `npm pack`, checks its hash, keeps the served files; the folder appears whole or not.

    Raises:
        DownloadError: no npm, no network, another package than the pinned one, or no place to write.
    """
    target = folder(vendor)
    if is_complete(vendor):
        return target
    try:
        vendor.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".onnxruntime-web.", dir=vendor) as workplace:
            package = _pack(Path(workplace))
            fresh = Path(workplace) / "fresh"
            fresh.mkdir()
            _unpack(package, fresh)
            shutil.rmtree(target, ignore_errors=True)  # incomplete, or it would not have been fetched
            os.replace(fresh, target)
    except OSError as error:
        if is_complete(vendor):  # somebody else was quicker
            return target
        raise DownloadError(
            f"cannot keep onnxruntime-web in {vendor}: {files.reason(error)}; make room there and type: {COMMAND}"
        ) from error
    for other in vendor.glob("onnxruntime-web-*"):
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
    return target


def _pack(workplace: Path) -> Path:
    """The package as npm has it, in `workplace`."""
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError(f"npm is not installed; install Node.js (Debian: sudo apt install npm) and type: {COMMAND}")
    retries = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000")  # npm's own keep a person waiting for minutes
    command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--ignore-scripts", "--loglevel=error", *retries]
    try:
        done = subprocess.run(
            command, cwd=workplace, capture_output=True, text=True, timeout=_NPM_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise DownloadError(
            f"npm brought no onnxruntime-web within {_NPM_TIMEOUT_S} s; check the network and type: {COMMAND}"
        ) from None
    package = workplace / f"onnxruntime-web-{VERSION}.tgz"
    if done.returncode != 0 or not package.is_file():
        said = one_line(done.stderr or done.stdout or "npm says nothing more", 160)
        raise DownloadError(
            f"npm cannot fetch onnxruntime-web {VERSION} ({said}); check the network and type: {COMMAND}"
        )
    return package


def _unpack(package: Path, fresh: Path) -> None:
    """The files that the page needs, from a package that is the pinned one; its other members are never touched."""
    if package.stat().st_size > _LARGEST_PACKAGE_BYTES or _sha512(package) != SHA512:
        raise DownloadError(
            f"npm brought another onnxruntime-web {VERSION} than the pinned one (its SHA-512 differs); see which "
            f"registry it uses (npm config get registry), then type: {COMMAND}"
        )
    with tarfile.open(package, "r:gz") as archive:
        for name in (*_KEPT_BESIDE, *(f"package/dist/{name}" for name in SERVED)):
            source = archive.extractfile(name)
            assert source is not None  # the pinned package has them as plain files
            kept = fresh / Path(name).name
            with source, open(kept, "wb") as file:
                shutil.copyfileobj(source, file)
            files.sync(kept)


def _sha512(path: Path) -> str:
    digest = hashlib.sha512()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return base64.b64encode(digest.digest()).decode()


def build_parser() -> argparse.ArgumentParser:
    return cli.parser(__doc__)


def main(argv: list[str] | None = None) -> int:
    build_parser().parse_args(argv)
    if is_complete():
        print(f"onnxruntime-web {VERSION} is there: {folder()}")
        return 0
    cli.log(f"fetching onnxruntime-web {VERSION} with npm (33 MB)")
    print(fetch())
    return 0


if __name__ == "__main__":
    cli.run(main)
