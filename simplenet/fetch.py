"""One file from a server to a place on disk, known by its SHA-256: bounded, resumed where possible, never half there.

It is downloaded under another name, checked, and only then given its own; processes that want the same file wait for
the first of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

from simplenet import files, http_get
from simplenet.errors import DownloadError, SimpleNetWarning, WeightsError
from simplenet.http_get import GetError, Limits, RangeRefusedError, TemporaryError

_SLOWEST_BYTES_PER_S = 1024
_LONGEST_WAIT_S = 1800.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UnverifiedFileWarning(SimpleNetWarning):
    """A file was accepted although its SHA-256 is not the expected one."""


@dataclass(frozen=True)
class RemoteFile:
    """What to fetch, and what it must be: `sha256` is the hex digest, or as many first digits of it as are known.

    Another file is kept aside as NAME.rejected; with $`accept_variable` set to 1 it is accepted with a warning.
    `otherwise` and `elsewhere` end the messages: what to type where it cannot be had, or not be kept at its place.
    """

    url: str
    sha256: str
    otherwise: str
    elsewhere: str
    accept_variable: str | None = None

    @property
    def is_accepted_anyway(self) -> bool:
        return self.accept_variable is not None and os.environ.get(self.accept_variable) == "1"


def fetch(remote: RemoteFile, target: Path, limits: Limits | None = None) -> Path:
    """`target`, downloaded if it is not there yet. Safe in several processes.

    Raises:
        DownloadError: no network, or the server or the disk failed; what arrived is kept for the next try.
        WeightsError: it is another file than it should be.
    """
    try:
        if target.is_file():
            return _verified(target, target, remote)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _part_of(target) as part:
            if target.is_file():  # another process was faster
                return _verified(target, target, remote)
            rejected = _rejected(target)
            if remote.is_accepted_anyway and rejected.is_file():
                return _verified(rejected, target, remote)
            return _fetch(remote, part, target, limits or Limits())
    except GetError as error:
        raise DownloadError(
            f"cannot download {remote.url} ({error}); put the file at {target}, or {remote.otherwise}"
        ) from error
    except OSError as error:
        raise DownloadError(f"cannot keep {target} ({files.reason(error)}); {remote.elsewhere}") from error


def _fetch(remote: RemoteFile, part: Path, target: Path, limits: Limits) -> Path:
    """Raises GetError, OSError, WeightsError."""
    complete = part.is_file() and files.sha256(part).startswith(remote.sha256)  # killed just before the renaming
    if not complete:
        pieced = _download(remote.url, part, limits)
        if pieced and not files.sha256(part).startswith(remote.sha256):  # the pieces may be of different files
            part.unlink()
            _download(remote.url, part, limits)
    return _verified(part, target, remote)


def _verified(path: Path, target: Path, remote: RemoteFile) -> Path:
    """Moves `path` to `target` if it is the right file, else aside; raises WeightsError, OSError."""
    actual = files.sha256(path)
    if not actual.startswith(remote.sha256):
        what = f"the SHA-256 of {target.name} should begin with {remote.sha256[:16]} but is {actual}"
        if not remote.is_accepted_anyway:
            os.replace(path, _rejected(target))
            advice = f"if you trust it, set {remote.accept_variable}=1" if remote.accept_variable else remote.otherwise
            raise WeightsError(f"{what}; it is kept aside as {_rejected(target)}; {advice}")
        warnings.warn(f"{what}; accepted because {remote.accept_variable}=1", UnverifiedFileWarning, stacklevel=5)
    if path != target:
        os.replace(path, target)
        files.sync(target.parent)
    return target


def _rejected(target: Path) -> Path:
    return target.with_name(target.name + ".rejected")


def _download(url: str, part: Path, limits: Limits) -> bool:
    """Completes `part`; returns whether several answers went into it. Raises GetError, OSError."""
    pieced = part.is_file() and part.stat().st_size > 0
    failures = 0
    while True:
        try:
            _receive(url, part, limits)
            return pieced
        except TemporaryError as error:
            if isinstance(error, RangeRefusedError):
                part.unlink(missing_ok=True)
            failures += 1
            if failures == limits.attempts:
                raise
        except OSError as error:
            if error.errno in _DISK_FULL:
                part.unlink(missing_ok=True)
            raise
        pieced = True
        time.sleep(limits.pause_s * 2 ** (failures - 1))


def _receive(url: str, part: Path, limits: Limits) -> None:
    """One attempt: the missing bytes where the server can start in the middle, else all of them."""
    have = part.stat().st_size if part.is_file() else 0
    with http_get.get(url, {"Range": f"bytes={have}-"} if have else {}, limits) as answer:
        start, total = _extent(answer, have)
        if total is not None and total > limits.largest_bytes:
            raise GetError(f"{total} bytes are too many for this file")
        with open(part, "ab" if start else "wb") as file, _progress(part.stem, start, total) as advance:
            received = start
            window_start, window_bytes = time.monotonic(), 0
            while block := http_get.read_some(answer):
                received += len(block)
                window_bytes += len(block)
                if received > limits.largest_bytes:
                    file.truncate(0)
                    raise GetError(f"over {limits.largest_bytes} bytes are too many for this file")
                file.write(block)
                advance(len(block))
                if (seconds := time.monotonic() - window_start) > limits.stall_s:
                    if window_bytes < _SLOWEST_BYTES_PER_S * seconds:
                        raise TemporaryError(f"the server sends less than {_SLOWEST_BYTES_PER_S} bytes a second")
                    window_start, window_bytes = time.monotonic(), 0
            file.flush()
            os.fsync(file.fileno())
        if total is not None and received != total:
            raise TemporaryError(f"the connection ended after {received} of {total} bytes")


def _extent(answer: HTTPResponse, have: int) -> tuple[int, int | None]:
    """Which byte the answer starts with (0 or `have`), and the size of the whole file if the server says it."""
    if answer.headers.get_content_type() == "text/html":  # a login page of a hotel, say
        raise GetError("the server answers with a web page, not with a file")
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})", answer.headers.get("Content-Range", ""))
        first, last, total = map(int, match.groups()) if match else (-1, -1, -1)
        if first != have or last != total - 1:
            raise RangeRefusedError("the server answers with other bytes than those asked for")
        return have, total
    if answer.status != 200:
        raise GetError(f"the server answers {answer.status}")
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(r"\d{1,15}", length) else None


@contextlib.contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """The file to download into, for this process alone: others wait, or take a file of their own without locks."""
    with open(target.with_name(target.name + ".lock"), "ab") as lock:
        if not _lock(lock.fileno()):
            own = target.with_name(f"{target.name}.{os.getpid()}.part")
            try:
                yield own
            finally:
                own.unlink(missing_ok=True)
            return
        yield target.with_name(target.name + ".part")  # closing the lock file lets the next one in


def _lock(handle: int) -> bool:
    """Whether the lock was taken; False where the operating or file system has none."""
    try:
        import fcntl
    except ImportError:
        return False
    deadline = time.monotonic() + _LONGEST_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise GetError("another process has been downloading it for half an hour") from None
            time.sleep(0.1)
        except OSError:
            return False


@contextlib.contextmanager
def _progress(name: str, start: int, total: int | None) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of bytes that arrived; on a terminal it draws a bar."""
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        yield lambda size: None
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(
        *columns, console=Console(stderr=True), disable=not (sys.stderr and sys.stderr.isatty())
    ) as bar:
        task = bar.add_task(name, total=total, completed=start)
        yield lambda size: bar.advance(task, size)
