"""Downloads: any file with a known SHA-256, and the official weights, which are kept in the user's cache.

Environment variables:
    SIMPLENET_CACHE: the cache folder.
    SIMPLENET_WEIGHTS_URL: a mirror of the folder that has the official weights.
    SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS=1: accept official weights with another SHA-256, with a warning.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, urlsplit

from simplenet import files, variants
from simplenet.errors import DownloadError, SimpleNetWarning, UsageError, WeightsError, one_line

BASE_URL = "https://github.com/Coderx7/SimpleNet_Pytorch/releases/download/v1.0.0/"
URL_VARIABLE = "SIMPLENET_WEIGHTS_URL"
CACHE_VARIABLE = "SIMPLENET_CACHE"
ACCEPT_VARIABLE = "SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS"
CACHE_HINT = f"choose another folder: {CACHE_VARIABLE}=DIR"

_TIMEOUT_S = 10.0  # to connect, and for each wait for the next bytes
_STALL_S, _MIN_BYTES_PER_S = 20.0, 1024  # a server that stays below this rate for this long is too slow
_MAX_BYTES = 200 << 20
_LOCK_TIMEOUT_S = 1800.0


class UnverifiedFileWarning(SimpleNetWarning):
    """A file was accepted although its SHA-256 is not the expected one."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    `sha256` is the hex digest, or its first digits. A file with another digest is kept aside as NAME.rejected, unless
    the environment variable `accept_variable` is 1. `hint` ends the message of a failed download: what to type.
    """

    url: str
    sha256: str
    hint: str
    accept_variable: str | None = None

    @property
    def accepts_any_digest(self) -> bool:
        return self.accept_variable is not None and os.environ.get(self.accept_variable) == "1"


class _RequestError(Exception):
    """The server cannot be reached, or does not send the file."""


def cache_folder() -> Path:
    """$SIMPLENET_CACHE, or simplenet-edge in the platform's cache folder. It may not exist yet.

    Raises:
        DownloadError: this user has no home folder.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(files.expand_home(own)).absolute()
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library/Caches/simplenet-edge"
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "simplenet-edge/Cache"
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache") / "simplenet-edge"
    except RuntimeError as error:
        raise DownloadError(f"this user has no home folder for the cache; {CACHE_HINT}") from error


def fetch_official(variant: str) -> Path:
    """Return the variant's official weights in the cache, downloaded if they are not there yet.

    Raises:
        UsageError: unknown variant, or one without official weights.
        DownloadError, WeightsError: as `fetch`.
    """
    spec = variants.get(variant)
    name, sha256 = spec.official_weights_file, spec.official_sha256_prefix
    if name is None or sha256 is None:
        raise UsageError(f"{spec.name} has no official weights; type --weights auto, random, or a PATH")
    base = os.environ.get(URL_VARIABLE) or BASE_URL
    try:
        _check_url(base)
    except _RequestError as error:
        raise UsageError(f"{URL_VARIABLE}: {error}; name the https address of a folder") from error
    url = base.rstrip("/") + "/" + name
    return fetch(RemoteFile(url, sha256, "type --weights random", ACCEPT_VARIABLE), cache_folder() / name)


def fetch(remote: RemoteFile, target: Path) -> Path:
    """Return `target`, verified, and downloaded if it is not there yet. One process downloads, others wait for it.

    Raises:
        DownloadError: no network, or the server or the disk failed.
        WeightsError: the file has another SHA-256.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        if target.is_file():
            return _verify(target, target, remote)
        from filelock import FileLock  # here, because a device that downloads nothing does not need it

        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock", timeout=_LOCK_TIMEOUT_S):
            if target.is_file():  # another process has downloaded it meanwhile
                return _verify(target, target, remote)
            if remote.accepts_any_digest and _rejected(target).is_file():
                return _verify(_rejected(target), target, remote)
            try:
                _download(remote.url, part)
                return _verify(part, target, remote)
            finally:
                part.unlink(missing_ok=True)
    except _RequestError as error:
        message = f"cannot download {remote.url} ({error}); put the file at {target}, or {remote.hint}"
        raise DownloadError(message) from error
    except OSError as error:
        raise DownloadError(f"cannot write {target} ({files.error_message(error)}); {CACHE_HINT}") from error
    except ModuleNotFoundError as error:
        raise DownloadError("downloads need filelock; type: pip install filelock") from error


def _verify(path: Path, target: Path, remote: RemoteFile) -> Path:
    """Move `path` to `target` if it is the expected file, else to NAME.rejected, and raise WeightsError."""
    actual = files.sha256(path)
    if not actual.startswith(remote.sha256):
        what = f"the SHA-256 of {target.name} should begin with {remote.sha256[:16]} but is {actual}"
        if not remote.accepts_any_digest:
            os.replace(path, _rejected(target))
            advice = f"if you trust it, set {remote.accept_variable}=1" if remote.accept_variable else remote.hint
            raise WeightsError(f"{what}; it is kept aside as {_rejected(target)}; {advice}")
        warnings.warn(f"{what}; accepted because {remote.accept_variable}=1", UnverifiedFileWarning, stacklevel=4)
    if path != target:
        os.replace(path, target)
        files.sync(target.parent)
    return target


def _rejected(target: Path) -> Path:
    return target.with_name(f"{target.name}.rejected")


def _download(url: str, part: Path) -> None:
    """Write the file at `url` to `part`. Raises _RequestError for the network, OSError for the disk."""
    with _open(url) as response, open(part, "wb") as file:
        length = response.headers.get("Content-Length", "")
        total = int(length) if re.fullmatch(r"\d{1,15}", length) else None
        with _progress(part.stem, total) as advance:
            for block in _blocks(response, total):
                file.write(block)
                advance(len(block))
        file.flush()
        os.fsync(file.fileno())


def _open(url: str) -> http.client.HTTPResponse:
    _check_url(url)
    opener = urllib.request.build_opener(_CheckedRedirects)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "simplenet-edge"})
        response: http.client.HTTPResponse = opener.open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        phrase = http.client.responses.get(error.code, "")  # not the server's own, which may be any text
        raise _RequestError(f"the server answers {error.code} {phrase}") from error
    except urllib.error.URLError as error:  # while connecting
        reason = files.error_message(error.reason) if isinstance(error.reason, Exception) else error.reason
        raise _RequestError(one_line(reason)) from error
    except ValueError as error:
        raise _RequestError(f"the address is not valid: {one_line(error)}") from error
    except (OSError, http.client.HTTPException) as error:  # while waiting for the response
        raise _RequestError(one_line(error)) from error
    if response.status != 200 or response.headers.get_content_type() == "text/html":  # such as a hotel's login page
        response.close()
        raise _RequestError(f"the server answers {response.status} with {response.headers.get_content_type()}, no file")
    return response


def _blocks(response: http.client.HTTPResponse, total: int | None) -> Iterator[bytes]:
    """Yield the body in blocks; raise _RequestError if it is too large, too slow or incomplete."""
    received, window_bytes, window_start = 0, 0, time.monotonic()
    while True:
        if max(received, total or 0) > _MAX_BYTES:
            raise _RequestError(f"the file is larger than {_MAX_BYTES} bytes")
        try:
            block = response.read1(1 << 16)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _RequestError(one_line(error)) from error
        if not block:
            break
        yield block
        received, window_bytes = received + len(block), window_bytes + len(block)
        if (seconds := time.monotonic() - window_start) > _STALL_S:
            if window_bytes < _MIN_BYTES_PER_S * seconds:
                raise _RequestError(f"the server sends less than {_MIN_BYTES_PER_S} bytes a second")
            window_bytes, window_start = 0, time.monotonic()
    if total is not None and received != total:
        raise _RequestError(f"the connection ended after {received} of {total} bytes")


def _check_url(url: str) -> SplitResult:
    """Raise _RequestError, without repeating a password, unless `url` is an http or https address of a host."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _RequestError("the address is not valid") from error
    if parts.scheme not in ("http", "https") or not host:
        raise _RequestError(f"only http and https addresses are allowed, not {parts.scheme or 'no scheme'}")
    if parts.username is not None or parts.password is not None:
        raise _RequestError("addresses with a user name or password are not allowed")
    return parts


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follow at most five redirects, only to https, or from http to http of the same host."""

    max_redirections = 5

    def http_error_302(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any) -> Any:
        fp.close()  # urllib would read the whole body, of any size, and leave it open if the address is not valid
        return super().http_error_302(req, fp, code, msg, headers)  # type: ignore[arg-type]

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # Python 3.10 has no 308

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request:
        old, new = _check_url(req.full_url), _check_url(newurl)
        if new.scheme != "https" and (new.scheme, new.hostname) != (old.scheme, old.hostname):
            raise _RequestError(f"the server redirects to {new.hostname} without https")
        return urllib.request.Request(newurl, headers=req.headers)


@contextlib.contextmanager
def _progress(name: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """Yield a function that takes the number of new bytes; on a terminal, with rich installed, it draws a bar."""
    try:
        from rich import console, progress
    except ImportError:
        yield lambda size: None
        return
    columns = (*progress.Progress.get_default_columns(), progress.DownloadColumn(), progress.TransferSpeedColumn())
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    with progress.Progress(*columns, console=console.Console(stderr=True), disable=not is_terminal) as bar:
        task = bar.add_task(name, total=total)
        yield lambda size: bar.advance(task, size)
