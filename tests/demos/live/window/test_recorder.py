"""Recordings are read back: every image at its own time, in the size of the first, complete or not at all."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.live.sources.opencv import pyav
from demos.live.window.recorder import Recorder
from simplenet.errors import SimpleNetError, UsageError
from tests.demos.conftest import ROOT
from tests.demos.live.scenes import gray
from tests.demos.live.window.videos import read

ENCODERS = ("libx264", "mpeg4")
TICK_S = 1 / 60_000


def shades(path: Path) -> list[int]:
    return [round(float(frame.mean()) / 10) * 10 for frame in read(path)[0]]


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Recordings use this encoder: a build of PyAV may have no x264."""
    name = str(request.param)
    monkeypatch.setattr(pyav(), "codecs_available", {name})
    return name


def test_recording_keeps_colors_size_and_time(tmp_path: Path, encoder: str) -> None:
    image = gray(64, 48, 0)
    image[..., 0], image[..., 2] = 200, 40
    with Recorder(tmp_path / "clip.mp4") as clip:
        for place in range(50):
            clip.write(image, 7 + place / 25, duration_s=1 / 25)
        assert clip.seconds == 2
    frames, times, duration_s = read(tmp_path / "clip.mp4")
    assert (clip.frames, clip.path, duration_s) == (50, tmp_path / "clip.mp4", 2)
    assert times == [place / 25 for place in range(50)]
    assert all(frame.shape == (48, 64, 3) for frame in frames)
    np.testing.assert_allclose(np.mean(frames, axis=(0, 1, 2)), (200, 0, 40), atol=6)
    assert list(tmp_path.iterdir()) == [clip.path]
    with pyav().open(str(clip.path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ({"libx264": "h264"}.get(encoder, encoder), "yuv420p")


@pytest.mark.parametrize("height", [480, 720])  # players assume other colors for large videos that name none
def test_recording_names_its_colors(tmp_path: Path, height: int) -> None:
    with Recorder(tmp_path / "clip.mp4") as clip:
        clip.write(gray(64, height), 0)
    with pyav().open(str(clip.path)) as container:
        context = container.streams.video[0].codec_context
        named = context.colorspace, context.color_range, context.color_primaries, context.color_trc
    assert named == (6, 1, 1, 13)  # SMPTE 170M, limited range, BT.709, sRGB: Chromium shows exactly these colors


@pytest.mark.parametrize("rate", [0.5, 1, 7.123, 23.976, 29.97, 59.94, 119.88, 240, 1000])
def test_keeps_the_times_of_any_frame_rate(tmp_path: Path, encoder: str, rate: float) -> None:
    expected = [place / rate for place in range(20)]
    with Recorder(tmp_path / "clip.mp4") as clip:
        for time_s in expected:
            clip.write(gray(32, 32), time_s)
    np.testing.assert_allclose(read(clip.path)[1], expected, rtol=0, atol=TICK_S)


@pytest.mark.parametrize("rate", [24_000 / 1001, 30_000 / 1001, 60, 144])
def test_an_hour_is_not_rounded_frame_by_frame(tmp_path: Path, rate: float) -> None:
    places = [*range(4), *range(round(3600 * rate), round(3600 * rate) + 4)]
    with Recorder(tmp_path / "clip.mp4") as clip:
        for place in places:
            clip.write(gray(32, 32), 1e5 + place / rate)
    np.testing.assert_allclose(read(clip.path)[1], np.array(places) / rate, rtol=0, atol=TICK_S)


@settings(max_examples=40)
@given(pauses_s=st.lists(st.floats(0, 100), min_size=1, max_size=30), start_s=st.floats(0, 1e6))
def test_unsteady_images_keep_their_times(
    tmp_path_factory: pytest.TempPathFactory, pauses_s: list[float], start_s: float
) -> None:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    expected = np.cumsum([0.0, *pauses_s])
    with Recorder(path) as clip:
        for time_s in expected:
            clip.write(gray(16, 16), start_s + float(time_s))
    times = read(clip.path)[1]
    assert len(times) == clip.frames == len(expected)
    assert all(np.diff(times) > 0)
    np.testing.assert_allclose(times, expected, rtol=0, atol=TICK_S * (len(expected) + 1))


def test_keeps_a_long_still_and_the_last_image(tmp_path: Path, encoder: str) -> None:
    with Recorder(tmp_path / "clip.mp4") as clip:
        for shade, time_s in ((50, 0), (100, 0.04), (150, 12.04), (200, 12.08)):
            clip.write(gray(64, 48, shade), time_s, duration_s=21)
    _, times, duration_s = read(clip.path)
    assert (times, duration_s) == ([0, 0.04, 12.04, 12.08], pytest.approx(33.08))
    assert clip.seconds == pytest.approx(33.08)
    assert shades(clip.path) == [50, 100, 150, 200]


def test_images_of_the_same_or_an_earlier_time_follow_at_once(tmp_path: Path, encoder: str) -> None:
    with Recorder(tmp_path / "clip.mp4") as clip:
        for shade, time_s in ((50, 5), (100, 5), (150, 4), (200, 5.5)):
            clip.write(gray(64, 48, shade), time_s)
    np.testing.assert_allclose(read(clip.path)[1], [0, TICK_S, 2 * TICK_S, 0.5])
    assert shades(clip.path) == [50, 100, 150, 200]


def test_shortens_gaps_over_the_longest(tmp_path: Path) -> None:
    with Recorder(tmp_path / "clip.mp4", longest_gap_s=2) as clip:
        for time_s in (0, 2, 30_000, 30_000.2, 30_000.4, 60_000):
            clip.write(gray(16, 16), time_s)
    np.testing.assert_allclose(read(clip.path)[1], [0, 2, 4, 4.2, 4.4, 6.4], atol=TICK_S)


def test_shortens_what_the_file_format_cannot_hold(tmp_path: Path) -> None:
    with Recorder(tmp_path / "clip.mp4") as clip:
        for time_s in (0, 20_000, 1e9):
            clip.write(gray(16, 16), time_s, duration_s=1e12)
    _, times, duration_s = read(clip.path)
    assert (times, duration_s) == ([0, 20_000, 55_000], 90_000)


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (64, 47), (1, 1), (2, 901), (28, 28)])
def test_cuts_odd_sides_without_resizing(tmp_path: Path, size: tuple[int, int]) -> None:
    with Recorder(tmp_path / "clip.mp4") as clip:
        clip.write(gray(*size, 200), 0)
    (frame,), _, _ = read(clip.path)
    width, height = size
    assert frame.shape == (max(2, height - height % 2), max(2, width - width % 2), 3)
    if min(size) > 20:
        np.testing.assert_allclose(frame[4 : height - 5, 4 : width - 5], 200, atol=12)


def test_fits_other_sizes_into_the_first(tmp_path: Path) -> None:
    with Recorder(tmp_path / "clip.mp4") as clip:
        for place, size in enumerate(((160, 120), (320, 120), (60, 120), (1000, 3000))):
            clip.write(gray(*size, 200), place / 10)
    frames, _, _ = read(clip.path)
    lit = [(frame.min(axis=2) > 150) for frame in frames]
    assert [frame.shape for frame in frames] == [(120, 160, 3)] * 4
    sizes = [(int(one.any(axis=0).sum()), int(one.any(axis=1).sum())) for one in lit]
    np.testing.assert_allclose(sizes, [(160, 120), (160, 60), (60, 120), (40, 120)], atol=6)
    assert not lit[1][:20].any()
    assert not lit[1][-20:].any()


def test_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_text("mine")
    (tmp_path / "clip-2.mp4").symlink_to(tmp_path / "nowhere")
    written = []
    for _ in range(2):
        with Recorder(tmp_path / "clip.mp4") as clip:
            clip.write(gray(32, 32), 0)
        written.append(clip.path.name)
    assert written == ["clip-3.mp4", "clip-4.mp4"]
    assert (tmp_path / "clip.mp4").read_text() == "mine"


def test_leaves_no_file_without_an_image(tmp_path: Path) -> None:
    clip = Recorder(tmp_path / "new" / "clip.mp4")
    clip.close()
    clip.close()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("name", ["clip.avi", "clip", "clip.mp4.txt", ".mp4"])
def test_rejects_other_suffixes(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"ends in \.mp4$"):
        Recorder(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["12:30.mp4", "file:clip.mp4", "cam:1/clip.mp4", "%03d.mp4"])
def test_file_names_are_never_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with Recorder(name) as clip:
        clip.write(gray(), 0)
    assert len(read(tmp_path / name)[0]) == 1
    assert [path.name for path in tmp_path.rglob("*.*")] == [Path(name).name]


def test_rejects_names_that_are_not_unicode(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Unicode; choose another name"):
        Recorder(tmp_path / "clip\udcff.mp4")
    assert list(tmp_path.iterdir()) == []


def test_rejects_unwritable_folders_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/nowhere"), tmp_path / "nul\0"):
        with pytest.raises(SimpleNetError, match="choose a folder you can write to") as caught:
            Recorder(folder / "clip.mp4")
        assert "\n" not in str(caught.value)


def test_full_disk_keeps_the_recording_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Recorder(tmp_path / "clip.mp4")
    for place in range(21):
        clip.write(gray(64, 48), place / 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(SimpleNetError, match=r"disk is nearly full; the first 2 s are in .*clip\.mp4") as caught:
        clip.write(gray(64, 48), 2.1)
    assert "\n" not in str(caught.value)
    assert len(read(clip.path)[0]) == 21
    clip.close()
    assert list(tmp_path.iterdir()) == [clip.path]


def test_full_disk_at_the_start_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    clip = Recorder(tmp_path / "clip.mp4")
    with pytest.raises(SimpleNetError, match=r"disk is nearly full; nothing was recorded$"):
        clip.write(gray(64, 48), 0)
    assert list(tmp_path.iterdir()) == []


RECORD = """
import resource, sys, time
import numpy as np
from demos.live.window.recorder import Recorder
from simplenet.errors import SimpleNetError
path, limit = sys.argv[1], int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
noise = np.random.default_rng(0).integers(0, 256, (8, 240, 320, 3), np.uint8)
try:
    with Recorder(path) as clip:
        for place in range(200 if limit else 10**9):
            clip.write(noise[place % 8], place / 30)
            if place == 60:
                print("recording", flush=True)
except SimpleNetError as error:
    print("refused:", error)
"""


def record_in_a_process(path: Path, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RECORD, str(path), str(limit)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def record_with_limit(path: Path, limit: int) -> str:
    with record_in_a_process(path, limit) as process:
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    return out


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_rejects_a_truncated_recording(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    assert "refused" not in record_with_limit(path, 10**9)
    complete = path.stat().st_size
    path.unlink()
    for limit in (100_000, complete // 2, complete - 100):
        assert f"refused: cannot finish {path}: File too large; nothing was recorded" in record_with_limit(path, limit)
        assert list(tmp_path.iterdir()) == []


def test_kill_leaves_no_final_file_and_ctrl_c_a_complete_one(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    for deadly in (signal.SIGKILL, signal.SIGINT):
        with record_in_a_process(path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "recording\n"
            assert not path.exists()
            process.send_signal(deadly)
            process.communicate(timeout=60)
        (left,) = tmp_path.iterdir()
        assert left.name.startswith("clip.unfinished-") if deadly == signal.SIGKILL else left == path
        if deadly == signal.SIGINT:
            assert len(read(path)[0]) > 50
        left.unlink()
