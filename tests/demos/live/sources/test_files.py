"""Videos and images: every frame is read in order, and every error is one line."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from demos.live.sources import base, files
from demos.live.sources.base import Source
from demos.live.sources.factory import open_source
from demos.live.sources.opencv import opencv
from simplenet.errors import SimpleNetWarning, SourceError
from tests.demos.conftest import WriteVideo, shades
from tests.demos.live.sources.scripted_camera import ScriptedCamera, brightness, next_frame, video_of


def all_frames(source: Source) -> list[float]:
    seen = []
    while (frame := next_frame(source)) is not None:
        seen.append(float(frame.image[..., 0].mean()))
    return seen


def save_image(path: Path, red: int) -> None:
    Image.new("RGB", (32, 24), (red, 0, 0)).save(path)


def test_slow_reader_gets_every_frame_of_a_video_in_rgb(write_video: WriteVideo) -> None:
    path = write_video("clip.avi", shades(40))
    with open_source(str(path)) as source:
        assert (source.kind, source.is_live, source.state, source.frame_rate) == ("file", False, "running", 30)
        seen = []
        for index in range(40):
            seen.append(brightness(source))
            if index == 5:
                time.sleep(0.05)
        assert next_frame(source) is None
        assert source.state == "ended"
        assert next_frame(source) is None
    np.testing.assert_allclose(seen, 5 * np.arange(40), atol=4)
    assert source.dropped == 0
    assert source.note is None


def test_loop_restarts_a_video_without_dropping_frames(write_video: WriteVideo) -> None:
    path = write_video("clip.avi", shades(7))
    with open_source(str(path), loop=True) as source:
        seen = [brightness(source) for _ in range(17)]
        assert source.state == "running"
    np.testing.assert_allclose(seen, 5 * (np.arange(17) % 7), atol=4)
    assert next_frame(source) is None


def test_looping_video_fails_when_its_file_is_deleted(write_video: WriteVideo) -> None:
    path = write_video("clip.avi", shades(3))
    with open_source(str(path), loop=True) as source:
        for _ in range(3):
            next_frame(source)
        path.unlink()
        for _ in range(2):  # the error is repeated
            with pytest.raises(SourceError, match="not a video"):
                next_frame(source)
        assert source.state == "failed"
        assert "not a video" in str(source.note)


def test_paced_video_waits_for_frames_and_drops_none(write_video: WriteVideo) -> None:
    path = write_video("clip.avi", shades(6))
    with open_source(str(path), pace=True) as source:
        start_s = time.perf_counter()
        assert next_frame(source) is not None
        assert source.poll() is None  # not due yet
        assert next_frame(source, 0.001) is None  # nor so soon
        assert source.state == "running"
        seen = all_frames(source)
        assert time.perf_counter() - start_s >= 5 / 30 - 0.001  # it may be slower, never faster
    np.testing.assert_allclose(seen, 5 * np.arange(1, 6), atol=4)


def test_truncated_video_notes_missing_frames(write_video: WriteVideo) -> None:
    path = write_video("clip.avi", shades(40))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with open_source(str(path)) as source:
        count = len(all_frames(source))
    assert 5 <= count < 40
    assert source.note == f"{path}: {40 - count} of 40 frames are damaged or missing"


def test_skips_a_damaged_frame_of_a_video(write_video: WriteVideo) -> None:
    path = write_video("clip.avi", shades(40))
    content = bytearray(path.read_bytes())
    starts = [at for at in range(len(content)) if content[at : at + 3] == b"\xff\xd8\xff"]  # of JPEG images
    content[starts[10] : starts[10] + 400] = bytes(400)
    path.write_bytes(content)
    with open_source(str(path)) as source:
        seen = all_frames(source)
    assert len(seen) >= 38
    assert seen[-1] == pytest.approx(5 * 39, abs=4)


def test_folder_is_sorted_and_skips_unreadable_images(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        save_image(tmp_path / f"{number}.png", 50 * number)
    (tmp_path / "1b.jpg").write_bytes(b"not an image")
    (tmp_path / "2b.png").touch()
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.warns(SimpleNetWarning, match="not used: 1 .txt"):
        source = open_source(str(tmp_path))
    with source:
        assert (source.kind, source.is_live, source.frame_rate) == ("images", False, None)
        assert all_frames(source) == [50, 100, 150]
        assert source.state == "ended"
    assert source.note == "2 of 5 images cannot be read: 1b.jpg, 2b.png"


def test_single_image_is_one_frame_unless_looped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "one.png", 90)
    with open_source(str(tmp_path / "one.png")) as source:
        assert all_frames(source) == [90]
        assert source.state == "ended"
    monkeypatch.setattr(files, "IMAGES_PER_SECOND", 50.0)
    with open_source(str(tmp_path / "one.png"), loop=True) as source:
        assert brightness(source) == 90
        assert source.poll() is None  # paced
        assert [brightness(source) for _ in range(4)] == [90] * 4
        assert source.state == "running"


@pytest.mark.parametrize("loop", [False, True])
def test_folder_without_readable_images_fails(tmp_path: Path, loop: bool) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"junk")
    with open_source(str(tmp_path), loop=loop) as source:
        with pytest.raises(SourceError, match="none of the 3 images") as caught:
            next_frame(source)
        assert source.state == "failed"
    assert "\n" not in str(caught.value)


def test_looping_folder_fails_when_its_images_are_deleted(tmp_path: Path) -> None:
    for number in range(2):
        save_image(tmp_path / f"{number}.png", 40)
    with open_source(str(tmp_path), loop=True) as source:
        assert [brightness(source) for _ in range(5)] == [40] * 5
        for path in tmp_path.iterdir():
            path.unlink()
        with pytest.raises(SourceError, match="none of the 2 images"):
            next_frame(source)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(min_size=1, max_size=400),
    kind=st.sampled_from([b"", b"RIFF\0\0\1\0AVI LIST", b"\0\0\0 ftypisom"]),
)
def test_random_bytes_raise_source_error(tmp_path: Path, content: bytes, kind: bytes) -> None:
    path = tmp_path / "clip.avi"
    path.write_bytes(kind + content)
    with pytest.raises(SourceError), open_source(str(path)) as source:
        next_frame(source)


def test_rejects_huge_frames_before_decoding(write_video: WriteVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video("clip.avi", shades(2, width=640, height=480))
    monkeypatch.setattr(base, "MAX_FRAME_MEGAPIXELS", 0.3)
    with pytest.raises(SourceError, match=r"640x480, over 0\.3 megapixels"):
        open_source(str(path))


def test_rejects_a_frame_that_becomes_too_large() -> None:
    camera = ScriptedCamera()
    camera.frames.put(np.zeros((5, 7, 3), np.uint8))
    camera.frames.put(np.zeros((10_000, 10_000, 3), np.uint8))
    with video_of(camera) as source:
        assert next_frame(source) is not None
        with pytest.raises(SourceError, match="10000x10000, over 50 megapixels"):
            next_frame(source)


@pytest.mark.parametrize(
    ("pixels", "rgb"),
    [
        (np.full((4, 6), 7, np.uint8), (7, 7, 7)),
        (np.full((4, 6, 1), 7, np.uint8), (7, 7, 7)),
        (np.full((4, 6), 257 * 9, np.uint16), (9, 9, 9)),
        (np.full((4, 6, 4), (1, 2, 3, 200), np.uint8), (3, 2, 1)),
        (np.full((4, 6, 3), 1.0, np.float32), None),
        (np.full((4, 6, 2), 1, np.uint8), None),
        (np.full((4, 6, 3), 1, np.uint16), None),
        (np.full(24, 1, np.uint8), None),
    ],
    ids=lambda value: f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else "",
)
def test_converts_gray_and_four_channels_rejects_others(
    pixels: npt.NDArray[np.uint8], rgb: tuple[int, int, int] | None
) -> None:
    camera = ScriptedCamera()
    camera.frames.put(pixels)
    with video_of(camera) as source:
        if rgb is None:
            with pytest.raises(SourceError, match="not 8-bit color or gray"):
                next_frame(source)
            return
        frame = next_frame(source)
    assert frame is not None
    assert frame.image.shape == (4, 6, 3)
    assert (frame.image == rgb).all()


def test_close_waits_for_a_running_read() -> None:
    camera = ScriptedCamera()
    source = video_of(camera)
    reader, closer = threading.Thread(target=source.poll), threading.Thread(target=source.close)
    reader.start()
    camera.wait_for_reads(1)
    closer.start()
    closer.join(0.1)
    assert camera.releases == 0
    camera.show(10)
    reader.join()
    closer.join()
    assert camera.releases == 1


def test_opencv_error_becomes_one_line() -> None:
    camera = ScriptedCamera()
    camera.frames.put(opencv().error("bad\nsector"))
    with (
        video_of(camera) as source,
        pytest.raises(SourceError, match=r"^clip cannot be decoded: bad sector$"),
    ):
        next_frame(source)
    assert camera.releases == 1


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animation_is_a_sequence_at_its_own_times(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 24), (50 * number, 0, 0)) for number in range(1, 4)]
    options = {"lossless": True} if suffix == ".webp" else {}
    path = tmp_path / f"a{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[30, 120, 50], **options)
    with open_source(str(path)) as source:
        assert (source.kind, source.is_live) == ("images", False)
        received = [next_frame(source) for _ in range(4)]
    assert [frame and frame.image[0, 0, 0] for frame in received] == [50, 100, 150, None]
    assert [frame.media_s for frame in received if frame] == pytest.approx([0, 0.03, 0.15])
    with open_source(str(path), loop=True, pace=True) as source:
        start_s = time.perf_counter()
        times = [frame.media_s for _ in range(5) if (frame := next_frame(source))]
        assert time.perf_counter() - start_s >= 0.229  # it may be slower, never faster
    assert times == pytest.approx([0, 0.03, 0.15, 0.2, 0.23])


def test_animation_among_other_images_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 24), (red, 0, 0)) for red in (70, 80)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=20)
    save_image(tmp_path / "b.png", 90)
    with open_source(str(tmp_path)) as source:
        assert all_frames(source) == [70, 90]


def test_animation_damaged_after_its_first_frame_says_why(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 24), (red, 0, 0)) for red in (70, 80)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=20, lossless=True)
    content = bytearray((tmp_path / "a.webp").read_bytes())
    last = content.rindex(b"VP8L")
    content[last + 9 : last + 14] = bytes(5)
    (tmp_path / "a.webp").write_bytes(content)
    with open_source(str(tmp_path / "a.webp")) as source:
        assert all_frames(source) == [70]
        assert source.state == "ended"
    assert "a.webp: damaged" in str(source.note)


def test_heic_that_cannot_be_read_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(2000))
    with open_source(str(tmp_path / "a.heic")) as source, pytest.raises(SourceError, match=r"HEIC image|damaged image"):
        next_frame(source)
