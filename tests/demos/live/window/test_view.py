"""Keys become commands; each result is drawn once, for window, recording and snapshots."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

from demos import webcam
from demos.live.result import FrameResult
from demos.live.sources.base import Frame, LiveSource, Source, SourceKind
from demos.live.sources.opencv import opencv
from demos.live.window.display import Display
from demos.live.window.view import Screen
from tests.demos.conftest import WriteVideo, shades
from tests.demos.live.conftest import MakeSession, Recorded
from tests.demos.live.scenes import gray
from tests.demos.live.window.videos import read


class ScriptedDisplay(Display):
    """A display for tests: keeps the shown images and presses keys at certain ones."""

    shows_images = True

    def __init__(self, keys: dict[int, str]) -> None:
        self.keys = keys
        self.shown: list[npt.NDArray[np.uint8]] = []

    def show(self, image: npt.NDArray[np.uint8]) -> str:
        self.shown.append(image.copy())  # the next image is drawn on the same array
        return self.keys.get(len(self.shown), "")


@pytest.mark.parametrize(("key", "ended"), [("q", "q"), ("escape", "Esc"), ("x", "end of file")])
def test_keys_quit_and_each_frame_is_drawn(
    make_session: MakeSession, write_video: WriteVideo, tmp_path: Path, key: str, ended: str
) -> None:
    session, window = make_session(str(write_video("clip.avi", shades(9, 640, 480)))), ScriptedDisplay({7: key})
    assert webcam.run(session, Screen(session, window, tmp_path)) == ended
    expected = 7 if ended != "end of file" else 9
    assert session.timer.frames == expected
    assert session.summary(ended).stages["draw"].n == expected
    assert all((image.min(axis=2) > 150).sum() > 30 for image in window.shown)  # white letters on a red scene


def test_keys_save_a_snapshot_and_record(make_session: MakeSession, write_video: WriteVideo, tmp_path: Path) -> None:
    session = make_session(str(write_video("clip.avi", shades(30, 320, 240))))
    window = ScriptedDisplay({3: "s", 5: "r", 15: "r"})
    assert webcam.run(session, Screen(session, window, tmp_path / "out")) == "end of file"
    (snapshot,), (clip,) = (tmp_path / "out").glob("*.png"), (tmp_path / "out").glob("*.mp4")
    cv2 = opencv()
    saved = cv2.cvtColor(cv2.imread(str(snapshot)), cv2.COLOR_BGR2RGB)
    assert any(np.array_equal(saved, image) for image in window.shown[2:5])
    assert len(read(clip)[1]) == 10
    events = dict(session.events)
    assert events["snapshot"] == {"path": str(snapshot)}
    assert events["recording"] == {"path": str(clip)}


def test_space_pauses_and_the_image_stays(make_session: MakeSession, tmp_path: Path) -> None:
    session = make_session("synthetic:640x480@30")
    window = ScriptedDisplay({3: "space", 6: "space", 9: "q"})  # images 4 to 6 are drawn in the pause
    assert webcam.run(session, Screen(session, window, tmp_path)) == "q"
    assert [name for name, _ in session.events if name in ("paused", "resumed")] == ["paused", "resumed"]
    assert session.timer.frames < 9
    paused = window.shown[3]
    assert not np.array_equal(paused, window.shown[2])
    assert (paused != window.shown[2]).any(axis=2).mean() < 0.2  # the same scene, but for the banner


def test_records_pauses(make_session: MakeSession, tmp_path: Path) -> None:
    session = make_session("synthetic:640x480@30")
    window = ScriptedDisplay({2: "r", 5: "space", 15: "space", 20: "r", 21: "q"})  # 10 images of a pause, one second
    assert webcam.run(session, Screen(session, window, tmp_path)) == "q"
    (clip,) = tmp_path.glob("*.mp4")
    frames, times, _ = read(clip)
    pairs = zip(itertools.pairwise(frames), np.diff(times), strict=True)
    still_s = sum(step for (before, after), step in pairs if abs(after.astype(int) - before).mean() < 0.5)
    assert still_s >= 0.8


def test_failed_recording_does_not_end_the_demo(
    make_session: MakeSession, write_video: WriteVideo, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    session = make_session(str(write_video("clip.avi", shades(8))))
    screen = Screen(session, ScriptedDisplay({2: "r", 4: "s"}), tmp_path / "file")
    assert webcam.run(session, screen) == "end of file"
    notices = [facts["text"] for name, facts in session.events if name == "notice"]
    assert len(notices) == 2
    assert all(str(tmp_path / "file") in notice and "\n" not in notice for notice in notices)


def test_full_disk_is_the_recording_error(
    make_session: MakeSession, write_video: WriteVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(str(write_video("clip.avi", shades(8))))
    screen = Screen(session, Display(), tmp_path, record_to=tmp_path / "out.mp4")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert webcam.run(session, screen) == "end of file"
    (notice,) = [facts["text"] for name, facts in session.events if name == "notice"]
    assert notice.endswith("the disk is nearly full; nothing was recorded")
    assert notice == f"error: the recording is incomplete: {screen.recording_error}"
    assert not (tmp_path / "out.mp4").exists()


MakeFileSession = Callable[..., Recorded]


class ScriptedFile(Source):
    """A file whose frames have these times, as fast as they are read; `kind` "camera" makes it live."""

    def __init__(self, times_s: Sequence[float], *, last_s: float | None = None, kind: SourceKind = "file") -> None:
        super().__init__("clip", kind)
        self.is_live, self.frame_rate = kind == "camera", 30
        durations = [None] * (len(times_s) - 1) + [last_s]
        images = [gray(64, 48, 10 * (place % 25)) for place in range(len(times_s))]
        frames = zip(images, times_s, durations, strict=True)
        self._frames = [
            Frame(image, time_s) if self.is_live else Frame(image, 0.0, time_s, duration_s)
            for image, time_s, duration_s in frames
        ]

    def poll(self) -> Frame | None:
        frame = self._frames.pop(0)
        self.state = "running" if self._frames else "ended"
        return frame

    def ready_at_s(self) -> float:
        return 0.0 if self._frames else math.inf

    def close(self) -> None:
        self._frames.clear()


@pytest.fixture
def session_of(make_session: MakeSession) -> MakeFileSession:
    """`session_of(source, ...)`: a session of these sources."""

    def make(*sources: Source) -> Recorded:
        session = make_session("synthetic")
        session.scheduler.remove(session.scheduler.sources[0])
        for source in sources:
            session.scheduler.add(source)
        return session

    return make


def record(session: Recorded, path: Path, display: Display | None = None) -> tuple[list[float], float]:
    """Record the whole session; returns the times of the recording's frames, and its duration."""
    screen = Screen(session, display or Display(), path.parent, path)
    webcam.run(session, screen)
    screen.stop_recording()
    assert screen.recording_error is None
    return read(path)[1:]


@pytest.mark.parametrize(
    "times_s",
    [
        [place / 29.97 for place in range(30)],
        [place / 240 for place in range(60)],
        [0, 0.1, 12.1, 12.2, 33.2],  # stills of a screen recording
        [*np.arange(10) / 60, *(9 + np.arange(10) / 25), 3600],
        [0, 0.04, 0.08, 0.5, 0.54, 0.58],  # read twice, with a last frame of 0.42 s
    ],
    ids=["29.97 fps", "240 fps", "stills", "mixed rates", "loop"],
)
def test_recording_has_every_frame_of_a_file_at_its_time(
    session_of: MakeFileSession, tmp_path: Path, times_s: list[float]
) -> None:
    times, duration_s = record(session_of(ScriptedFile(times_s, last_s=2.5)), tmp_path / "out.mp4")
    np.testing.assert_allclose(times, times_s, atol=1 / 60_000)
    assert duration_s == pytest.approx(times_s[-1] + 2.5, abs=0.001)


def test_last_frame_without_a_duration_lasts_one_period(session_of: MakeFileSession, tmp_path: Path) -> None:
    _, duration_s = record(session_of(ScriptedFile([0, 20])), tmp_path / "out.mp4")
    assert duration_s == pytest.approx(20 + 1 / 30, abs=0.001)


@pytest.mark.parametrize("first_s", [0.0, 65.0])
def test_pausing_a_file_leaves_no_gap_in_its_recording(
    session_of: MakeFileSession, tmp_path: Path, first_s: float
) -> None:
    window = ScriptedDisplay({2: "r", 5: "space", 8: "space", 15: "r"})  # images 6 to 8 are drawn in the pause
    session = session_of(ScriptedFile([first_s + place / 25 for place in range(20)]))
    webcam.run(session, Screen(session, window, tmp_path))
    (clip,) = tmp_path.glob("*.mp4")
    np.testing.assert_allclose(read(clip)[1], np.arange(10) / 25, atol=1 / 60_000)


@pytest.mark.parametrize(
    ("others_s", "end_s"),
    [
        ([place / 25 for place in range(20)], 0.76),  # the same times
        ([place / 25 + 0.01 for place in range(20)], 0.77),
        ([place / 5 for place in range(10)], 2.16),  # at 1.8 s the first has 10 frames left
    ],
)
def test_several_files_keep_their_pace_in_one_recording(
    session_of: MakeFileSession, tmp_path: Path, others_s: list[float], end_s: float
) -> None:
    files = ScriptedFile([place / 25 for place in range(20)]), ScriptedFile(others_s)
    times, _ = record(session_of(*files), tmp_path / "out.mp4")
    assert len(times) == 20 + len(others_s)
    assert times[-1] == pytest.approx(end_s, abs=0.001)


def test_recording_of_a_camera_shortens_gaps(session_of: MakeFileSession, tmp_path: Path) -> None:
    camera = ScriptedFile([1000, 1000.1, 1000.3, 9000, 9000.1], kind="camera")
    times, _ = record(session_of(camera), tmp_path / "out.mp4")
    np.testing.assert_allclose(times, [0, 0.1, 0.3, 1.3, 1.4], atol=0.001)


def test_tiny_sources_are_enlarged_in_snapshots_and_recordings(session_of: MakeFileSession, tmp_path: Path) -> None:
    session, window = session_of(ScriptedFile([0, 1, 2])), ScriptedDisplay({1: "s"})
    record(session, tmp_path / "out.mp4", window)
    (snapshot,), cv2 = tmp_path.glob("*.png"), opencv()
    saved = cv2.cvtColor(cv2.imread(str(snapshot)), cv2.COLOR_BGR2RGB)
    assert any(np.array_equal(saved, image) for image in window.shown)
    assert saved.shape[1] > 640
    assert (saved[:480, :640] == saved[240, 320]).all(axis=2).mean() > 0.8  # 64x48 pixels fill 640x480


def test_visitors_are_not_recorded(make_session: MakeSession, write_video: WriteVideo, tmp_path: Path) -> None:
    session = make_session(str(write_video("clip.avi", shades(12))))
    seen = 0

    def visit(update: FrameResult) -> None:
        nonlocal seen
        seen += 1
        if seen == 4:
            session.scheduler.add(visitor)
        elif seen == 10:
            session.scheduler.remove(visitor)

    visitor = LiveSource("visitor 1", "visitor")
    session.subscribe(visit)
    screen = Screen(session, Display(), tmp_path, record_to=tmp_path / "out.mp4")
    assert webcam.run(session, screen) == "end of file"
    screen.stop_recording()
    assert len(read(tmp_path / "out.mp4")[1]) == 12


def test_draws_nothing_without_display_or_recording(
    make_session: MakeSession, write_video: WriteVideo, tmp_path: Path
) -> None:
    session = make_session(str(write_video("clip.avi", shades(5))))
    screen = Screen(session, Display(), tmp_path)
    assert not screen.draws
    assert webcam.run(session, screen) == "end of file"
    assert "draw" not in session.summary("end of file").stages
