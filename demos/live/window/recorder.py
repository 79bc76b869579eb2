"""Record images to a video that plays in real time, and save snapshots.

Files are written under an unfinished name first. An existing file is never replaced.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from demos.live.sources.opencv import is_unicode, opencv
from demos.live.window.draw import draw_image
from simplenet.errors import SimpleNetError, UsageError, one_line
from simplenet.files import error_message, sync
from simplenet.preprocessing import UInt8Array

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
"""The codecs that OpenCV's wheels can write; H.264 is not among them."""
MIN_FREE_BYTES = 50_000_000
"""A recording stops when less disk space than this is free, so that its file can still be finished."""
LONGEST_GAP_S = 1.0
"""A longer gap between two images, such as a suspended laptop, is recorded with this length."""


class Recorder(contextlib.AbstractContextManager["Recorder"]):
    """A video file of a fixed frame rate. Repeats and skips images, so that it plays in real time.

    Until `close` the file has an unfinished name: a killed process leaves no damaged video under the final name.
    Use it as a context manager, or call `close`; from one thread at a time.

        with Recorder("clip.mp4", frame_rate=30) as recorder:
            recorder.write(image, time_s=0.0)

    Attributes:
        path: the requested path; after `close` the actual one, which may have a number.
        frames: frames in the file so far.
    """

    def __init__(self, path: str | Path, frame_rate: float) -> None:
        """Create the unfinished file.

        Args:
            path: ends in .mp4 or .avi.
            frame_rate: frames per second of the file, limited to 1 to 120.

        Raises:
            UsageError: another suffix. SimpleNetError: the folder cannot be written to.
        """
        self.path, self.frames = Path(path), 0
        # MPEG-4 divides a second into at most 65,535 steps, so the encoder rejects rates of many decimals.
        self.frame_rate = round(min(120.0, max(1.0, frame_rate)), 2)
        if self.path.suffix.lower() not in CODECS:
            raise UsageError(f"cannot record to {self.path}: name a file that ends in {' or '.join(CODECS)}")
        if not is_unicode(str(self.path.absolute())):
            raise UsageError(f"cannot record to {one_line(repr(str(self.path)))}: no Unicode; choose another name")
        # FFmpeg takes "12:30.mp4" and "file:a.mp4" for addresses, but never an absolute path.
        self._unfinished = _create_unfinished(self.path.absolute())
        self._writer: Any = None
        self._size = (0, 0)
        self._last: UInt8Array | None = None
        self._start_s = 0.0

    def write(self, image: UInt8Array, time_s: float) -> None:
        """Add RGB uint8 [H, W, 3]. The first image sets the size of the video; others are scaled to fit.

        Args:
            time_s: when the image was taken, in seconds of any clock.

        Raises:
            SimpleNetError: the disk is nearly full, or the encoder failed. The recording is closed, and the message
                says what was kept.
        """
        try:
            self._add(image, time_s)
        except SimpleNetError as error:
            self.close()
            kept = f"the first {self.seconds:.0f} s are in {self.path}" if self.frames else "nothing was recorded"
            raise SimpleNetError(f"{error}; {kept}") from error

    @property
    def seconds(self) -> float:
        """The duration of the file so far."""
        return self.frames / self.frame_rate

    def close(self) -> None:
        """Finish the file and give it its name; without any image no file is left. May be called again.

        Raises:
            SimpleNetError: the file could not be finished; it is removed.
        """
        try:
            if self._writer is not None:
                self._writer.release()
            if self.frames and self._unfinished.exists():
                _check(self._unfinished, self.path, self.frames)
                self.path = _publish(self._unfinished, self.path)
        finally:
            self._unfinished.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, image: UInt8Array, time_s: float) -> None:
        """Repeat the previous image until `time_s`, then write `image`, unless the video has a frame at `time_s`."""
        if self._last is None:
            self._open(image)
            self._start_s = time_s
        place = round((time_s - self._start_s) * self.frame_rate)
        latest = self.frames + round(LONGEST_GAP_S * self.frame_rate)
        if place > latest:
            self._start_s += (place - latest) / self.frame_rate
            place = latest
        bgr = opencv().cvtColor(_fit(image, *self._size), opencv().COLOR_RGB2BGR)
        if self._last is not None:
            self._encode(self._last, place - self.frames)
        if place >= self.frames:
            self._encode(bgr, 1)
        self._last = bgr

    def _open(self, image: UInt8Array) -> None:
        height, width = image.shape[:2]
        self._size = max(2, width - width % 2), max(2, height - height % 2)  # encoders need even sides
        codec = opencv().VideoWriter_fourcc(*CODECS[self.path.suffix.lower()])
        self._writer = opencv().VideoWriter(str(self._unfinished), codec, self.frame_rate, self._size)
        if not self._writer.isOpened():
            raise SimpleNetError(f"OpenCV cannot write {self._size[0]}x{self._size[1]} video to {self.path}; try .avi")

    def _encode(self, bgr: UInt8Array, times: int) -> None:
        try:
            for _ in range(times):
                # The encoder does not report a full disk: it leaves a file that cannot be played.
                if shutil.disk_usage(self._unfinished.parent).free < MIN_FREE_BYTES:
                    raise SimpleNetError(f"cannot continue recording to {self.path}: the disk is nearly full")
                self._writer.write(bgr)
                self.frames += 1
        except (OSError, opencv().error) as error:
            reason = error_message(error) if isinstance(error, OSError) else one_line(error)
            raise SimpleNetError(f"cannot continue recording to {self.path}: {reason}") from error


def save_snapshot(folder: str | Path, image: UInt8Array) -> Path:
    """Write RGB uint8 [H, W, 3] as a PNG with the time in its name, completely or not at all; returns its path.

    Raises:
        SimpleNetError: the folder cannot be written to, or the disk is full.
    """
    cv2 = opencv()
    png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    path = Path(folder) / time.strftime("simplenet-%Y%m%d-%H%M%S.png")
    unfinished = _create_unfinished(path)
    try:
        if shutil.disk_usage(unfinished.parent).free < MIN_FREE_BYTES:  # visitors of the page must not fill it
            raise SimpleNetError(f"cannot write {path}: the disk is nearly full")
        with _write_errors(path):
            unfinished.write_bytes(png)
        return _publish(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _fit(image: UInt8Array, width: int, height: int) -> UInt8Array:
    """Cut an odd row and column; scale an image of another size to fit."""
    if 0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1:
        return image[:height, :width]
    fitted = np.zeros((height, width, 3), np.uint8)
    draw_image(fitted, image)
    return fitted


def _check(video: Path, path: Path, frames: int) -> None:
    """Raise if the file does not hold all frames: OpenCV's writer reports no error, not even on a full disk."""
    cv2 = opencv()
    capture = cv2.VideoCapture(str(video))
    try:
        found = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() and capture.grab() else 0
    finally:
        capture.release()
    if found < frames:
        raise SimpleNetError(f"{path} could not be written completely ({found} of {frames} frames); is the disk full?")


def _create_unfinished(path: Path) -> Path:
    """Create an empty file beside `path` whose name says that it is unfinished, and its folder if missing.

    Raises:
        SimpleNetError: the folder cannot be written to.
    """
    temporary = path.with_name(f"{path.stem[:100]}.unfinished-{secrets.token_hex(4)}{path.suffix}")
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
    return temporary


def _publish(temporary: Path, path: Path) -> Path:
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


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error_message(error)
        raise SimpleNetError(f"cannot write {path}: {reason}; choose a folder you can write to") from error
