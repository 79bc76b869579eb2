"""Fetch onnxruntime-web, which runs the model inside the browser, from npm into a git-ignored folder.

    make web
    python demos/live/browser/onnxruntime_web.py

It keeps only the files that the page serves: about 41 MB of 145 MB. The SHA-512 of the package
is pinned, so any npm registry or mirror can be used. Files that exist already are not fetched again.
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

SERVED = (
    "ort.wasm.bundle.min.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.bundle.min.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
"""The files that the browser requests: for each execution provider, a module and its WebAssembly."""

COMMAND = "make web"
VENDOR = Path(__file__).resolve().parent / "vendor"
_LICENSE_FILES = ("package/package.json", "package/README.md")  # both state the MIT license; there is no LICENSE
_NPM_TIMEOUT_S = 600


def folder(vendor: Path = VENDOR) -> Path:
    """The folder for the files of this version."""
    return vendor / f"onnxruntime-web-{VERSION}"


def is_complete(vendor: Path = VENDOR) -> bool:
    """Whether all served files have been fetched."""
    return all((folder(vendor) / name).is_file() for name in SERVED)


def fetch(vendor: Path = VENDOR) -> Path:
    """Fetch the package with `npm pack` unless it `is_complete`, and unpack the served files in one atomic step.

    Raises:
        DownloadError: no npm, no network, a package with another hash, or a folder that cannot be written.
    """
    target = folder(vendor)
    if is_complete(vendor):
        return target
    try:
        vendor.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".onnxruntime-web.", dir=vendor) as temporary:
            package = _pack(Path(temporary))
            unpacked = Path(temporary) / "unpacked"
            unpacked.mkdir()
            _unpack(package, unpacked)
            shutil.rmtree(target, ignore_errors=True)  # an incomplete copy
            os.replace(unpacked, target)
    except OSError as error:
        reason = files.error_message(error)
        raise DownloadError(
            f"cannot keep onnxruntime-web in {vendor}: {reason}; make room there and type: {COMMAND}"
        ) from error
    for other in vendor.glob("onnxruntime-web-*"):
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
    return target


def _pack(target: Path) -> Path:
    """Download the package into `target`."""
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError(f"npm is not installed; install Node.js (Debian: sudo apt install npm) and type: {COMMAND}")
    retries = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000")  # npm's defaults take minutes
    command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--ignore-scripts", "--loglevel=error", *retries]
    try:
        done = subprocess.run(command, cwd=target, capture_output=True, text=True, timeout=_NPM_TIMEOUT_S, check=False)
        reason = one_line(done.stderr or done.stdout or "no output", 160)
    except subprocess.TimeoutExpired:
        reason = f"no result in {_NPM_TIMEOUT_S} s"
    package = target / f"onnxruntime-web-{VERSION}.tgz"
    if not package.is_file():
        raise DownloadError(
            f"npm cannot fetch onnxruntime-web {VERSION} ({reason}); check the network and type: {COMMAND}"
        )
    return package


def _unpack(package: Path, target: Path) -> None:
    """Check the package's hash, then extract the served files and nothing else."""
    if base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() != SHA512:
        raise DownloadError(
            f"the SHA-512 of the onnxruntime-web {VERSION} that npm fetched is not the pinned one; check the registry "
            f"(npm config get registry), then type: {COMMAND}"
        )
    with tarfile.open(package, "r:gz") as archive:
        for name in (*_LICENSE_FILES, *(f"package/dist/{name}" for name in SERVED)):
            member = archive.extractfile(name)
            assert member is not None  # a plain file, in the pinned package
            (target / Path(name).name).write_bytes(member.read())


def build_parser() -> argparse.ArgumentParser:
    return cli.parser(__doc__)


def main(argv: list[str] | None = None) -> int:
    build_parser().parse_args(argv)
    if not is_complete():
        cli.log(f"fetching onnxruntime-web {VERSION} with npm (33 MB)")
    print(f"onnxruntime-web {VERSION} is in {fetch()}")
    return 0


if __name__ == "__main__":
    cli.run(main)
