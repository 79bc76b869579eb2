"""The live loop, on files and streams: every way out tells the truth about the frames before it."""

from __future__ import annotations

import http.server
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest

import runtimes
from demos import webcam
from demos.live import display
from demos.live.display import Display, NoDisplay, open_display
from demos.live.file_source import VideoFile
from demos.live.opencv import opencv
from demos.live.source_choice import open_source
from demos.live.stopwatch import Stopwatch
from runtimes import Prediction
from simplenet.artifacts import Artifact
from simplenet.errors import SimpleNetError, SourceError
from tests.demos.conftest import ROOT, RunDemo, WriteVideo, shades


class KeyPresser(Display):
    """A window that nobody sees: keeps what it was shown and presses a key at the last picture."""

    def __init__(self, key: str, at: int) -> None:
        self.key, self.at = key, at
        self.shown: list[npt.NDArray[np.uint8]] = []

    def show(self, image: npt.NDArray[np.uint8]) -> str:
        self.shown.append(image)
        return self.key if len(self.shown) == self.at else ""

    def close(self) -> None:
        pass


def test_every_frame_of_a_file_is_counted_and_the_summary_is_json(
    run_demo: RunDemo, onnx_artifact: Artifact, write_video: WriteVideo
) -> None:
    path = write_video("clip.avi", shades(70))
    flags = ("--source", path, "--display", "none", "--artifact", onnx_artifact.folder, "--threads", 1, "--json")
    result = run_demo("webcam", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    summary = json.loads(result.stdout)
    assert (summary["frames"], summary["dropped"], summary["ended"]) == (70, 0, "end of file")
    assert summary["source"] == str(path)
    assert list(summary["stages"]) == ["capture", "preprocess", "infer", "post"]  # nothing was drawn
    assert all(stage["n"] == 70 and stage["p90_ms"] is not None for stage in summary["stages"].values())
    assert summary["frame_age"] is None
    assert summary["runtime"]["threads"] == 1
    assert summary["loop_fps"] == pytest.approx(70 / summary["seconds"])
    assert summary["model_fps"] == pytest.approx(1e3 / summary["stages"]["infer"]["p50_ms"])


def test_max_frames_ends_it_and_the_table_is_for_people(
    run_demo: RunDemo, onnx_artifact: Artifact, write_video: WriteVideo
) -> None:
    path = write_video("clip.avi", shades(30))
    result = run_demo("webcam", "--source", path, "--max-frames", 12, "--artifact", onnx_artifact.folder)
    assert result.returncode == 0, result.stderr
    assert (
        result.stderr == "no window can be opened here (there is no screen: DISPLAY is not set); running without one\n"
    )
    assert "12 frames in" in result.stdout
    assert "ended by --max-frames" in result.stdout
    assert "a p90 needs 64 frames" in result.stdout
    assert "\x1b" not in result.stdout


def test_the_wrong_source_or_display_is_one_line(
    run_demo: RunDemo, onnx_artifact: Artifact, write_video: WriteVideo, tmp_path: Path
) -> None:
    (tmp_path / "text.avi").write_text("not a video")
    clip = write_video("clip.avi", shades(2))
    for flags, code, complaint in (
        (("--source", tmp_path / "missing.avi"), 1, "no such video"),
        (("--source", tmp_path / "text.avi"), 1, "is not a video"),
        (("--source", "98"), 1, "plug it in"),
        (("--source", "rtsp://cook:p4ss@127.0.0.1:9/"), 1, "rtsp://***@127.0.0.1:9/ cannot be opened"),
        (("--source", clip, "--display", "window"), 1, "use --display none"),
        (("--source", clip, "--display", "windw"), 2, "did you mean 'window'"),
        (("--source", clip, "--max-frames", "0"), 2, "whole number"),
    ):
        result = run_demo("webcam", *flags, "--artifact", onnx_artifact.folder)
        assert result.returncode == code
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("error: ")
        assert complaint in result.stderr
        assert "p4ss" not in result.stderr


@pytest.mark.parametrize(("key", "ended"), [("q", "q"), ("escape", "Esc"), ("x", "end of file")])
def test_a_key_ends_it_and_answers_are_drawn_over_the_picture(
    onnx_artifact: Artifact, write_video: WriteVideo, key: str, ended: str
) -> None:
    path, display, watch = write_video("clip.avi", shades(9, 320, 240)), KeyPresser(key, at=7), Stopwatch()
    with open_source(str(path)) as source, runtimes.load(onnx_artifact, threads=1) as model:
        assert webcam.run(source, model, display, watch) == ended
    expected = 7 if ended != "end of file" else 9
    assert watch.frames == len(display.shown) == expected
    assert watch.summary(ended).stages["draw"].n == expected
    assert all((image.min(axis=2) > 150).sum() > 30 for image in display.shown)  # white letters on a red scene
    assert all((image[:120, :, 1] > 100).any() for image in display.shown)  # and a green bar


def test_the_answers_are_those_for_the_frames(onnx_artifact: Artifact, write_video: WriteVideo) -> None:
    frames = shades(6, 64, 64)
    frames[3:] = 255 - frames[3:]
    path = write_video("clip.avi", frames)
    answers: list[list[Prediction]] = []
    with runtimes.load(onnx_artifact, threads=1) as model:
        with open_source(str(path)) as source:
            webcam.run(source, model, NoDisplay(), Stopwatch(), top=2, on_frame=answers.append)
        expected = []
        with open_source(str(path)) as source:
            while (frame := source.next()) is not None:
                expected += model.classify([frame.image], k=2)
    assert answers == expected
    assert len({answer[0].probability for answer in answers}) > 1


def test_an_error_midway_still_ends_with_a_summary(
    onnx_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Breaking:
        left = 4

        def read(self) -> tuple[bool, npt.NDArray[np.uint8]]:
            self.left -= 1
            if self.left < 0:
                raise opencv().error("bad sector")
            return True, np.zeros((48, 64, 3), np.uint8)

        def release(self) -> None:
            pass

    monkeypatch.setattr(webcam, "open_source", lambda text: VideoFile(text, Breaking(), 10))
    with pytest.raises(SourceError, match="clip cannot be decoded: bad sector"):
        webcam.main(["--source", "clip", "--display", "none", "--artifact", str(onnx_artifact.folder), "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert (summary["frames"], summary["ended"]) == (4, "an error")


@pytest.fixture
def endless_stream() -> Iterator[str]:
    """The address of a stream of about 200 frames a second, for as long as anybody looks."""
    cv2 = opencv()
    jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    part = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode() + jpeg + b"\r\n"
    stop = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                while not stop.wait(0.005):
                    self.wfile.write(part)
            except ConnectionError:
                return

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/live.mjpg"
        stop.set()
        server.shutdown()
        thread.join()


def test_ctrl_c_on_a_live_stream_tells_the_summary_and_exits_130(
    onnx_artifact: Artifact, endless_stream: str, environment: dict[str, str]
) -> None:
    terminal, theirs = os.openpty()
    command = [sys.executable, str(ROOT / "demos" / "webcam.py"), "--source", endless_stream, "--display", "none"]
    command += ["--artifact", str(onnx_artifact.folder), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment) as process:
        os.close(theirs)
        seen: queue.Queue[bytes] = queue.Queue()
        reader = threading.Thread(target=_drain, args=(terminal, seen), daemon=True)
        reader.start()
        text, deadline = b"", time.monotonic() + 60
        while b"live.mjpg: frame" not in text:  # the status line of a running loop, which only a terminal gets
            assert process.poll() is None, text
            text += seen.get(timeout=deadline - time.monotonic())
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=30)
        reader.join(10)
    os.close(terminal)
    assert process.returncode == 130
    summary = json.loads(stdout)
    assert summary["ended"] == "Ctrl-C"
    assert summary["frames"] > 0
    assert summary["frame_age"]["n"] == summary["frames"]
    text += b"".join(seen.queue)
    assert b"interrupted" in text


def _drain(terminal: int, into: queue.Queue[bytes]) -> None:
    try:
        while block := os.read(terminal, 4096):
            into.put(block)
    except OSError:  # the other end is closed
        return


def test_without_a_screen_auto_goes_on_and_window_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for screen, complaint in (("", "DISPLAY is not set"), (":97", "cannot use the screen :97")):
        monkeypatch.setenv("DISPLAY", screen)
        said: list[str] = []
        assert isinstance(open_display("auto", said.append), NoDisplay)
        assert len(said) == 1
        assert complaint in said[0]
        with pytest.raises(SimpleNetError, match="use --display none"):
            open_display("window", said.append)


@pytest.mark.parametrize("visible", [0.0, -1.0, None])
def test_closing_the_window_is_the_key_q(monkeypatch: pytest.MonkeyPatch, visible: float | None) -> None:
    cv2 = SimpleNamespace(**vars(opencv()))
    for name in ("namedWindow", "resizeWindow", "imshow", "destroyAllWindows"):
        setattr(cv2, name, Mock())
    cv2.pollKey = Mock(side_effect=[-1, ord("b"), 27])
    # Qt raises once its last window is gone, others answer 0 or -1.
    gone = cv2.error("NULL guiReceiver") if visible is None else visible
    cv2.getWindowProperty = Mock(side_effect=[1.0, 1.0, gone])
    monkeypatch.setattr(display, "opencv", lambda: cv2)
    picture = np.zeros((8, 8, 3), np.uint8)
    with display.Window() as window:
        assert [window.show(picture) for _ in range(4)] == ["", "b", "escape", "q"]
    assert cv2.imshow.call_count == 3  # a closed window is not opened again
    cv2.destroyAllWindows.assert_not_called()
