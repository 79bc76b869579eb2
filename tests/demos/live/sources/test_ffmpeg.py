"""Videos are played as their container says: times, shape, colors; damage is skipped and counted."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demos.live.sources import base
from demos.live.sources.base import Frame, Source
from demos.live.sources.factory import open_source
from demos.live.sources.opencv import pyav
from simplenet.errors import BackendUnavailable, SourceError
from tests.demos.live.sources.scripted_camera import next_frame
from tests.demos.live.sources.videos import damage, encode, packets, regular

av = pyav()

VARIABLE_S = [0, 0.04, 0.08, 0.12, 2.0, 2.04, 7.5, 7.52]
"""Movement, a still, movement, a long still."""


def frames_of(source: Source) -> list[Frame]:
    frames = []
    while (frame := next_frame(source)) is not None:
        frames.append(frame)
    return frames


def times_of(path: Path) -> list[float]:
    with open_source(str(path)) as source:
        frames = frames_of(source)
        assert source.note is None
    for index, frame in enumerate(frames):
        assert frame.image.mean() == pytest.approx(5 * index % 256, abs=9)
    return [frame.media_s or 0.0 for frame in frames]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.mp4", "libx264", {"bf": "2"}),
        ("clip.mov", "mpeg4", {"bf": "2"}),
        ("clip.mkv", "libx264", {}),
        ("clip.webm", "libvpx", {}),
        ("clip.ts", "libx264", {"bf": "2"}),
        ("clip.flv", "flv", {}),
        ("no-suffix", "mjpeg", {"strict": "-1"}),
    ],
)
@pytest.mark.parametrize("start_s", [0, 100])
def test_frames_have_the_times_of_the_container(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], start_s: float
) -> None:
    container = "matroska" if name == "no-suffix" else None
    starts = [start_s + time_s for time_s in VARIABLE_S]
    path = encode(tmp_path / name, starts, codec, options=options, container=container)
    assert times_of(path) == pytest.approx(VARIABLE_S, abs=0.002)


@pytest.mark.parametrize(
    ("name", "codec", "container", "options"),
    [
        ("clip.h264", "libx264", "h264", {"bf": "3"}),
        ("clip.hevc", "libx265", "hevc", {"x265-params": "log-level=error"}),
        ("clip.m2v", "mpeg2video", "mpeg2video", {}),
        ("clip.mjpeg", "mjpeg", "mjpeg", {}),
        ("clip.ivf", "libvpx", "ivf", {}),
        ("clip.y4m", "wrapped_avframe", "yuv4mpegpipe", {}),
        ("clip.m2ts", "libx264", "mpegts", {"bf": "2"}),
        ("clip.avi", "mpeg4", "avi", {"bf": "2"}),  # its packets have no presentation times
        ("clip.avi", "libx264", "avi", {"bf": "2"}),
        ("clip.dat", "libx264", "nut", {}),
        ("clip.mxf", "mpeg2video", "mxf", {}),
        ("clip", "mjpeg", "mjpeg", {}),
    ],
)
def test_reads_raw_streams_and_rare_formats_at_their_rate(
    tmp_path: Path, name: str, codec: str, container: str, options: dict[str, str]
) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = encode(
        tmp_path / name, regular(20), codec, container=container, options=options, pixel_format=pixel_format,
        time_base=None,
    )  # fmt: skip
    assert times_of(path) == pytest.approx(regular(20), abs=0.002)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_repeated_frames_of_an_avi_are_not_missing(tmp_path: Path, codec: str) -> None:
    times = [0, 0.04, 0.08, 1, 1.04, 2]
    path = encode(tmp_path / "clip.avi", times, codec, options={"bf": "0"}, time_base=Fraction(1, 25))
    assert times_of(path) == pytest.approx(times, abs=0.002)


def test_times_that_jump_or_go_back_follow_the_last_frame(tmp_path: Path) -> None:
    """Two MPEG-TS recordings in one file, as tuners and dashcams write them."""
    parts = [
        encode(tmp_path / f"{start_s}.ts", [start_s + time_s for time_s in regular(10)]) for start_s in (9, 5000, 1)
    ]
    (tmp_path / "all.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_source(str(tmp_path / "all.ts")) as source:
        times = [frame.media_s or 0.0 for frame in frames_of(source)]
    assert len(times) == 30
    steps = np.diff(times)
    assert steps.min() > 0
    assert steps.max() < 3


def test_a_recording_that_starts_again_keeps_its_pace(tmp_path: Path) -> None:
    parts = [encode(tmp_path / f"{number}.ts", regular(25)).read_bytes() for number in range(3)]
    (tmp_path / "all.ts").write_bytes(b"".join(parts))
    with open_source(str(tmp_path / "all.ts")) as source:
        times = [frame.media_s or 0.0 for frame in frames_of(source)]
    assert times == pytest.approx(regular(75), abs=0.002)


def test_a_container_whose_unit_of_time_is_its_rate_has_no_rate(tmp_path: Path) -> None:
    """Chromium's MediaRecorder writes such files, at irregular times and without durations."""
    path = encode(tmp_path / "clip.webm", [0, 0.006, 0.048, 0.081, 2.5], "libvpx", rate=1000)
    with open_source(str(path)) as source:
        assert source.frame_rate is None or source.frame_rate <= 240
        frames = frames_of(source)
    assert [frame.media_s for frame in frames] == pytest.approx([0, 0.006, 0.048, 0.081, 2.5], abs=0.002)


def test_looped_video_keeps_its_pace(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mkv", [0, 0.1, 0.5])
    with open_source(str(path), loop=True) as source:
        frames = list(itertools.islice(iter(lambda: next_frame(source), None), 7))
    times = [frame.media_s for frame in frames]
    assert times == pytest.approx([0, 0.1, 0.5, 0.54, 0.64, 1.04, 1.08], abs=0.002)
    assert frames[2].duration_s == pytest.approx(0.04, abs=0.002)


def test_paced_video_shows_a_still_and_its_last_frame_as_long_as_it_says(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", [0, 0.04, 0.4, 0.6], rate=5)
    with open_source(str(path), pace=True) as source:
        start_s = time.perf_counter()
        shown_s = [time.perf_counter() - start_s for _ in range(4) if next_frame(source)]
        assert source.state == "running"
        assert next_frame(source) is None
        ended_s = time.perf_counter() - start_s
    assert all(shown >= due - 0.01 for shown, due in zip(shown_s, [0, 0.04, 0.4, 0.6], strict=True))  # never earlier
    assert ended_s - shown_s[-1] >= 0.15
    with open_source(str(path), pace=True) as source:
        assert next_frame(source) is not None
        assert source.ready_at_s() < time.perf_counter() + 1
        source.close()  # does not wait for the still
        assert source.state == "ended"


@pytest.mark.parametrize(
    ("name", "codec"),
    [("clip.mp4", "mpeg4"), ("clip.mp4", "libx264"), ("clip.avi", "mjpeg"), ("clip.mkv", "libx264"),
     ("clip.ts", "mpeg2video"), ("clip.webm", "libvpx"), ("clip.flv", "flv")],
)  # fmt: skip
def test_skips_and_counts_a_damaged_stretch(tmp_path: Path, name: str, codec: str) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = encode(
        tmp_path / name, regular(80), codec, options={"g": "10"}, pixel_format=pixel_format, noise=True, time_base=None
    )
    damage(path, 32, 6)
    with open_source(str(path)) as source:
        frames = frames_of(source)
        assert source.state == "ended"
        assert 64 <= len(frames) <= 76
        assert frames[-1].media_s == pytest.approx(79 / 25, abs=0.01)
        lost = 80 - len(frames)
        assert source.note == f"{path}: {lost} of 80 frames are damaged or missing"


@pytest.mark.parametrize(("name", "codec"), [("clip.mkv", "libx264"), ("clip.flv", "flv"), ("clip.avi", "mpeg4")])
def test_counts_what_a_truncated_file_lacks(tmp_path: Path, name: str, codec: str) -> None:
    path = encode(tmp_path / name, regular(80), codec, options={"g": "10"}, noise=True, time_base=None)
    path.write_bytes(path.read_bytes()[: packets(path)[40][0]])
    with open_source(str(path)) as source:
        count = len(frames_of(source))
    assert count == pytest.approx(40, abs=2)
    note = str(source.note)
    assert note.startswith(f"{path}: ")
    assert int(note.removeprefix(f"{path}: ").split()[0]) == pytest.approx(80 - count, abs=2)


def quadrants() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Red and green over blue and white."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32], image[:24, 32:], image[24:, :32], image[24:, 32:] = (
        (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255),
    )  # fmt: skip
    return image


@pytest.mark.parametrize(
    ("degrees", "flips", "turn"),
    [
        (0, {}, lambda image: image),
        (90, {}, np.rot90),  # counterclockwise, as FFmpeg counts
        (180, {}, lambda image: image[::-1, ::-1]),
        (-90, {}, lambda image: np.rot90(image, -1)),
        (0, {"hflip": True}, lambda image: image[:, ::-1]),
        (0, {"vflip": True}, lambda image: image[::-1]),
    ],
)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_turns_a_phones_video_upright(
    tmp_path: Path, name: str, degrees: int, flips: dict[str, bool], turn: Any
) -> None:
    def prepare(stream: Any) -> None:
        if degrees or flips:
            stream.set_display_rotation(degrees, **flips)

    path = encode(tmp_path / name, regular(2), image=quadrants(), prepare=prepare, options={"crf": "5"})
    with open_source(str(path)) as source:
        frame = next_frame(source)
    assert frame is not None
    expected = turn(quadrants())
    assert frame.image.shape == expected.shape
    assert np.abs(frame.image.astype(int) - expected).mean() < 12
    assert frame.image.flags.c_contiguous


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_turns_jpeg_images_by_their_exif_orientation(tmp_path: Path, orientation: int, turns: int) -> None:
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(quadrants()).save(content, "JPEG", exif=exif, quality=95)
    (tmp_path / "clip.mjpeg").write_bytes(3 * content.getvalue())
    with open_source(str(tmp_path / "clip.mjpeg")) as source:
        frames = frames_of(source)
    assert len(frames) == 3
    expected = np.rot90(quadrants(), turns)
    assert frames[0].image.shape == expected.shape
    assert np.abs(frames[0].image.astype(int) - expected).mean() < 12


@pytest.mark.parametrize(
    ("aspect", "shape"),
    [(Fraction(16, 11), (48, 93)), (Fraction(8, 9), (54, 64)), (Fraction(2), (48, 128)), (Fraction(999), (48, 64))],
)
def test_scales_to_square_pixels(tmp_path: Path, aspect: Fraction, shape: tuple[int, int]) -> None:
    def prepare(stream: Any) -> None:
        stream.sample_aspect_ratio = stream.codec_context.sample_aspect_ratio = aspect

    path = encode(tmp_path / "clip.mp4", regular(2), "mpeg4", prepare=prepare)
    with open_source(str(path)) as source:
        frame = next_frame(source)
    assert frame is not None
    assert frame.image.shape[:2] == shape


def test_every_frame_has_its_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(64, 48), (96, 32), (32, 64)]
    parts = [
        encode(tmp_path / f"{index}.h264", regular(5), container="h264", size=size, time_base=None).read_bytes()
        for index, size in enumerate(sizes)
    ]
    (tmp_path / "clip.h264").write_bytes(b"".join(parts))
    with open_source(str(tmp_path / "clip.h264")) as source:
        shapes = [frame.image.shape[1::-1] for frame in frames_of(source)]
    assert shapes == [size for size in sizes for _ in range(5)]
    huge = encode(tmp_path / "huge.h264", regular(5), container="h264", size=(640, 480), time_base=None).read_bytes()
    (tmp_path / "clip.h264").write_bytes(parts[0] + huge)
    monkeypatch.setattr(base, "MAX_FRAME_MEGAPIXELS", 0.3)
    with (
        open_source(str(tmp_path / "clip.h264")) as source,
        pytest.raises(SourceError, match=r"640x480, over 0\.3 mega"),
    ):
        frames_of(source)
    (tmp_path / "clip.h264").write_bytes(parts[0] + huge + parts[0])  # as damage can look
    with open_source(str(tmp_path / "clip.h264")) as source:
        assert len(frames_of(source)) == 10
        assert source.note == f"{source.name}: 5 of 15 frames are damaged or missing"


BT709, BT601 = (1, "ITU709"), (6, "ITU601")
LIMITED, FULL = (1, "MPEG"), (2, "JPEG")


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "space", "levels"),
    [
        ("limited.mp4", "libx264", "yuv420p", BT601, LIMITED),
        ("full.mp4", "libx264", "yuv420p", BT601, FULL),
        ("709.mp4", "libx264", "yuv444p", BT709, LIMITED),
        ("709full.mkv", "libx264", "yuv444p", BT709, FULL),
        ("ten.mp4", "libx264", "yuv420p10le", BT709, LIMITED),
        ("twelve.mkv", "ffv1", "yuv444p12le", None, None),
        ("gray.mkv", "ffv1", "gray", None, None),
        ("gray16.mkv", "ffv1", "gray16le", None, None),
        ("padded.mkv", "ffv1", "bgr0", None, None),
        ("alpha.mov", "qtrle", "argb", None, None),
        ("prores.mov", "prores_ks", "yuva444p10le", None, None),
        ("rgb.avi", "rawvideo", "bgr24", None, None),
        ("deep.mov", "png", "rgb48be", None, None),
        ("old.avi", "rawvideo", "uyvy422", None, None),
    ],
)
def test_converts_every_pixel_format_to_rgb(
    tmp_path: Path, name: str, codec: str, pixel_format: str, space: tuple[int, str] | None, levels: Any
) -> None:
    color = (200, 60, 30)

    def prepare(stream: Any) -> None:
        if space:
            stream.codec_context.colorspace, stream.codec_context.color_range = space[0], levels[0]

    def convert(frame: Any) -> Any:
        color_range = levels and av.video.reformatter.ColorRange[levels[1]]
        return frame.reformat(format=pixel_format, dst_colorspace=space and space[1], dst_color_range=color_range)

    image = np.full((48, 64, 3), color, np.uint8)
    options = {"crf": "5"} if codec == "libx264" else {}
    path = encode(
        tmp_path / name, regular(2), codec, pixel_format=pixel_format, options=options, image=image, prepare=prepare,
        convert=convert,
    )  # fmt: skip
    with open_source(str(path)) as source:
        frame = next_frame(source)
    assert frame is not None
    gray = 0.299 * 200 + 0.587 * 60 + 0.114 * 30
    expected = (gray,) * 3 if "gray" in name else color
    np.testing.assert_allclose(frame.image.mean(axis=(0, 1)), expected, atol=6)


def test_reads_a_palette_and_the_durations_of_an_animation(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (64, 48), (200, 60, 30)), Image.new("RGB", (64, 48), (30, 60, 200))
    first.save(tmp_path / "clip.mp4", "GIF", save_all=True, append_images=[second], duration=[300, 700])
    with open_source(str(tmp_path / "clip.mp4")) as source:
        frames = frames_of(source)
    assert [frame.media_s for frame in frames] == pytest.approx([0, 0.3])
    np.testing.assert_allclose(frames[1].image.mean(axis=(0, 1)), (30, 60, 200), atol=2)


def add_sound(path: Path, *, cover: bool = False) -> None:
    with av.open(str(path), "w") as output:
        sound: Any = output.add_stream("aac", rate=8000)
        if cover:
            picture: Any = output.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        output.mux(sound.encode(silence))
        output.mux(sound.encode(None))
        if cover:
            output.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
            output.mux(picture.encode(None))


def make_unknown_codec(path: Path) -> None:
    encode(path, regular(3))
    path.write_bytes(path.read_bytes().replace(b"avc1\0\0", b"xyz1\0\0"))


def make_unfinished(path: Path) -> None:
    encode(path, regular(40), noise=True)
    path.write_bytes(path.read_bytes()[:5000])


def encrypt(path: Path) -> None:
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "1" * 32, "encryption_kid": "2" * 32}
    with av.open(str(path), "w", options=keys) as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (add_sound, "holds sound but no video"),
        (lambda path: add_sound(path, cover=True), "holds sound but no video"),
        (make_unknown_codec, "has the codec xyz1, which FFmpeg cannot decode"),
        (make_unfinished, "an MP4 without its index, such as a recording that was not finished"),
        (encrypt, "is encrypted"),
        (lambda path: path.write_text("<!DOCTYPE html><html><body>404</body></html>"), "a web page"),
        (lambda path: path.write_text("\n<html>log in</html>"), "a web page"),
        (lambda path: path.write_text("#EXTM3U\nhttp://127.0.0.1:9/x.ts\n"), "a playlist"),
        (lambda path: path.write_text("<?xml version='1.0'?><MPD></MPD>"), "a playlist"),
        (lambda path: path.write_bytes(bytes(50_000)), "only zeros"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("a video, honestly"), "is not a video that FFmpeg can read; "),
    ],
)
def test_says_why_a_file_is_no_video(tmp_path: Path, make: Any, problem: str) -> None:
    path = tmp_path / "clip.mp4"
    make(path)
    with pytest.raises(SourceError) as caught:
        open_source(str(path))
    assert problem in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_plays_the_video_and_not_its_cover(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as output:
        streams: list[Any] = [output.add_stream(codec, rate=25) for codec in ("png", "libx264")]
        for stream, pixel_format, size in zip(streams, ("rgb24", "yuv420p"), ((256, 256), (64, 48)), strict=True):
            stream.width, stream.height = size
            stream.pix_fmt = pixel_format
        streams[0].disposition = av.stream.Disposition.attached_pic
        output.mux(streams[0].encode(av.VideoFrame.from_ndarray(np.zeros((256, 256, 3), np.uint8), format="rgb24")))
        for _ in range(5):
            output.mux(streams[1].encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        output.mux(streams[1].encode(None))
    with open_source(str(tmp_path / "clip.mp4")) as source:
        assert [frame.image.shape for frame in frames_of(source)] == [(48, 64, 3)] * 5


def test_reads_metadata_that_is_not_utf8(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.avi", regular(3), "mpeg4", metadata={"title": "Fete XXX"}, time_base=None)
    path.write_bytes(path.read_bytes().replace(b"Fete XXX", b"F\xeate XXX"))
    assert len(times_of(path)) == 3


@pytest.mark.parametrize("name", ["clip.png", "clip.JPG", "clip.tiff"])
def test_plays_a_video_with_the_suffix_of_an_image(tmp_path: Path, name: str) -> None:
    with open_source(str(encode(tmp_path / name, regular(4), container="mp4"))) as source:
        assert (source.kind, len(frames_of(source))) == ("file", 4)


@pytest.mark.parametrize(
    ("name", "format"), [("photo.mp4", "JPEG"), ("photo", "PNG"), ("photo.avi", "TIFF"), ("photo.mov", "AVIF")]
)
def test_shows_an_image_with_the_suffix_of_a_video(tmp_path: Path, name: str, format: str) -> None:
    Image.new("RGB", (64, 48), (200, 60, 30)).save(tmp_path / name, format)
    with open_source(str(tmp_path / name)) as source:
        assert source.kind == "images"
        (frame,) = frames_of(source)
    np.testing.assert_allclose(frame.image.mean(axis=(0, 1)), (200, 60, 30), atol=2)


def test_pyav_is_imported_for_videos_only() -> None:
    code = (
        "import sys\nfrom demos.live.sources.factory import open_source\n"
        "with open_source('synthetic') as source: assert 'av' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[4])


@pytest.mark.skipif(sys.platform != "linux", reason="the conflict is between libraries of X11")
def test_pyav_does_not_break_opencvs_window() -> None:
    """The window hangs if libraries of X11 come from PyAV's wheel."""
    code = (
        "from demos.live.sources.opencv import pyav\npyav()\n"
        "assert not [line for line in open('/proc/self/maps') if 'av.libs/libxcb-sh' in line]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[4])


def test_names_the_command_that_installs_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "clip.mp4", regular(3))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BackendUnavailable, match=r"pip install '\.\[demos\]'"):
        open_source(str(path))


@pytest.mark.parametrize("suffix", ["mkv", "avi", "mjpeg"])
@pytest.mark.parametrize("filler", [b"\0", b"\x55", b"\xff"])
def test_skips_and_counts_mjpeg_frames_that_are_cut_in_half(tmp_path: Path, suffix: str, filler: bytes) -> None:
    path = encode(tmp_path / f"clip.{suffix}", regular(25), "mjpeg", pixel_format="yuvj420p", noise=True, rate=25,
                  time_base=Fraction(1, 25))  # fmt: skip
    content = bytearray(path.read_bytes())
    for position, size in packets(path)[2::5]:
        content[position + size // 2 : position + size] = filler * (size - size // 2)
    path.write_bytes(content)
    with open_source(str(path)) as source:
        assert len(frames_of(source)) == 20
        assert source.note == f"{path}: 5 of 25 frames are damaged or missing"
