"""Writes snapshots and recordings under a temporary name first; an existing file is never replaced."""

from __future__ import annotations

import contextlib
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
"""A recording stops when less disk space than this is free, so that its file can still be finished."""
_MAX_NUMBER = 10_000


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
    with _write_errors(path):
        sync(temporary)
        for number in range(1, _MAX_NUMBER):
            named = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            if not os.path.lexists(named):
                temporary.rename(named)
                sync(path.parent)
                return named
    raise SimpleNetError(f"cannot write {path}: {_MAX_NUMBER} files of that name exist; choose another name")


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
        if shutil.disk_usage(unfinished.parent).free < MIN_FREE_BYTES:  # visitors of the page must not fill it
            raise SimpleNetError(f"cannot write {path}: the disk is nearly full")
        with _write_errors(path):
            unfinished.write_bytes(png)
        return publish(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error_message(error)
        raise SimpleNetError(f"cannot write {path}: {reason}; choose a folder you can write to") from error
