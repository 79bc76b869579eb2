"""What is kept of a live session: a video that is true to time, and snapshots. Neither ever takes a file's place."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from demos.live.sources.opencv import is_unicode, opencv
from demos.live.window import new_file
from simplenet.errors import SimpleNetError, UsageError, one_line
from simplenet.files import error_message

UInt8Array = npt.NDArray[np.uint8]

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
"""What OpenCV's wheels can write; H.264 is not among it."""
SLOWEST_FPS, FASTEST_FPS = 1.0, 120.0
LONGEST_GAP_S = 60.0
"""A longer pause between two pictures (a laptop that slept) is kept as one of this length."""
ENCODING_SHARE = 0.5
"""How much of the time encoding may take: what is too large for a machine is recorded at a lower frame rate."""
LONGEST_ENCODING_S = 0.5
"""For one picture, however long it was to be seen: a machine that got slower meanwhile must not stop the demo."""
LEAST_FREE_BYTES = 50_000_000
"""With less room on the disk a recording ends, while its file can still be finished."""


class Recorder:
    """A video file. Pictures may come at any pace and in any size; the file plays as long as the recording took, but
    where the machine cannot keep up at all.

    Until `close` the file has an unfinished name, so that a killed process leaves no half video under a name that
    promises a whole one. Use it as a context manager, or call `close`; by one thread at a time.
    """

    path: Path
    """What was asked for; after `close` the file's true name, which may have got a number."""
    frames: int
    """In the file so far."""

    def __init__(self, path: str | Path, frame_rate: float) -> None:
        """Makes the unfinished file at once, so that a folder that cannot be written to is known before a frame is.

        Args:
            path: ends in .mp4 or .avi.
            frame_rate: pictures per second of the file; what is outside 1 to 120 is brought inside.

        Raises:
            UsageError: another suffix. SimpleNetError: the folder cannot be written to.
        """
        self.path, self.frames = Path(path), 0
        if self.path.suffix.lower() not in CODECS:
            raise UsageError(f"cannot record to {self.path}: name a file that ends in {' or '.join(CODECS)}")
        self.frame_rate = _usable_rate(frame_rate)
        beyond = frame_rate > FASTEST_FPS or 0 < frame_rate < SLOWEST_FPS
        self._step = self.frame_rate / frame_rate if beyond and math.isfinite(frame_rate) else 1.0
        if not is_unicode(str(self.path.absolute())):
            raise UsageError(f"cannot record to {one_line(repr(str(self.path)))}: no Unicode; choose another name")
        # FFmpeg takes "12:30.mp4" and "file:a.mp4" for addresses, but never a whole path.
        self._unfinished = new_file.temporary_beside(self.path.absolute())
        self._writer: Any = None
        self._size = (0, 0)
        self._held: UInt8Array | None = None
        self._place = self._taken = 0
        self._start_s = 0.0
        self._closed = False

    def write(self, image: UInt8Array, captured_s: float | None = None) -> None:
        """Adds RGB uint8 [H, W, 3], which must not change afterwards. The first one's size is the file's.

        Args:
            captured_s: when the picture was, by a clock that goes forward; None, for all of a file's frames, means one
                after another at the frame rate that was asked for.

        Raises:
            SimpleNetError: the disk is nearly full or the encoder failed. The recording is closed then.
        """
        if self._closed:
            raise SimpleNetError(f"the recording {self.path} is closed; start a new one")
        try:
            self._add(image, captured_s)
        except SimpleNetError as error:
            self._held = None
            self.close()
            kept = f"{self.path} has the {self.seconds:.0f} s before" if self.frames else "nothing was recorded"
            raise SimpleNetError(f"{error}; {kept}") from error

    @property
    def seconds(self) -> float:
        """How long the file plays so far."""
        return (self.frames + (self._held is not None)) / self.frame_rate

    def close(self) -> None:
        """Finishes the file and gives it its name; harmless the second time. Without a picture there is no file.

        Raises:
            SimpleNetError: the file could not be finished; nothing is left of it.
        """
        if self._closed:
            return
        self._closed = True
        held, self._held = self._held, None
        try:
            try:
                if held is not None:
                    self._encode(held, 1)
            except SimpleNetError:
                if not self.frames:
                    raise  # else, on a full disk, rather without the last picture than nothing
            finally:
                if self._writer is not None:
                    self._writer.release()
            if self.frames:
                _check(self._unfinished, self.path, self.frames)
                self.path = new_file.publish(self._unfinished, self.path)
        finally:
            self._unfinished.unlink(missing_ok=True)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, image: UInt8Array, captured_s: float | None) -> None:
        """Each picture is held back until the next one tells for how long it was to be seen."""
        if self._held is None:
            self._start_s = captured_s or 0.0
            self._open(image, is_live=captured_s is not None)
        else:
            if captured_s is None:
                self._taken += 1
                place = round(self._taken * self._step)
            else:
                place = max(self._place, round((captured_s - self._start_s) * self.frame_rate))
            longest = self._place + round(LONGEST_GAP_S * self.frame_rate)
            if place > longest:
                self._start_s += (place - longest) / self.frame_rate
                place = longest
            encoded = self._encode(self._held, place - self._place)
            self._start_s += (place - self._place - encoded) / self.frame_rate  # what was too much is left out
            self._place += encoded
        self._held = image

    def _encoding_s(self, image: UInt8Array) -> float:
        """What one picture takes here, by trying: the second and third, since the first one sets things up."""
        bgr = np.ascontiguousarray(_letterboxed(image, *self._size)[..., ::-1])
        self._writer.write(bgr)
        start_s = time.perf_counter()
        for _ in range(2):
            self._writer.write(bgr)
        return max(1e-6, (time.perf_counter() - start_s) / 2)

    def _open(self, image: UInt8Array, is_live: bool) -> None:
        cv2 = opencv()
        height, width = image.shape[:2]
        self._size = width + width % 2, height + height % 2  # encoders take even sides only
        codec = cv2.VideoWriter_fourcc(*CODECS[self.path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self._unfinished), codec, self.frame_rate, self._size)
        if is_live and self._writer.isOpened():
            self.frame_rate = min(self.frame_rate, _usable_rate(ENCODING_SHARE / self._encoding_s(image)))
            self._writer.release()
            self._writer = cv2.VideoWriter(str(self._unfinished), codec, self.frame_rate, self._size)
        if not self._writer.isOpened():
            self._writer = None
            raise SimpleNetError(f"OpenCV cannot write {self._size[0]}x{self._size[1]} video to {self.path}; try .avi")

    def _encode(self, image: UInt8Array, times: int) -> int:
        """Returns how many times it was written: fewer where that took too long."""
        if times < 1:
            return times
        cv2, deadline_s = opencv(), time.perf_counter() + LONGEST_ENCODING_S
        try:
            # The encoder keeps quiet about a full disk, and what it then leaves cannot be played.
            if shutil.disk_usage(self._unfinished.parent).free < LEAST_FREE_BYTES:
                raise SimpleNetError(f"cannot record on to {self.path}: the disk is nearly full")
            bgr = cv2.cvtColor(_letterboxed(image, *self._size), cv2.COLOR_RGB2BGR)
            for written in range(1, times + 1):
                self._writer.write(bgr)
                self.frames += 1
                if time.perf_counter() > deadline_s:
                    return written
        except (OSError, cv2.error) as error:
            why = error_message(error) if isinstance(error, OSError) else one_line(error)
            raise SimpleNetError(f"cannot record on to {self.path}: {why}") from error
        return times


def save_snapshot(folder: str | Path, image: UInt8Array) -> Path:
    """Writes RGB uint8 [H, W, 3] as a PNG with the time in its name, whole or not at all; returns its path.

    Raises:
        SimpleNetError: the folder cannot be written to, or the disk is full.
    """
    cv2 = opencv()
    png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    path = Path(folder) / time.strftime("simplenet-%Y%m%d-%H%M%S.png")
    unfinished = new_file.temporary_beside(path)
    try:
        if shutil.disk_usage(unfinished.parent).free < LEAST_FREE_BYTES:  # the page's visitors must not fill it
            raise SimpleNetError(f"cannot write {path}: the disk is nearly full")
        unfinished.write_bytes(png)
        return new_file.publish(unfinished, path)
    except OSError as error:
        raise SimpleNetError(
            f"cannot write {path}: {error_message(error)}; choose a folder you can write to"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _usable_rate(frame_rate: float) -> float:
    """MPEG-4 counts time in at most 65,535 steps a second: a rate of many decimals would be refused."""
    if not math.isfinite(frame_rate):
        return 30.0
    return round(min(FASTEST_FPS, max(SLOWEST_FPS, frame_rate)), 2 if frame_rate < 60 else 0)


def _letterboxed(image: UInt8Array, width: int, height: int) -> UInt8Array:
    """The image, as large as it goes, in a black picture of that size; if it is a pixel short, it is not resized."""
    if image.shape[:2] == (height, width):
        return image
    cv2 = opencv()
    tall, wide = image.shape[:2]
    if not (0 <= height - tall < 2 and 0 <= width - wide < 2):
        scale = min(width / wide, height / tall)
        wide, tall = max(1, min(width, round(wide * scale))), max(1, min(height, round(tall * scale)))
        image = cv2.resize(image, (wide, tall), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    boxed = np.zeros((height, width, 3), np.uint8)
    top, left = (height - tall) // 2, (width - wide) // 2
    boxed[top : top + tall, left : left + wide] = image
    return boxed


def _check(video: Path, wanted: Path, frames: int) -> None:
    """Whether the file holds what was written: OpenCV's writer reports no error, not even on a full disk."""
    cv2 = opencv()
    capture = cv2.VideoCapture(str(video))
    try:
        found = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() and capture.grab() else 0
    finally:
        capture.release()
    if found < frames:
        raise SimpleNetError(f"{wanted} could not be written whole ({found} of {frames} frames); is the disk full?")
