"""Opening cameras, streams and videos with OpenCV, each within bounds: time, memory, and what FFmpeg may follow."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demos.live.sources.base import (
    TYPE_NEXT,
    Capture,
    SourceKind,
    UInt8Array,
    check_size,
    next_deadline,
    read_frame,
    to_rgb,
    valid_frame_rate,
)
from demos.live.sources.live import LiveSource
from demos.live.sources.opencv import is_unicode, opencv
from simplenet.errors import BackendUnavailable, SimpleNetError, SourceError, one_line

OPEN_TIMEOUT_S = READ_TIMEOUT_S = 5
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 8.0


@dataclass(frozen=True)
class OpenedCapture:
    """What has given its `first` frame, blue-green-red uint8 [H, W, 3]. It ends where `announced_frames` is over 0."""

    capture: Capture
    first: UInt8Array
    frame_rate: float | None = None
    announced_frames: int = 0


class CaptureSource(LiveSource):
    """What OpenCV reads. A video with an end loses no frame and ends; anything else is opened again when it is lost.

    It has an end where its header or its server announces how many frames or seconds there are. Streams of JPEG
    pictures announce neither, so they are taken for live.
    """

    def __init__(
        self,
        name: str,
        kind: SourceKind,
        open: Callable[[], OpenedCapture],
        opened: OpenedCapture | None = None,
        *,
        loop: bool = False,
        pace: bool = False,
        reconnect_timeout_s: float = 60,
    ) -> None:
        """
        Args:
            open: opens it (again), or raises SourceError.
            opened: the first opening, if it was made already; else it is made in the background.
            loop: a video with an end starts again. pace: ... and plays at its own rate at most.
            reconnect_timeout_s: how long without a frame until it has failed for good.
        """
        super().__init__(name, kind)
        self._open, self._loop, self._pace, self._patience_s = open, loop, pace, reconnect_timeout_s
        self._stopping = self._ends = False
        if opened is None:
            self.state, self.note = "reconnecting", f"connecting to {name}"
        else:
            self._describe(opened)
        self._thread = threading.Thread(target=self._run, args=[opened], name=f"reader of {name}", daemon=True)
        self._thread.start()

    def request_stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        self.request_stop()
        super().close()
        if self._thread is not threading.current_thread():
            self._thread.join(READ_TIMEOUT_S + 1)  # a read that hangs ends by its own timeout

    def _to_rgb(self, pixels: UInt8Array) -> UInt8Array:
        return to_rgb(pixels)

    def _describe(self, opened: OpenedCapture) -> None:
        self._ends = opened.announced_frames > 0
        self.is_live, self.frame_rate = not self._ends, opened.frame_rate

    def _run(self, opened: OpenedCapture | None) -> None:
        """The thread: read until it is lost, pause, open again."""
        pause_s, had_frames = FIRST_BACKOFF_S, False
        last_frame_s = time.perf_counter()
        reason = ""
        try:
            while not self._stopping:
                try:
                    opened = opened or self._open()
                except SourceError as error:
                    reason = str(error)
                if opened is not None:
                    self.reconnects += had_frames and not self._ends
                    self._describe(opened)
                    reason = self._read_all(opened)
                    opened, had_frames = None, True
                    pause_s, last_frame_s = FIRST_BACKOFF_S, time.perf_counter()
                    if self._ends and self._loop:
                        continue
                    if self._ends:
                        self.set_state("ended", reason or None)
                        return
                left_s = self._patience_s - (time.perf_counter() - last_frame_s)
                if left_s <= 0:
                    self.set_state("failed", f"{self.name} gave no frame for {self._patience_s:g} s: {reason}")
                    return
                self.set_state("reconnecting", reason.partition(";")[0])
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, min(pause_s, left_s))
                pause_s = min(2 * pause_s, MAX_BACKOFF_S)
        except SimpleNetError as error:  # a frame that cannot be used: the next opening would give the same
            self.set_state("failed", str(error))
        except Exception as error:  # noqa: BLE001 - a thread that died in silence would be waited for
            self.set_state("failed", f"{self.name} failed: {one_line(error)}")

    def _read_all(self, opened: OpenedCapture) -> str:
        """Hands over frames until there are no more; returns what to say about the end."""
        count, next_s = 0, 0.0
        period_s = 1 / opened.frame_rate if self._pace and self._ends and opened.frame_rate else 0.0
        pixels: UInt8Array | None = opened.first
        try:
            while pixels is not None and not self._stopping:
                if self._ends:
                    self._wait_until_wanted(next_s)
                    next_s = next_deadline(next_s, period_s, time.perf_counter())
                if not count:
                    self.note = None
                self.push(pixels)
                count += 1
                pixels = read_frame(opened.capture, self.name)
        except opencv().error as error:
            return f"{self.name} cannot be decoded: {one_line(error)}"
        finally:
            opened.capture.release()  # here and not in close(): releasing under a running read() crashes
        if count < opened.announced_frames and not self._stopping:
            return f"{self.name} announces {opened.announced_frames} frames, {count} could be read"
        return "" if self._ends else f"{self.name} stopped giving frames"

    def _wait_until_wanted(self, next_s: float) -> None:
        """Of a video with an end no frame is replaced: until the last one was taken, and it is time for the next."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._newest is None)
            self._changed.wait_for(lambda: self._stopping, max(0.0, next_s - time.perf_counter()))


def open_camera(text: str, name: str) -> OpenedCapture:
    """A camera by its number or its /dev path. Raises SourceError."""
    cv2 = opencv()
    is_linux = sys.platform == "linux"
    device = Path(text if text.startswith("/dev/") else f"/dev/video{text}")
    if is_linux and not device.exists():
        raise SourceError(f"no {name}: {one_line(str(device))} does not exist; plug it in, or {TYPE_NEXT}")
    if is_linux and not device.is_char_device():
        raise SourceError(f"no {name}: {one_line(str(device))} is not a device; {TYPE_NEXT}")
    # Video4Linux alone: OpenCV's other readers would take a path such as /dev/zero for a file.
    capture = cv2.VideoCapture(
        int(text) if text.isdecimal() else _for_opencv(text, name), cv2.CAP_V4L2 if is_linux else cv2.CAP_ANY
    )
    if capture.isOpened():
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)  # with one, the camera has nowhere to write while a frame is decoded
    busy = (
        f"{name} cannot be opened; close other programs that use it, check that you may read it "
        f"(sudo usermod -aG video $USER), or {TYPE_NEXT}"
    )
    return _with_first_frame(capture, name, busy, "is another program using it?", may_end=False)


def open_stream(address: str, name: str) -> OpenedCapture:
    """A stream or a video by its address; `name` is the address as it may be shown. Raises SourceError."""
    cv2 = opencv()
    if not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        raise BackendUnavailable(f"{name} needs an OpenCV with FFmpeg, which this one is without; try gst:PIPELINE")
    limits = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1000 * OPEN_TIMEOUT_S)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(1000 * READ_TIMEOUT_S)),
        *(cv2.CAP_PROP_N_THREADS, 1),  # each further decoding thread is a frame of delay
    ]
    capture = cv2.VideoCapture(_for_opencv(address, name), cv2.CAP_FFMPEG, limits)
    refusal = f"{name} cannot be opened; check the address, user and password, or {TYPE_NEXT}"
    return _with_first_frame(capture, name, refusal, "is it a video?", may_end=True)


def open_gstreamer(pipeline: str, name: str) -> OpenedCapture:
    """What a GStreamer pipeline gives, its newest frame. Raises SourceError, BackendUnavailable."""
    cv2 = opencv()
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise BackendUnavailable(
            f"{name} needs an OpenCV with GStreamer, which the one from PyPI is without; "
            "use the system's (Jetson has it; sudo apt install python3-opencv), or name another --source"
        )
    if "appsink" not in pipeline:
        pipeline += " ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    capture = cv2.VideoCapture(_for_opencv(pipeline, name), cv2.CAP_GSTREAMER)
    refusal = f"{name} cannot be opened; try the pipeline with gst-launch-1.0, or {TYPE_NEXT}"
    return _with_first_frame(capture, name, refusal, "is it a video?", may_end=True)


def csi_pipeline(sensor: int, width: int, height: int, frame_rate: int) -> str:
    """The Jetson's own camera: only its newest frame is kept."""
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),width={width},height={height},"
        f"framerate={frame_rate}/1,format=NV12 ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! "
        "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )


def open_video(path: Path, name: str) -> tuple[Any, float | None, int]:
    """A cv2.VideoCapture of a file, its frame rate and how many frames it announces (0: none). Raises SourceError."""
    cv2 = opencv()
    # FFmpeg alone, where OpenCV has it: its other readers take a name as a pattern or a sequence of pictures. And the
    # whole path: FFmpeg takes the beginning of a relative one, such as "concat:", for a protocol.
    has_ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    whole_path = _for_opencv(str(path.absolute()), name)
    capture = cv2.VideoCapture(whole_path, cv2.CAP_FFMPEG if has_ffmpeg else cv2.CAP_ANY)
    if not capture.isOpened():
        raise SourceError(f"{name} is not a video that OpenCV can read; {TYPE_NEXT}")
    _check_announced_size(capture, name)
    return capture, valid_frame_rate(capture.get(cv2.CAP_PROP_FPS)), _announced_frames(capture)


def redacted(address: str) -> str:
    """A stream's address as it may be shown: no user, no password, no query, and nothing that is assigned with "=" in
    its path: cameras carry passwords in all of these."""
    without_user = re.sub(r"://.*@", "://***@", address, flags=re.DOTALL)
    without_query = re.sub(r"[?#].*", "?…", without_user, flags=re.DOTALL)
    return one_line(re.sub(r"=[^/]*", "=…", without_query))


def _for_opencv(text: str, name: str) -> str:
    """`text` itself; raises SourceError for one that OpenCV must not get."""
    if not is_unicode(text):
        raise SourceError(f"{name} has bytes in its name that are no UTF-8; rename it, or {TYPE_NEXT}")
    return text


def _with_first_frame(capture: Any, name: str, refusal: str, question: str, *, may_end: bool) -> OpenedCapture:
    """What opens but gives nothing, as a camera that another program holds may, is not open."""
    cv2 = opencv()
    try:
        if not capture.isOpened():
            raise SourceError(refusal)
        _check_announced_size(capture, name)
        first = read_frame(capture, name)
        if first is None:
            raise SourceError(f"{name} opens but gives no frame; {question} Otherwise {TYPE_NEXT}")
        announced = _announced_frames(capture) if may_end else 0
        return OpenedCapture(capture, first, valid_frame_rate(capture.get(cv2.CAP_PROP_FPS)), announced)
    except cv2.error as error:
        capture.release()
        raise SourceError(f"{name} cannot be decoded: {one_line(error)}") from error
    except BaseException:
        capture.release()
        raise


def _announced_frames(capture: Any) -> int:
    """How many frames the header or the server announces, 0 where it does not log: FFmpeg's answer is then negative."""
    cv2 = opencv()
    announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(announced) if 0 < announced < 2**53 else 0


def _check_announced_size(capture: Any, name: str) -> None:
    """Before a frame is decoded: what a file's header says is what memory would be taken for."""
    cv2 = opencv()
    check_size(capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT), name)
