"""Record images to a video in which each appears at its own time."""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from demos.live.sources.opencv import is_unicode, opencv, pyav
from demos.live.window.draw import draw_image
from demos.live.window.saving import create_unfinished, publish, raise_if_nearly_full
from simplenet.errors import SimpleNetError, UsageError, one_line
from simplenet.files import error_message
from simplenet.preprocessing import UInt8Array

SUFFIX = ".mp4"
# Constant quality takes three quarters of the time of x264's default, which estimates each image's complexity first.
# PyAV's wheels have x264; a Linux distribution's build may lack it.
_ENCODERS = {"libx264": {"preset": "ultrafast", "qp": "24"}, "mpeg4": {"qmin": "5", "qmax": "5"}}
_TICKS_PER_S = 60_000  # 24, 25, 29.97, 30, 59.94 and 60 fps take whole ticks, and MPEG-4 allows at most 65,535
_LONGEST_S = 35_000.0  # of one image: MP4 allows 2**31 ticks
# The colors of OpenCV's YUV. For videos of 720 rows and more, browsers assume others unless all four are named.
_COLORS = {
    "colorspace": "smpte170m", "color_range": "tv", "color_primaries": "bt709", "color_trc": "iec61966-2-1"
}  # fmt: skip


class Recorder(contextlib.AbstractContextManager["Recorder"]):
    """A video file of variable frame rate: each image appears at its own time.

    Until `close` the file has an unfinished name: a killed process leaves no damaged video under the final name.
    Use it as a context manager, or call `close`; from one thread at a time.

        with Recorder("clip.mp4") as recorder:
            recorder.write(image, time_s=0.0)

    Attributes:
        path: the requested path; after `close` the actual one, which may have a number.
        frames: frames in the file so far.
        seconds: duration of the file so far.
    """

    def __init__(self, path: str | Path, *, longest_gap_s: float = math.inf) -> None:
        """Create the unfinished file.

        Args:
            path: ends in .mp4.
            longest_gap_s: a longer gap between two images is recorded with this length.

        Raises:
            UsageError: another suffix. BackendUnavailable: PyAV is missing. SimpleNetError: the folder cannot be
                written to.
        """
        self.path, self.frames, self.seconds = Path(path), 0, 0.0
        if self.path.suffix.lower() != SUFFIX:
            raise UsageError(f"cannot record to {self.path}: name a file that ends in {SUFFIX}")
        if not is_unicode(str(self.path.absolute())):
            raise UsageError(f"cannot record to {one_line(repr(str(self.path)))}: no Unicode; choose another name")
        self._av = pyav()
        # FFmpeg takes "12:30.mp4" and "file:a.mp4" for addresses, but never an absolute path.
        self._unfinished = create_unfinished(self.path.absolute())
        self._container: Any = None
        self._stream: Any = None
        self._packet: Any = None
        self._longest_gap_s, self._start_s = min(longest_gap_s, _LONGEST_S), 0.0
        self._tick, self._duration_s = -1, 0.0  # of the newest image

    def write(self, image: UInt8Array, time_s: float, duration_s: float = 1 / 30) -> None:
        """Add RGB uint8 [H, W, 3]. The first image sets the size of the video; others are scaled to fit.

        Args:
            time_s: when the image appears, in seconds of any clock. One that is not later follows at once.
            duration_s: how long the image is shown if it is the last one.

        Raises:
            SimpleNetError: the disk is nearly full, or the encoder failed. The recording is closed, and the message
                says what was kept.
        """
        try:
            self._add(image, time_s)
        except (OSError, ValueError, self._av.FFmpegError) as error:
            self.close()
            kept = f"the first {self.seconds:.0f} s are in {self.path}" if self.frames else "nothing was recorded"
            raise SimpleNetError(f"cannot continue recording to {self.path}: {error_message(error)}; {kept}") from error
        self.frames, self._duration_s = self.frames + 1, duration_s
        self.seconds = self._tick / _TICKS_PER_S + duration_s

    def close(self) -> None:
        """Finish the file and give it its name; without any image no file is left. May be called again.

        Raises:
            SimpleNetError: the file could not be finished; it is removed.
        """
        container, self._container = self._container, None
        try:
            if container is not None and self.frames:
                with container:
                    self._encode(None, container)
                    self._packet.duration = round(min(self._duration_s, _LONGEST_S) * _TICKS_PER_S)
                    container.mux(self._packet)
                self.path = publish(self._unfinished, self.path)
        except (OSError, ValueError, self._av.FFmpegError) as error:
            raise SimpleNetError(f"cannot finish {self.path}: {error_message(error)}; nothing was recorded") from error
        finally:
            self._unfinished.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, image: UInt8Array, time_s: float) -> None:
        raise_if_nearly_full(self._unfinished.parent)  # on a full disk the video could not be finished
        if self._container is None:
            self._open(image)
            self._start_s = time_s
        gap_s = time_s - self._start_s - max(self._tick, 0) / _TICKS_PER_S
        self._start_s += max(0.0, gap_s - self._longest_gap_s)
        self._tick = max(self._tick + 1, round((time_s - self._start_s) * _TICKS_PER_S))
        fitted = _fit(image, self._stream.width, self._stream.height)
        yuv = opencv().cvtColor(fitted, opencv().COLOR_RGB2YUV_I420)  # in a fifth of FFmpeg's time
        frame = self._av.VideoFrame.from_ndarray(yuv, format="yuv420p")
        frame.pts, frame.time_base = self._tick, Fraction(1, _TICKS_PER_S)
        self._encode(frame, self._container)

    def _open(self, image: UInt8Array) -> None:
        height, width = image.shape[:2]
        name = next(name for name in _ENCODERS if name in self._av.codecs_available)
        self._container = self._av.open(str(self._unfinished), "w", format="mp4")
        options = {**_ENCODERS[name], **_COLORS}
        self._stream = self._container.add_stream(name, rate=30, options=options)  # H.264's level follows from the rate
        self._stream.width, self._stream.height = max(2, width - width % 2), max(2, height - height % 2)
        self._stream.pix_fmt = "yuv420p"  # every player shows it; its sides are even
        self._stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)

    def _encode(self, frame: Any, container: Any) -> None:
        """Encode a frame, or with None the rest. The newest packet is held back: only `close` knows its duration."""
        for packet in self._stream.encode(frame):
            if self._packet is not None:
                container.mux(self._packet)
            self._packet = packet


def _fit(image: UInt8Array, width: int, height: int) -> UInt8Array:
    """Cut an odd row and column; scale an image of another size to fit."""
    if 0 <= image.shape[0] - height <= 1 and 0 <= image.shape[1] - width <= 1:
        return image[:height, :width]
    fitted = np.zeros((height, width, 3), np.uint8)
    draw_image(fitted, image)
    return fitted
