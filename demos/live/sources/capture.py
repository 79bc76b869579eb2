"""Cameras and streams: a thread that reads and reopens them, and opening cameras and pipelines with OpenCV."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from demos.live.sources import ffmpeg
from demos.live.sources.base import (
    HINT,
    DecodeError,
    FrameReader,
    LiveSource,
    OpenError,
    Pacer,
    SourceKind,
    check_size,
)
from demos.live.sources.opencv import CaptureReader, is_unicode, opencv
from simplenet.errors import BackendUnavailable, SimpleNetError, SourceError, one_line

FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 8.0
STABLE_S = 10.0
"""A capture that was open for longer is opened again without a long pause."""
_APPSINK = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"


class CaptureSource(LiveSource):
    """Reads a capture in a thread, and reopens it with exponential backoff when it is lost.

    A stream that announces a number of frames is a video: no frame is dropped, and it ends. All others are live.
    """

    def __init__(
        self,
        name: str,
        kind: SourceKind,
        open: Callable[[], FrameReader],
        reader: FrameReader | None = None,
        *,
        loop: bool = False,
        pace: bool = False,
        reconnect_timeout_s: float = 60,
    ) -> None:
        """
        Args:
            open: opens the capture, the first time and after it was lost; raises SourceError.
            reader: an open capture; None: the thread opens it.
            loop: restart a video at its end. pace: play a video as fast as its times say.
            reconnect_timeout_s: fail after this time without a frame.
        """
        super().__init__(name, kind)
        self._open, self._loop, self._pace, self._reconnect_timeout_s = open, loop, pace, reconnect_timeout_s
        self._stopping, self._media_start_s = False, 0.0
        if reader is None:
            self.state, self.note = "reconnecting", f"connecting to {name}"
        else:
            self._describe(reader)
        self._thread = threading.Thread(target=self._run, args=[reader], name=f"reader of {name}", daemon=True)
        self._thread.start()

    def request_stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def close(self) -> None:
        self.request_stop()
        super().close()
        if self._thread is not threading.current_thread():
            self._thread.join(ffmpeg.READ_TIMEOUT_S + 1)  # a read that stalls returns after its own timeout

    def _describe(self, reader: FrameReader) -> None:
        self.is_live, self.frame_rate = reader.is_live, reader.frame_rate

    def _run(self, reader: FrameReader | None) -> None:
        """Thread: read until the capture is lost, back off, open it again."""
        backoff_s, last_frame_s, was_open = FIRST_BACKOFF_S, time.perf_counter(), False
        try:
            while not self._stopping:
                try:
                    reader = reader or self._open()
                except SourceError as error:
                    reason, problem = str(error), getattr(error, "problem", str(error))
                else:
                    self._describe(reader)
                    self.reconnects += was_open and self.is_live
                    opened_s = time.perf_counter()
                    reason = problem = self._read_all(reader)
                    reader, was_open, last_frame_s = None, True, time.perf_counter()
                    if last_frame_s - opened_s > STABLE_S:
                        backoff_s = FIRST_BACKOFF_S
                    if not self.is_live:
                        if self._loop:
                            continue
                        return self.set_state("ended", reason or None)
                left_s = self._reconnect_timeout_s - (time.perf_counter() - last_frame_s)
                if left_s <= 0:
                    note = f"{self.name} gave no frame for {self._reconnect_timeout_s:g} s: {reason}"
                    return self.set_state("failed", note)
                self.set_state("reconnecting", problem)
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, min(backoff_s, left_s))
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
        except SimpleNetError as error:  # a frame is too large or of another type
            self.set_state("failed", str(error))
        except Exception as error:  # noqa: BLE001 - without a final state, the loop would wait forever
            self.set_state("failed", f"{self.name} failed: {one_line(error)}")

    def _read_all(self, reader: FrameReader) -> str:
        """Push frames until there are no more. Returns the reason; empty: the regular end of a video."""
        pacer, start_s = Pacer(self._pace and not self.is_live), self._media_start_s
        try:
            while not self._stopping and (image := reader.read()) is not None:
                if reader.media_s is None:
                    self.push(image)
                else:
                    self._wait_until_due(pacer, reader.media_s)
                    self.push(image, media_s=start_s + reader.media_s, duration_s=reader.end_s - reader.media_s)
                self.note = reader.note
            if not self.is_live:
                self._wait_until_due(pacer, reader.end_s)
                self._media_start_s += reader.end_s
        except DecodeError as error:
            return str(error)
        finally:
            reader.release()  # here and not in close(): releasing during a read() crashes
        if self.is_live:
            return f"{self.name} stopped giving frames"
        return "" if self._stopping else reader.note or ""

    def _wait_until_due(self, pacer: Pacer, media_s: float) -> None:
        """Wait until the loop has read the last frame and the next one is due."""
        pacer.schedule(media_s)
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._newest is None)
            self._changed.wait_for(lambda: self._stopping, max(0.0, pacer.due_s - time.perf_counter()))
        pacer.advance()


def open_camera(text: str, name: str) -> FrameReader:
    """Open a camera by number or /dev path. Raises SourceError."""
    cv2 = opencv()
    is_linux = sys.platform == "linux"
    device = Path(text if text.startswith("/dev/") else f"/dev/video{text}")
    if is_linux and not device.exists():
        raise OpenError(f"no {name}: {one_line(str(device))} does not exist", f"plug it in, or {HINT}")
    if is_linux and not device.is_char_device():
        raise OpenError(f"no {name}: {one_line(str(device))} is not a device")
    # Only Video4Linux: OpenCV's other readers would open a path such as /dev/zero as a file.
    backend = cv2.CAP_V4L2 if is_linux else cv2.CAP_ANY
    remedy = f"close other programs that use it, check its permissions (sudo usermod -aG video $USER), or {HINT}"
    return _open(int(text) if text.isdecimal() else text, backend, name, remedy, is_camera=True)


def open_gstreamer(pipeline: str, name: str) -> FrameReader:
    """Open a GStreamer pipeline; append an appsink if it has none. Raises SourceError, BackendUnavailable."""
    cv2 = opencv()
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise BackendUnavailable(
            f"{name} needs an OpenCV with GStreamer, and the one from PyPI has none; "
            "use the system's (on Jetson, or sudo apt install python3-opencv), or name another --source"
        )
    if "appsink" not in pipeline:
        pipeline += f" ! {_APPSINK}"
    return _open(pipeline, cv2.CAP_GSTREAMER, name, f"try the pipeline with gst-launch-1.0, or {HINT}")


def csi_pipeline(sensor: int, width: int, height: int, frame_rate: int) -> str:
    """GStreamer pipeline of a Jetson's CSI camera that keeps only the newest frame."""
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),width={width},height={height},"
        f"framerate={frame_rate}/1,format=NV12 ! nvvidconv ! video/x-raw,format=BGRx ! {_APPSINK}"
    )


def _open(target: str | int, backend: int, name: str, remedy: str, *, is_camera: bool = False) -> FrameReader:
    """Open a capture of OpenCV and read its first frame.

    Args:
        backend: one of cv2.CAP_*.
        remedy: what to do, for the error message.

    Raises:
        SourceError: it does not open, gives no frame, or its frames are too large.
    """
    cv2 = opencv()
    if not is_unicode(str(target)):
        raise OpenError(f"{name} has bytes in its name that are not UTF-8", f"rename it, or {HINT}")
    capture = cv2.VideoCapture(target, backend)
    try:
        if not capture.isOpened():
            raise OpenError(f"{name} cannot be opened", remedy)
        if is_camera:
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)  # with one, the camera cannot write while a frame is decoded
        # Before decoding: memory is allocated for this size.
        check_size(capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT), name)
        frame_rate = capture.get(cv2.CAP_PROP_FPS)
        reader = CaptureReader(capture, name, frame_rate if 0 < frame_rate <= 1000 else None)  # may be NaN
        if not reader.read_first():
            raise OpenError(f"{name} opens but gives no frame", remedy)
        return reader
    except BaseException:
        capture.release()
        raise
