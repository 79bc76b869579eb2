"""Save snapshots and other new files: under an unfinished name first, and never in place of another file."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from demos.live.sources.opencv import opencv
from simplenet.errors import SimpleNetError
from simplenet.files import error_message, sync
from simplenet.preprocessing import UInt8Array

MIN_FREE_BYTES = 50_000_000
"""Kept free on the disk, so that a recording can finish its file."""


def save_snapshot(folder: str | Path, image: UInt8Array) -> Path:
    """Write RGB uint8 [H, W, 3] as a PNG with the time in its name, completely or not at all; returns its path.

    Raises:
        SimpleNetError: the folder cannot be written to, or the disk is full.
    """
    cv2 = opencv()
    png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    path = Path(folder) / time.strftime("simplenet-%Y%m%d-%H%M%S.png")
    unfinished = create_unfinished(path)
    try:
        with _write_errors(path):
            raise_if_nearly_full(unfinished.parent)  # visitors of the page must not fill it
            unfinished.write_bytes(png)
        return publish(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def create_unfinished(path: Path) -> Path:
    """Create an empty file beside `path` whose name says that it is unfinished, and its folder if missing.

    Raises:
        SimpleNetError: the folder cannot be written to.
    """
    temporary = path.with_name(f"{path.stem[:100]}.unfinished-{secrets.token_hex(4)}{path.suffix}")
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
    return temporary


def publish(temporary: Path, path: Path) -> Path:
    """Rename the finished file to 'clip.mp4', or to 'clip-2.mp4' and so on if that exists; returns the path.

    Raises:
        SimpleNetError: renaming failed.
    """
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    with _write_errors(path):
        free = next(name for name in itertools.chain([path], numbered) if not os.path.lexists(name))
        sync(temporary)
        temporary.rename(free)
        sync(path.parent)
    return free


def raise_if_nearly_full(folder: Path) -> None:
    """Raise OSError if less than `MIN_FREE_BYTES` of disk space are free."""
    if shutil.disk_usage(folder).free < MIN_FREE_BYTES:
        raise OSError(errno.ENOSPC, "the disk is nearly full")


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error_message(error)
        raise SimpleNetError(f"cannot write {path}: {reason}; choose a folder you can write to") from error
