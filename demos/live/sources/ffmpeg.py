"""Read videos and network streams with FFmpeg, through PyAV: each frame at its own time, damaged ones skipped.

reader = VideoReader("/videos/clip.mp4", "clip.mp4", is_file=True)
while (image := reader.read()) is not None:
    show(image, at_s=reader.media_s)
"""

from __future__ import annotations

import collections
import contextlib
import errno
import math
import os
import re
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from demos.live.sources import base, problems
from demos.live.sources.base import HINT, DecodeError, FrameReader, OpenError, check_size
from demos.live.sources.opencv import pyav
from simplenet.errors import SourceError, one_line
from simplenet.preprocessing import UInt8Array

OPEN_TIMEOUT_S = READ_TIMEOUT_S = 5.0
_HEAD_TIMEOUT_S = 2.0
KEY_FRAME_TIMEOUT_S = 60.0
"""How long a stream's packets may come without a frame: some cameras send a key frame only every 50 s."""

# Security: FFmpeg also opens playlists of other files and addresses (m3u8, ffconcat, dash, sdp), text, image sequences
# and devices. Only containers, sound (to name it) and plain streams are allowed. A file cannot name an address, nor a
# stream a file.
_FORMATS = (
    "aac,ac3,aiff,amr,asf,av1,avi,dirac,dv,flac,flv,gif,h261,h263,h264,hevc,ivf,jpeg_pipe,live_flv,m4v,matroska,"
    "mjpeg,mov,mp3,mpeg,mpegts,mpegvideo,mpjpeg,mxf,nut,obu,ogg,rm,rtsp,vc1,vvc,wav,yuv4mpegpipe"
)
_PROTOCOLS = "http,https,httpproxy,rtmp,rtp,srtp,tcp,tls,udp"

_LONGEST_STILL_S = 60.0  # in formats whose times may jump, such as MPEG-TS
# Readers that skip damaged bytes without an error. Undamaged, they have at most this many bytes between two packets.
_SKIPPING_FORMATS, _LONGEST_HEADER = ("matroska,webm", "flv"), 256
# After damage a few frames may go back by so many periods. More of them mean that the container's times are wrong.
_STEP_BACK, _MAX_STEPS_BACK = 15, 10
_MAX_RATE = 240  # a WebM of Chromium says 1000, which is the unit of its times
_MAX_FAILURES = 100  # in a row, after which a video that is too large is not taken for a damaged one
_AFTER_DAMAGE = 60
_IMAGE_BRANDS = ("avif", "heic", "heix", "mif1")
_MAX_THREADS = 4  # each holds a frame


class VideoReader(FrameReader):
    """Reads the video of a file or a network stream, and skips damaged frames."""

    def __init__(self, address: str, name: str, *, is_file: bool) -> None:
        """Open it and read its first frame.

        Args:
            address: an absolute path or a stream's address.
            name: for messages; contains no credentials.

        Raises:
            OpenError: it cannot be opened or decoded, or gives no frame.
            SourceError: its frames are too large.
            BackendUnavailable: PyAV is not installed.
        """
        self._name, self._is_file = name, is_file
        self._av = pyav()
        self._container = _open(self._av, address, name, is_file)
        try:
            self._stream = self._choose_stream()
            self._decoder = self._stream.codec_context
            if self._decoder is None:
                raise OpenError(f"{name} has the codec {_codec(self._av, self._container)}, which FFmpeg cannot decode")
            self._describe()
            self._first = self._next_frame()
            if self._first is None:
                why = f": FFmpeg cannot decode its {self._decoder.name} video" if self._suspect else ""
                raise OpenError(f"{name} opens but gives no frame{why}")
            if self._is_image():
                raise OpenError(*problems.is_not(name, "one image", is_file))
        except BaseException:
            self.release()
            raise

    def read(self) -> UInt8Array | None:
        frame, self._first = self._first or self._next_frame(), None
        if frame is None:
            return None
        check_size(frame.width, frame.height, self._name)
        if not self.is_live:
            self._set_time(frame)
        return self._to_rgb(frame)

    def release(self) -> None:
        self._container.close()

    def _choose_stream(self) -> Any:
        streams = self._container.streams
        videos = [video for video in streams.video if not video.disposition & self._av.stream.Disposition.attached_pic]
        if not videos:
            raise OpenError(f"{self._name} holds {'sound but ' * bool(streams.audio)}no video")
        best = streams.best("video")
        return best if best in videos else videos[0]

    def _describe(self) -> None:
        """Prepare decoding, and read from the header how long the video is and how it is shown."""
        flags, stream, decoder = self._av.format.Flags, self._stream, self._stream.codec_context
        check_size(decoder.width, decoder.height, self._name)  # before memory is allocated for it
        self._format = self._container.format.name
        self._announced, duration = stream.frames, self._container.duration
        self._duration_s = duration / 1e6 if duration else 0.0
        self.is_live = not self._is_file and not self._announced and not self._duration_s > 0
        rates = [rate for rate in (stream.guessed_rate, stream.average_rate) if rate and 0 < rate <= _MAX_RATE]
        self.frame_rate = float(rates[0]) if rates else None
        self._period_s = 1 / (self.frame_rate or 25)
        self._aspect = float(stream.sample_aspect_ratio or 1)
        self._time_base = float(stream.time_base)
        self._has_times = not self._container.format.flags & flags.no_timestamps.value
        self._may_jump = bool(self._container.format.flags & flags.ts_discont.value)
        # One thread for streams: each further one delays a stream by a frame.
        decoder.thread_count = 1 if self.is_live else min(_MAX_THREADS, os.cpu_count() or 1)
        decoder.thread_type = "AUTO"
        decoder.options = {"max_pixels": str(int(base.MAX_FRAME_MEGAPIXELS * 1e6))}  # checked before each allocation
        if decoder.name == "mjpeg":  # by default, it shows a frame that is cut in half as a good one
            decoder.options |= {"err_detect": "explode"}
        self._reformatter = self._av.video.reformatter.VideoReformatter()  # caches its tables; one per frame is slower
        self._packets: Any = None
        self._decoded: collections.deque[Any] = collections.deque()
        self._is_flushed = False
        self._next_dts = self._packet_count = self._errors = self._lost = self._shown = 0
        self._suspect = 0  # for so many frames after damage, gaps between them are missing frames
        self._failures = self._steps_back = 0  # in a row
        self._read_until, self._reached_s = math.inf, 0.0
        self._offset_s = math.nan  # of media_s, from the times in the container

    def _next_frame(self) -> Any:
        """Decode until there is a frame; None at the end."""
        start_s = time.monotonic()
        while not self._decoded:
            if self._is_flushed:
                return None
            packet = self._next_packet()
            if self._failures > (_MAX_FAILURES if packet else 0):
                check_size(self._decoder.width, self._decoder.height, self._name)  # it may have changed
            self._decode(packet)
            if packet is None:
                self._is_flushed = True
                self._count_missing()
            elif self.is_live and time.monotonic() - start_s > KEY_FRAME_TIMEOUT_S:
                codec = self._decoder.name
                raise DecodeError(f"{self._name} gave no {codec} frame that is complete for {KEY_FRAME_TIMEOUT_S:g} s")
        return self._decoded.popleft()

    def _next_packet(self) -> Any:
        """Return the next packet of the video, or None at the end."""
        for _ in range(_MAX_FAILURES):
            self._packets = self._packets or self._container.demux()
            try:
                for packet in self._packets:
                    if packet.size:
                        self._inspect(packet)
                        if packet.stream_index == self._stream.index:
                            return packet
                return None
            except self._av.FFmpegError as error:
                self._packets, self._suspect = None, _AFTER_DAMAGE
                if isinstance(error, self._av.error.InvalidDataError):
                    continue
                if self.is_live:
                    raise DecodeError(f"{self._name} stopped giving frames: it {problems.explain(error)[0]}") from None
                break  # the rest of a file cannot be read
        return None

    def _inspect(self, packet: Any) -> None:
        """Follow what was read of a video, to notice what is missing."""
        if packet.stream_index == self._stream.index:
            self._packet_count += 1
            if self._announced:
                self._announced -= packet.is_discard  # before the start of an edit list
                if self._format == "avi" and packet.dts is not None:  # it also announces empty frames, which repeat one
                    self._announced -= max(0, packet.dts - self._next_dts)
                    self._next_dts = packet.dts + 1
        is_damaged = packet.is_corrupt
        if packet.pts is not None:
            self._reached_s = max(self._reached_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.pos is not None and self._format in _SKIPPING_FORMATS:
            is_damaged |= packet.pos - self._read_until > _LONGEST_HEADER
            self._read_until = packet.pos + packet.size
        if is_damaged:
            self._suspect = _AFTER_DAMAGE

    def _decode(self, packet: Any) -> None:
        """Decode a packet, or with None the frames that the decoder has kept back."""
        try:
            frames = self._decoder.decode(packet)
        except self._av.FFmpegError:
            if packet is not None and packet.has_sidedata("encryption_info"):
                raise OpenError(f"{self._name} is encrypted (DRM)") from None
            self._errors, self._failures, self._suspect = self._errors + 1, self._failures + 1, _AFTER_DAMAGE
            self._note_lost()
        else:
            self._decoded.extend(frames)
            self._failures = 0 if frames else self._failures

    def _set_time(self, frame: Any) -> None:
        """Compute `media_s` and `end_s` of a frame; times that are missing, go back or jump follow the last frame."""
        pts = frame.dts if frame.pts is None else frame.pts
        seconds = pts * self._time_base if self._has_times and pts is not None else math.nan
        duration_s = frame.duration * self._time_base if self._has_times and frame.duration else self._period_s
        longest_s = _LONGEST_STILL_S if self._may_jump else math.inf
        media_s, last_s = seconds + self._offset_s, self.media_s or 0.0
        if last_s - _STEP_BACK * self._period_s < media_s <= last_s and self._steps_back < _MAX_STEPS_BACK:
            media_s, self._steps_back = last_s + 0.001, self._steps_back + 1
        elif not last_s < media_s < self.end_s + longest_s:
            media_s = self.end_s
            self._offset_s = media_s - seconds
        else:
            self._steps_back = 0
            if self._suspect and (lost := round((media_s - self.end_s) / self._period_s)) > 0:
                self._lost, self._errors = self._lost + lost, 0
                self._note_lost()
        self._shown, self._suspect = self._shown + 1, max(0, self._suspect - 1)
        self.media_s, self.end_s = media_s, media_s + duration_s

    def _count_missing(self) -> None:
        """Compare what was read with what the header announces."""
        if self._announced:
            if self._lost or self._errors or self._packet_count < self._announced:
                self._lost, self._errors = max(0, self._announced - self._shown - len(self._decoded)), 0
        elif self._duration_s and not self._may_jump and self._has_times:
            left_s = self._duration_s - self._reached_s
            self._lost += round(left_s / self._period_s) if left_s > 1 else 0
        self._note_lost()

    def _note_lost(self) -> None:
        lost = self._lost + self._errors
        if lost and not self.is_live:
            total = self._announced or self._shown + len(self._decoded) + lost
            self.note = f"{self._name}: {lost} of {total} frames are damaged or missing"

    def _is_image(self) -> bool:
        if self._container.metadata.get("major_brand") in _IMAGE_BRANDS:  # of which FFmpeg may show only one tile
            return True
        if self._format != "jpeg_pipe":
            return False
        try:
            second = self._next_frame()
        except DecodeError:  # the end of a response without a length
            return True
        if second is not None:
            self._decoded.appendleft(second)
        return second is None

    def _to_rgb(self, frame: Any) -> UInt8Array:
        """Convert to RGB with square pixels, upright."""
        width, height = frame.width, frame.height
        if 0.1 < self._aspect < 10:
            width, height = round(width * max(1.0, self._aspect)), round(height / min(1.0, self._aspect))
            check_size(width, height, self._name)
        try:
            rgb: UInt8Array = self._reformatter.reformat(frame, width, height, format="rgb24").to_ndarray()
        except self._av.FFmpegError as error:
            raise SourceError(f"{self._name} has {frame.format.name} frames: {error.strerror}") from None
        try:
            matrix = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # PyAV 18 does not know all kinds of side data, such as EXIF
            return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))
        return rgb if matrix is None else _turn(rgb, np.frombuffer(bytes(matrix), np.int32))


def _turn(rgb: UInt8Array, matrix: npt.NDArray[np.int32]) -> UInt8Array:
    """Turn and flip an image by a display matrix, rounded to right angles: x' = ax + cy, y' = bx + dy."""
    a, b, _, c, d = matrix[:5]
    if abs(a) < abs(b):
        rgb, a, d = rgb.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _open(av: Any, address: str, name: str, is_file: bool) -> Any:
    """Open a container and read its header. Raises OpenError."""
    options = {
        "format_whitelist": _FORMATS,
        "protocol_whitelist": "file" if is_file else _PROTOCOLS,
        "rtsp_flags": "prefer_tcp",
        "fflags": "-genpts",  # PyAV turns it on; in AVI with B-frames it makes times that go back and forth
    }
    timeout = None if is_file else (OPEN_TIMEOUT_S, READ_TIMEOUT_S)
    try:
        return av.open(address, options=options, timeout=timeout, metadata_errors="replace")
    except av.FFmpegError as error:
        head, is_late = None, isinstance(error, av.error.ExitError)
        if isinstance(error, ValueError) or is_late or error.errno == errno.EIO:  # it may be open, but give no video
            head = _head(av, address, options, None if is_file else _HEAD_TIMEOUT_S)
        if is_late and (head or b"").startswith(b"\xff\xd8\xff"):  # small frames; detecting the format needs 2 KB
            with contextlib.suppress(av.FFmpegError):
                return av.open(address, "r", "mjpeg", options | {"analyzeduration": "1"}, timeout=timeout)
        content = problems.content_of(head or b"")
        if is_file or content:
            raise OpenError(*problems.is_not(name, content, is_file)) from None
        cause, remedy = problems.explain(error, address, head)
        raise OpenError(f"{name} cannot be opened: it {cause}", f"{remedy}, or {HINT}") from None


def _head(av: Any, address: str, options: dict[str, str], timeout: float | None) -> bytes | None:
    """The first kilobyte of a file or address, or what comes of it; None if it cannot be opened."""
    head, options = None, options | {"format_whitelist": "data"}
    with contextlib.suppress(av.FFmpegError), av.open(address, "r", "data", options, timeout=timeout) as container:
        head = b""
        head = bytes(next(container.demux(), b""))
    return head


def _codec(av: Any, container: Any) -> str:
    """The name of a codec without decoder, which PyAV has only in FFmpeg's log."""
    av.logging.set_level(av.logging.INFO)
    try:
        found = re.search(r"Video: (?:none \()?([^\s,/)]+)", container.dumps_format())
    finally:
        av.logging.set_level(None)
    return one_line(found[1]) if found else "unknown"
