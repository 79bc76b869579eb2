"""Download a file and check its SHA-256; the official weights are kept in the user's cache.

Environment variables:
    SIMPLENET_CACHE: the cache folder.
    SIMPLENET_WEIGHTS_URL: the address of a folder with copies of the official weights.
    SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS=1: accept official weights with another SHA-256, with a warning.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import ssl
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError

from simplenet import files, variants
from simplenet.errors import DownloadError, SimpleNetWarning, UsageError, WeightsError, one_line

BASE_URL = "https://github.com/Coderx7/SimpleNet_Pytorch/releases/download/v1.0.0/"
_CACHE_HINT = "choose another folder: SIMPLENET_CACHE=DIR"

_HTTP_FOLDER = re.compile(r"https?://(\[[\da-fA-F:.]+\]|[^\s/@:\[\]]+)(:\d+)?/[^\s@]*")
_TIMEOUT_S = 10.0  # to connect, and for each wait for the next bytes
_TIME_LIMIT_S = 3600.0  # for a whole file, and for waiting while another process downloads it
_MAX_BYTES = 200 << 20
# The others are errors of the disk. ValueError: a redirect to an invalid address.
_NETWORK_ERRORS = (ConnectionError, TimeoutError, URLError, ssl.SSLError, http.client.HTTPException, ValueError)


def cache_folder() -> Path:
    """$SIMPLENET_CACHE, or simplenet-edge in the platform's cache folder. It may not exist yet.

    Raises:
        DownloadError: this user has no home folder.
    """
    if own := os.environ.get("SIMPLENET_CACHE"):
        return Path(files.expand_home(own)).absolute()
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library/Caches/simplenet-edge"
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "simplenet-edge/Cache"
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache") / "simplenet-edge"
    except RuntimeError as error:
        raise DownloadError(f"this user has no home folder for the cache; {_CACHE_HINT}") from error


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
    url = base_url("SIMPLENET_WEIGHTS_URL", BASE_URL) + name
    hint, variable = "type --weights random", "SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS"
    return fetch(url, cache_folder() / name, sha256, hint, accept_variable=variable)


def base_url(variable: str, default: str) -> str:
    """Return the address in an environment variable, or `default`, with a slash at the end.

    Raises:
        UsageError: not an http or https address, or one with a user name or password, which error messages would show.
    """
    base = (os.environ.get(variable) or default).rstrip("/") + "/"
    if not _HTTP_FOLDER.fullmatch(base):
        raise UsageError(f"{variable}: name the http or https address of a folder, without a user name or password")
    return base


def fetch(url: str, target: Path, sha256: str, hint: str, accept_variable: str | None = None) -> Path:
    """Download a file to `target` unless it exists, check its SHA-256, and return `target`.

    If several processes need the file, one downloads it and the others wait.

    Args:
        sha256: the hex digest, or its first digits. A file with another digest is renamed to NAME.rejected.
        hint: the end of the error message, which says what to type.
        accept_variable: if this environment variable is 1, a file with another digest is accepted with a warning.

    Raises:
        DownloadError: no network, or the server or the disk failed.
        WeightsError: the file has another SHA-256.
    """
    part, rejected = (target.with_name(target.name + suffix) for suffix in (".part", ".rejected"))
    accepts_any_digest = accept_variable is not None and os.environ.get(accept_variable) == "1"
    try:
        if not target.is_file():
            from filelock import FileLock  # here, because a device that downloads nothing does not need it

            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock", timeout=_TIME_LIMIT_S):
                if not target.is_file() and accepts_any_digest and rejected.is_file():
                    os.replace(rejected, target)
                if not target.is_file():  # another process may have downloaded it meanwhile
                    try:
                        _download(url, part)
                        os.replace(part, target)
                    finally:
                        part.unlink(missing_ok=True)
        actual = files.sha256(target)
        if not actual.startswith(sha256):
            what = f"the SHA-256 of {target.name} should begin with {sha256[:16]} but is {actual}"
            if not accepts_any_digest:
                os.replace(target, rejected)
                advice = f"if you trust it, set {accept_variable}=1" if accept_variable else hint
                raise WeightsError(f"{what}; it is kept aside as {rejected}; {advice}")
            warnings.warn(f"{what}; accepted because {accept_variable}=1", SimpleNetWarning, stacklevel=3)
    except _NETWORK_ERRORS as error:
        raise DownloadError(f"cannot download {url} ({_reason(error)}); put the file at {target}, or {hint}") from error
    except OSError as error:
        raise DownloadError(f"cannot write {target} ({files.error_message(error)}); {_CACHE_HINT}") from error
    except ModuleNotFoundError as error:
        raise DownloadError("downloads need filelock; type: pip install filelock") from error
    return target


def _download(url: str, part: Path) -> None:
    """Write the file at `url` to `part`. Raises one of _NETWORK_ERRORS, or OSError for the disk."""
    request = urllib.request.Request(url, headers={"User-Agent": "simplenet-edge"})
    received, deadline_s = 0, time.monotonic() + _TIME_LIMIT_S
    with (
        urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response,
        open(part, "wb") as file,
        _progress(part.stem, response.length) as advance,
    ):
        content_type, total = response.headers.get_content_type(), response.length  # total: None if unknown
        if response.status != 200 or content_type == "text/html":  # such as a hotel's login page
            raise ConnectionError(f"the server answers {response.status} with {content_type}, no file")
        if not response.url.startswith(("https:", f"{request.type}:")):
            raise ConnectionError(f"the server redirects to {response.url}, which is not https")
        while block := response.read1(1 << 16):
            received += len(block)
            if max(received, total or 0) > _MAX_BYTES:
                raise ConnectionError(f"the file is larger than {_MAX_BYTES} bytes")
            if time.monotonic() > deadline_s:
                raise ConnectionError(f"only {received} bytes were received in {_TIME_LIMIT_S:g} seconds")
            file.write(block)
            advance(len(block))
    if total is not None and received != total:
        raise ConnectionError(f"the connection ended after {received} of {total} bytes")
    files.sync(part)


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        error.close()
        return f"the server answers {error.code} {http.client.responses.get(error.code, '')}"
    return one_line(files.error_message(getattr(error, "reason", error)))


@contextlib.contextmanager
def _progress(name: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """Yield a function to call with the number of new bytes; on a terminal with rich, it draws a bar."""
    try:
        from rich import console, progress
    except ImportError:
        yield lambda size: None
        return
    stderr = console.Console(stderr=True)
    columns = (*progress.Progress.get_default_columns(), progress.DownloadColumn())
    with progress.Progress(*columns, console=stderr, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(name, total=total)
        yield lambda size: bar.advance(task, size)
