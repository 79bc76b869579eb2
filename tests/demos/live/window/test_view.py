"""Keys become commands; each result is drawn once, for window, recording and snapshots."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

from demos import webcam
from demos.live.result import FrameResult
from demos.live.sources.base import LiveSource
from demos.live.sources.opencv import opencv
from demos.live.window.display import Display
from demos.live.window.view import Screen
from tests.demos.conftest import WriteVideo, shades
from tests.demos.live.conftest import MakeSession


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
    capture = cv2.VideoCapture(str(clip))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    assert count == 10
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
    cv2 = opencv()
    capture = cv2.VideoCapture(str(clip))
    rate, frames = capture.get(cv2.CAP_PROP_FPS), []
    while (read := capture.read())[0]:
        frames.append(read[1].astype(int))
    capture.release()
    still = sum(abs(after - before).mean() < 0.5 for before, after in itertools.pairwise(frames))
    assert still >= 0.6 * rate  # of the frames that a second has


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
    assert str(screen.recording_error) == notice
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(("record_fps", "frames"), [(None, 30), (10.0, 10)])
def test_recording_of_a_file_plays_in_real_time(
    make_session: MakeSession, write_video: WriteVideo, tmp_path: Path, record_fps: float | None, frames: int
) -> None:
    session = make_session(str(write_video("clip.avi", shades(30))))
    screen = Screen(session, Display(), tmp_path, tmp_path / "out.mp4", record_fps)
    webcam.run(session, screen)
    screen.stop_recording()
    capture = opencv().VideoCapture(str(tmp_path / "out.mp4"))
    assert capture.get(opencv().CAP_PROP_FPS) == pytest.approx(record_fps or 30)
    assert capture.get(opencv().CAP_PROP_FRAME_COUNT) == pytest.approx(frames, abs=1)
    capture.release()


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
    capture = opencv().VideoCapture(str(tmp_path / "out.mp4"))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    assert count == 12


def test_draws_nothing_without_display_or_recording(
    make_session: MakeSession, write_video: WriteVideo, tmp_path: Path
) -> None:
    session = make_session(str(write_video("clip.avi", shades(5))))
    screen = Screen(session, Display(), tmp_path)
    assert not screen.draws
    assert webcam.run(session, screen) == "end of file"
    assert "draw" not in session.summary("end of file").stages
