"""Recordings are read back: they play in real time, in the size of the first image, complete or not at all."""

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

from demos.live.sources.opencv import opencv
from demos.live.window import recorder
from demos.live.window.recorder import Recorder, save_snapshot
from simplenet.errors import SimpleNetError, UsageError
from tests.demos.conftest import ROOT
from tests.demos.live.scenes import UInt8Array, gray

SUFFIXES = (".mp4", ".avi")


def read(path: Path) -> tuple[list[UInt8Array], float]:
    """The frames of a video, RGB, and its frames per second."""
    cv2, frames = opencv(), []
    capture = cv2.VideoCapture(str(path))
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    while (found := capture.read())[0]:
        frames.append(cv2.cvtColor(found[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return frames, rate


def shades(path: Path) -> list[int]:
    return [round(float(frame.mean()) / 10) * 10 for frame in read(path)[0]]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_recording_keeps_colors_size_and_time(tmp_path: Path, suffix: str) -> None:
    image = gray(64, 48, 0)
    image[..., 0], image[..., 2] = 200, 40
    with Recorder(tmp_path / f"clip{suffix}", 25) as clip:
        for place in range(50):
            clip.write(image, 7 + place / 25)
        assert clip.seconds == 2
    frames, rate = read(tmp_path / f"clip{suffix}")
    assert (len(frames), rate, clip.frames, clip.path) == (50, 25, 50, tmp_path / f"clip{suffix}")
    assert all(frame.shape == (48, 64, 3) for frame in frames)
    np.testing.assert_allclose(np.mean(frames, axis=(0, 1, 2)), (200, 0, 40), atol=6)
    assert list(tmp_path.iterdir()) == [clip.path]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rate", [1, 7.123, 23.976, 29.98765, 59.94, 119.88])
def test_writes_any_frame_rate(tmp_path: Path, suffix: str, rate: float) -> None:
    with Recorder(tmp_path / f"clip{suffix}", rate) as clip:
        for place in range(8):
            clip.write(gray(32, 32), place / rate)
    frames, written = read(clip.path)
    assert len(frames) == 8
    assert written == pytest.approx(clip.frame_rate, abs=0.01)
    assert written == pytest.approx(rate, rel=0.002)


@pytest.mark.parametrize(("rate", "used"), [(0, 1), (-5, 1), (4000, 120), (float("nan"), 1), (float("inf"), 120)])
def test_limits_impossible_frame_rates(tmp_path: Path, rate: float, used: float) -> None:
    with Recorder(tmp_path / "clip.avi", rate) as clip:
        clip.write(gray(32, 32), 0)
    assert clip.frame_rate == used
    assert len(read(clip.path)[0]) == 1


@settings(max_examples=40)
@given(
    pauses_s=st.lists(st.floats(0, 0.5), min_size=1, max_size=30),
    rate=st.sampled_from([5.0, 15.0, 29.97, 60.0]),
    start_s=st.floats(0, 1e6),
)
def test_unsteady_images_play_in_real_time(
    tmp_path_factory: pytest.TempPathFactory, pauses_s: list[float], rate: float, start_s: float
) -> None:
    path = tmp_path_factory.mktemp("clips") / "clip.avi"
    with Recorder(path, rate) as clip:
        clip.write(gray(16, 16), start_s)
        for elapsed_s in np.cumsum(pauses_s):
            clip.write(gray(16, 16), start_s + float(elapsed_s))
    frames, written = read(clip.path)
    assert len(frames) == clip.frames
    assert (len(frames) - 1) / written == pytest.approx(sum(pauses_s), abs=1.01 / rate + 0.01)


def test_repeats_and_skips_images(tmp_path: Path) -> None:
    with Recorder(tmp_path / "clip.avi", 10) as clip:
        for shade, captured_s in ((50, 0), (100, 0.3), (150, 0.32), (200, 0.4), (250, 0.55)):
            clip.write(gray(64, 48, shade), captured_s)
    assert shades(clip.path) == [50, 50, 50, 100, 200, 200, 250]


@pytest.mark.parametrize(("rate", "images", "written"), [(240, 480, 240), (0.5, 3, 5), (10, 40, 120)])
def test_plays_in_real_time_at_another_rate(tmp_path: Path, rate: float, images: int, written: int) -> None:
    with Recorder(tmp_path / "clip.avi", {240: 120, 0.5: 1, 10: 30}[rate]) as clip:
        for number in range(images):
            clip.write(gray(16, 16), number / rate)
    assert clip.frames == pytest.approx(written, abs=3)
    assert len(read(clip.path)[0]) == clip.frames


def test_shortens_long_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "LONGEST_GAP_S", 2.0)
    with Recorder(tmp_path / "clip.avi", 5) as clip:
        for captured_s in (0, 0.2, 30_000, 30_000.2, 30_000.4):
            clip.write(gray(16, 16), captured_s)
    assert clip.frames == 1 + 1 + 11 + 2


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [(64, 48), (63, 47), (64, 47), (1, 1), (2, 901), (28, 28)])
def test_cuts_odd_sides_without_resizing(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    with Recorder(tmp_path / f"clip{suffix}", 10) as clip:
        clip.write(gray(*size, 200), 0)
    (frame,), _ = read(clip.path)
    width, height = size
    assert frame.shape == (max(2, height - height % 2), max(2, width - width % 2), 3)
    if min(size) > 20:
        np.testing.assert_allclose(frame[4 : height - 5, 4 : width - 5], 200, atol=12)


def test_fits_other_sizes_into_the_first(tmp_path: Path) -> None:
    with Recorder(tmp_path / "clip.avi", 10) as clip:
        for place, size in enumerate(((160, 120), (320, 120), (60, 120), (1000, 3000))):
            clip.write(gray(*size, 200), place / 10)
    frames, _ = read(clip.path)
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
        with Recorder(tmp_path / "clip.mp4", 10) as clip:
            clip.write(gray(32, 32), 0)
        written.append(clip.path.name)
    assert written == ["clip-3.mp4", "clip-4.mp4"]
    assert (tmp_path / "clip.mp4").read_text() == "mine"
    first = save_snapshot(tmp_path, gray())
    taken = {first, *(save_snapshot(tmp_path, gray()) for _ in range(4))}
    assert len(taken) == 5


def test_leaves_no_file_without_an_image(tmp_path: Path) -> None:
    clip = Recorder(tmp_path / "new" / "clip.mp4", 10)
    clip.close()
    clip.close()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("name", ["clip.mkv", "clip", "clip.mp4.txt", ".mp4"])
def test_rejects_other_suffixes(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"ends in \.mp4 or \.avi$"):
        Recorder(tmp_path / name, 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["12:30.mp4", "file:clip.avi", "cam:1/clip.mp4", "%03d.avi"])
def test_file_names_are_never_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with Recorder(name, 10) as clip:
        clip.write(gray(), 0)
    assert len(read(tmp_path / name)[0]) == 1
    assert [path.name for path in tmp_path.rglob("*.*")] == [Path(name).name]


def test_rejects_names_that_are_not_unicode(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Unicode; choose another name"):
        Recorder(tmp_path / "clip\udcff.avi", 10)
    assert list(tmp_path.iterdir()) == []


def test_rejects_unwritable_folders_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/nowhere"), tmp_path / "nul\0"):
        with pytest.raises(SimpleNetError, match="choose a folder you can write to") as caught:
            Recorder(folder / "clip.mp4", 10)
        assert "\n" not in str(caught.value)
        with pytest.raises(SimpleNetError, match="choose a folder you can write to"):
            save_snapshot(folder, gray())


def test_full_disk_keeps_the_recording_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Recorder(tmp_path / "clip.mp4", 10)
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
    clip = Recorder(tmp_path / "clip.mp4", 10)
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
    with Recorder(path, 30) as clip:
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


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rejects_a_truncated_recording(tmp_path: Path, suffix: str) -> None:
    with record_in_a_process(tmp_path / f"clip{suffix}", limit=1_000_000) as process:
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "refused:" in out
    assert "could not be written completely" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_kill_leaves_no_final_file_and_ctrl_c_a_complete_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
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


def test_snapshot_is_the_image_named_by_its_time(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    path = save_snapshot(tmp_path / "new" / "folder", image)
    cv2 = opencv()
    assert np.array_equal(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), image)
    stem, day, clock = path.stem.split("-")
    assert (stem, len(day), len(clock), path.suffix) == ("simplenet", 8, 6, ".png")
    assert list(path.parent.iterdir()) == [path]


def test_snapshot_on_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SimpleNetError, match="No space left on device"):
        save_snapshot(tmp_path, gray())
    assert list(tmp_path.iterdir()) == []


def test_snapshot_keeps_a_reserve_of_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 60, 40))
    with pytest.raises(SimpleNetError, match="the disk is nearly full"):
        save_snapshot(tmp_path, gray())
    assert list(tmp_path.iterdir()) == []
