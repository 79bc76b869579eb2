"""Cameras, streams and videos through OpenCV: opening them with timeouts, and a thread that reads live ones."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from demos.live.sources.base import HINT, Frame, LiveSource, Pacer, SourceKind, check_size
from demos.live.sources.opencv import DecodeError, FrameReader, is_unicode, opencv, read_frame, to_rgb
from simplenet.errors import BackendUnavailable, SimpleNetError, SourceError, one_line

OPEN_TIMEOUT_S = READ_TIMEOUT_S = 5
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 8.0
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
            loop: restart a video at its end. pace: limit a video to its frame rate.
            reconnect_timeout_s: fail after this time without a frame.
        """
        super().__init__(name, kind)
        self._open, self._loop, self._pace, self._reconnect_timeout_s = open, loop, pace, reconnect_timeout_s
        self._stopping = False
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
            self._thread.join(READ_TIMEOUT_S + 1)  # a read that stalls returns after its own timeout

    def poll(self) -> Frame | None:
        frame = super().poll()
        return frame and Frame(to_rgb(frame.image), frame.captured_s)  # dropped frames are not converted

    def _describe(self, reader: FrameReader) -> None:
        self.is_live, self.frame_rate = not reader.announced_frames, reader.frame_rate

    def _run(self, reader: FrameReader | None) -> None:
        """Thread: read until the capture is lost, back off, open it again."""
        backoff_s, last_frame_s, was_open = FIRST_BACKOFF_S, time.perf_counter(), False
        try:
            while not self._stopping:
                try:
                    reader = reader or self._open()
                except SourceError as error:
                    reason = str(error)
                else:
                    self._describe(reader)
                    self.reconnects += was_open and self.is_live
                    reason = self._read_all(reader)
                    reader, was_open = None, True
                    backoff_s, last_frame_s = FIRST_BACKOFF_S, time.perf_counter()
                    if not self.is_live:
                        if self._loop:
                            continue
                        return self.set_state("ended", reason or None)
                left_s = self._reconnect_timeout_s - (time.perf_counter() - last_frame_s)
                if left_s <= 0:
                    note = f"{self.name} gave no frame for {self._reconnect_timeout_s:g} s: {reason}"
                    return self.set_state("failed", note)
                self.set_state("reconnecting", reason.partition(";")[0])
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, min(backoff_s, left_s))
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
        except SimpleNetError as error:  # a frame is too large or of another type
            self.set_state("failed", str(error))
        except Exception as error:  # noqa: BLE001 - without a final state, the loop would wait forever
            self.set_state("failed", f"{self.name} failed: {one_line(error)}")

    def _read_all(self, reader: FrameReader) -> str:
        """Push frames until there are no more. Returns the reason; empty: the regular end of a video."""
        pacer = Pacer(reader.frame_rate if self._pace and not self.is_live else None)
        try:
            while not self._stopping and (pixels := reader.read()) is not None:
                if not self.is_live:
                    self._wait_until_due(pacer)
                self.note = None
                self.push(pixels)
        except DecodeError as error:
            return str(error)
        finally:
            reader.release()  # here and not in close(): releasing during a read() crashes
        if self.is_live:
            return f"{self.name} stopped giving frames"
        return "" if self._stopping else reader.missing_frames() or ""

    def _wait_until_due(self, pacer: Pacer) -> None:
        """Wait until the loop has read the last frame and the next one is due."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._newest is None)
            self._changed.wait_for(lambda: self._stopping, max(0.0, pacer.deadline_s - time.perf_counter()))
        pacer.advance(time.perf_counter())


def open_camera(text: str, name: str) -> FrameReader:
    """Open a camera by number or /dev path. Raises SourceError."""
    cv2 = opencv()
    is_linux = sys.platform == "linux"
    device = Path(text if text.startswith("/dev/") else f"/dev/video{text}")
    if is_linux and not device.exists():
        raise SourceError(f"no {name}: {one_line(str(device))} does not exist; plug it in, or {HINT}")
    if is_linux and not device.is_char_device():
        raise SourceError(f"no {name}: {one_line(str(device))} is not a device; {HINT}")
    # Only Video4Linux: OpenCV's other readers would open a path such as /dev/zero as a file.
    backend = cv2.CAP_V4L2 if is_linux else cv2.CAP_ANY
    remedy = f"close other programs that use it, check its permissions (sudo usermod -aG video $USER), or {HINT}"
    return _open(int(text) if text.isdecimal() else text, backend, name, remedy, is_camera=True)


def open_stream(address: str, name: str) -> FrameReader:
    """Open a stream or a video by address; `name` is the redacted address. Raises SourceError, BackendUnavailable."""
    cv2 = opencv()
    if not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        raise BackendUnavailable(f"{name} needs an OpenCV with FFmpeg, and this one has none; try gst:PIPELINE")
    options = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1000 * OPEN_TIMEOUT_S)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(1000 * READ_TIMEOUT_S)),
        *(cv2.CAP_PROP_N_THREADS, 1),  # each further decoding thread delays the stream by a frame
    ]
    return _open(address, cv2.CAP_FFMPEG, name, f"check the address, user and password, or {HINT}", options)


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


def open_video(path: Path, name: str) -> FrameReader:
    """Open a video file. Raises SourceError."""
    cv2 = opencv()
    # Only FFmpeg, if OpenCV has it: its other readers interpret a name as a pattern of numbered images. The path is
    # absolute, because FFmpeg interprets the start of a relative one, such as "concat:", as a protocol.
    has_ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    backend = cv2.CAP_FFMPEG if has_ffmpeg else cv2.CAP_ANY
    return _open(str(path.absolute()), backend, name, HINT, problem="is not a video that OpenCV can read")


def redacted(address: str) -> str:
    """Remove user, password, query, and values after "=" in the path: cameras accept passwords in all of these."""
    without_user = re.sub(r"://.*@", "://***@", address, flags=re.DOTALL)
    without_query = re.sub(r"[?#].*", "?…", without_user, flags=re.DOTALL)
    return one_line(re.sub(r"=[^/]*", "=…", without_query))


def _open(
    target: str | int,
    backend: int,
    name: str,
    remedy: str,
    options: Sequence[int] = (),
    *,
    problem: str = "cannot be opened",
    is_camera: bool = False,
) -> FrameReader:
    """Open a capture and read its first frame: a camera that another program uses may open but give none.

    Args:
        backend: one of cv2.CAP_*.
        remedy: what to do, for the error message.
        options: cv2.CAP_PROP_* and their values, in turn.
        problem: what is wrong if it does not open, for the error message.

    Raises:
        SourceError: it does not open, gives no frame, or its frames are too large.
    """
    cv2 = opencv()
    if not is_unicode(str(target)):
        raise SourceError(f"{name} has bytes in its name that are not UTF-8; rename it, or {HINT}")
    capture = cv2.VideoCapture(target, backend, options)
    try:
        if not capture.isOpened():
            raise SourceError(f"{name} {problem}; {remedy}")
        if is_camera:
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)  # with one, the camera cannot write while a frame is decoded
        # Before decoding: memory is allocated for the size in the header.
        check_size(capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT), name)
        first = read_frame(capture, name)
        if first is None:
            raise SourceError(f"{name} opens but gives no frame; {remedy}")
        frame_rate, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        return FrameReader(
            capture,
            name,
            first,
            frame_rate if 0 < frame_rate <= 1000 else None,  # a header may contain any number, or NaN
            int(frames) if not is_camera and 0 < frames < 2**53 else 0,  # FFmpeg: negative if unknown
        )
    except BaseException:
        capture.release()
        raise
