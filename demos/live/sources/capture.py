"""Opening cameras, streams and videos with OpenCV, each within bounds: time, memory, and what FFmpeg may follow."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from demos.live.sources.base import TYPE_NEXT, check_size, read_past_bad_frames, sane_rate
from demos.live.sources.live import READ_TIMEOUT_S, Opened
from demos.live.sources.opencv import is_unicode, opencv
from simplenet.errors import BackendUnavailable, SourceError, one_line

OPEN_TIMEOUT_S = 5


def open_camera(text: str, name: str) -> Opened:
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


def open_stream(address: str, name: str) -> Opened:
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


def open_gstreamer(pipeline: str, name: str) -> Opened:
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
    return capture, sane_rate(capture.get(cv2.CAP_PROP_FPS)), _announced_frames(capture)


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


def _with_first_frame(capture: Any, name: str, refusal: str, question: str, *, may_end: bool) -> Opened:
    """What opens but gives nothing, as a camera that another program holds may, is not open."""
    cv2 = opencv()
    try:
        if not capture.isOpened():
            raise SourceError(refusal)
        _check_announced_size(capture, name)
        first = read_past_bad_frames(capture, name)
        if first is None:
            raise SourceError(f"{name} opens but gives no frame; {question} Otherwise {TYPE_NEXT}")
        announced = _announced_frames(capture) if may_end else 0
        return Opened(capture, first, sane_rate(capture.get(cv2.CAP_PROP_FPS)), announced)
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
