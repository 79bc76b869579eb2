"""The live demo on files, streams and a generated scene, and every way in which it ends."""

from __future__ import annotations

import itertools
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import runtimes
from demos import webcam
from demos.live.sources.factory import open_source
from demos.live.window.recorder import Recorder
from simplenet.artifacts import Artifact
from tests.conftest import MakeArtifact
from tests.demos.conftest import ROOT, RunDemo, WriteVideo, shades
from tests.demos.live.sources import network_camera
from tests.demos.live.sources.scripted_camera import next_frame
from tests.demos.live.window.videos import read


def events_of(stdout: str) -> list[dict[str, Any]]:
    """Every line is JSON and has a name and a time that never decreases."""
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert all(before["time_s"] <= after["time_s"] for before, after in itertools.pairwise(lines))
    return lines


def test_every_frame_of_a_file_is_an_event(run_demo: RunDemo, onnx_artifact: Artifact, write_video: WriteVideo) -> None:
    path = write_video("clip.avi", shades(70))
    flags = ("--source", path, "--display", "none", "--artifact", onnx_artifact.folder, "--threads", 1, "--json")
    result = run_demo("webcam", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    first, *middle, summary = events_of(result.stdout)
    frames = [event for event in middle if event["event"] == "frame"]
    assert first["event"] == "start"
    assert first["sources"] == [str(path)]
    assert first["models"][0]["threads"] == 1
    assert [frame["number"] for frame in frames] == list(range(1, 71))
    with runtimes.load(onnx_artifact, threads=1) as model, open_source(str(path)) as source:
        for frame in frames:
            image = next_frame(source)
            assert image is not None
            expected = [[p.label, p.probability] for p in model.classify([image.image])[0]]
            assert [[top["label"], top["probability"]] for top in frame["model_results"][0]["predictions"]] == expected
    assert (summary["event"], summary["frames"], summary["ended"]) == ("summary", 70, "end of file")
    assert list(summary["stages"]) == ["capture", "preprocess", "infer", "post"]  # nothing was drawn
    assert all(stage["n"] == 70 and stage["p90_ms"] is not None for stage in summary["stages"].values())
    assert summary["frame_age"] is None
    assert summary["loop_fps"] == pytest.approx(70 / summary["seconds"])
    (model_summary,) = summary["models"]
    assert model_summary["model_fps"] == pytest.approx(1e3 / model_summary["infer"]["p50_ms"])


def test_max_frames_ends_with_a_table(run_demo: RunDemo, onnx_artifact: Artifact, write_video: WriteVideo) -> None:
    path = write_video("clip.avi", shades(30))
    flags = ("--source", path, "--max-frames", 12, "--display", "none", "--artifact", onnx_artifact.folder)
    result = run_demo("webcam", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "running onnxruntime fp32; Ctrl-C quits\n"
    assert "12 frames in" in result.stdout
    assert "ended by --max-frames" in result.stdout
    assert "a p90 needs 64 frames" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.slow
def test_backends_run_side_by_side_and_missing_ones_are_named(run_demo: RunDemo, make_artifact: MakeArtifact) -> None:
    root = make_artifact("onnx", "fp32").folder.parents[1]
    make_artifact("openvino", "fp32")
    flags = ("--source", "synthetic:160x120@100", "--display", "none", "--backend", "openvino,onnxruntime,tensorrt")
    weights = ("--variant", "cifar-310k", "--weights", "fashion-mnist", "--artifacts", root, "--threads", 1)
    result = run_demo("webcam", *flags, *weights, "--max-frames", 80)
    assert result.returncode == 0, result.stderr
    without = [line for line in result.stderr.splitlines() if line.startswith("without tensorrt: ")]
    assert len(without) == ("tensorrt fp32" not in result.stdout)  # where there is no GPU
    assert "openvino fp32" in result.stdout
    assert "reference" in result.stdout
    agrees = next(line for line in result.stdout.splitlines() if "onnxruntime fp32 " in line)
    assert float(agrees.split()[2]) >= 95
    assert "frame age" in result.stdout


def test_generated_scene_replaces_a_missing_camera(run_demo: RunDemo, onnx_artifact: Artifact) -> None:
    if Path("/dev/video0").exists():
        pytest.skip("this machine has a camera")
    flags = ("--display", "none", "--duration", "0.5", "--artifact", onnx_artifact.folder, "--json")
    result = run_demo("webcam", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("no camera 0: ")
    assert "Showing a generated scene" in result.stderr
    events = events_of(result.stdout)
    assert events[0]["sources"] == ["synthetic"]
    assert events[-1]["ended"] == "--duration"
    assert events[-1]["seconds"] >= 0.4
    assert events[-1]["frame_age"]["n"] == events[-1]["frames"] > 0


def test_failing_source_does_not_affect_others(
    run_demo: RunDemo, onnx_artifact: Artifact, write_video: WriteVideo
) -> None:
    clip = write_video("clip.avi", shades(30))
    flags = (
        "--source",
        "http://cook:p4ss@127.0.0.1:9/live",
        "--source",
        clip,
        "--reconnect-timeout",
        1,
        "--display",
        "none",
    )
    result = run_demo("webcam", *flags, "--artifact", onnx_artifact.folder, "--json")
    assert result.returncode == 0, result.stderr  # the failure was reported, and the other source ended normally
    reports = [line for line in result.stderr.splitlines() if "http://" in line]
    assert reports[-1].startswith("http://***@127.0.0.1:9/live gave no frame for 1 s")
    assert "p4ss" not in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    summary = events_of(result.stdout)[-1]
    assert [event["note"] for event in events_of(result.stdout) if event.get("state") == "failed"] == reports[-1:]
    assert summary["ended"] == "end of file"
    dead, alive = summary["sources"]
    assert (dead["state"], dead["frames"]) == ("failed", 0)
    assert (alive["state"], alive["frames"]) == ("ended", 30)


def test_wrong_flags_are_one_line(
    run_demo: RunDemo, onnx_artifact: Artifact, write_video: WriteVideo, tmp_path: Path
) -> None:
    (tmp_path / "text.avi").write_text("not a video")
    clip = write_video("clip.avi", shades(2))
    for flags, code, complaint in (
        (("--source", tmp_path / "missing.avi"), 1, "missing.avi"),
        (("--source", tmp_path / "text.avi"), 1, "is not a video"),
        (("--source", "98"), 1, "no camera 98"),
        (("--source", "rtsp://cook:p4ss@127.0.0.1:9/"), 1, "rtsp://***@127.0.0.1:9/ cannot be opened"),
        (("--source", clip, "--display", "window"), 1, "--display none"),
        (("--source", clip, "--display", "windw"), 2, "did you mean 'window'"),
        (("--source", clip, "--max-frames", "0"), 2, "integer"),
        (("--source", clip, "--duration", "soon"), 2, "not a number above 0"),
        (("--source", clip, "--backend", "openvno"), 2, "did you mean 'openvino'"),
        (("--source", clip, "--precision", "int8", "--backend", "torch"), 2, "torch"),
        (("--source", ""), 2, "names no camera"),
        (("--source", "-1"), 2, "counted from 0"),
        (("--source", clip, "--allow-host", "http://pi.local/"), 2, "is not a host name; type only the name, such as"),
        (("--source", clip, "--allow-host", "*"), 2, "is not a host name"),
        (("--source", "visitor", "--display", "none"), 2, "leave out --display"),
        (("--source", clip, "--source", "visitor", "--display", "none"), 2, "leave out --display"),
        (("--source", "visitor", "--display", "browser", "--record", tmp_path / "x.mp4"), 2, "leave out --record"),
        (("--source", clip, "--record", tmp_path / "text.avi" / "x.mp4"), 1, "cannot write"),
        (("--source", clip, "--display", "none", "--record", tmp_path / "x.webm"), 2, "name that ends in .mp4"),
    ):
        result = run_demo("webcam", "--display", "none", *flags, "--artifact", onnx_artifact.folder, "--json")
        assert result.returncode == code, result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stderr.startswith("error: ")
        assert complaint in result.stderr
        assert "p4ss" not in result.stderr


def test_taken_port_is_reported_before_loading(run_demo: RunDemo, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_demo("webcam", "--display", "browser", "--port", port, "--artifact", tmp_path / "nothing")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: port {port} on 127.0.0.1 is taken by another program; type: --port ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("loops", [1, 2])
def test_recording_has_every_frame_at_its_time_with_predictions(
    run_demo: RunDemo, onnx_artifact: Artifact, tmp_path: Path, loops: int
) -> None:
    clip, film = tmp_path / "clip.mp4", tmp_path / "film.mp4"
    expected = [*np.arange(20) / 30, *(12 + np.arange(5) / 60), 20]  # two stills, and the last frame stays for 3 s
    with Recorder(clip) as recorder:
        for image, time_s in zip(shades(26, 320, 240), expected, strict=True):
            recorder.write(image, time_s, duration_s=3)
    flags = ("--source", clip, "--display", "none", "--record", film, "--artifact", onnx_artifact.folder, "--json")
    result = run_demo("webcam", *flags, *(("--loop", "--max-frames", 26 * loops) if loops > 1 else ()))
    assert result.returncode == 0, result.stderr
    assert [event["path"] for event in events_of(result.stdout) if event["event"] == "recording"] == [str(film)]
    frames, times, duration_s = read(film)
    expected = [23 * loop + time_s for loop in range(loops) for time_s in expected]
    np.testing.assert_allclose(times, expected, rtol=0, atol=1e-4)
    assert duration_s == pytest.approx(23 * loops, abs=1e-4)
    assert all((frame.min(axis=2) > 150).sum() > 30 for frame in frames)  # white letters on a red scene


@pytest.fixture
def endless_stream() -> Iterator[str]:
    """The address of a stream of about 200 frames a second, for as long as it is read."""
    stop = threading.Event()

    def answer(request: network_camera.Request, number: int) -> None:
        network_camera.start_stream(request)
        while not stop.wait(0.005):
            network_camera.send_frame(request, 80)

    with network_camera.serving(answer) as address:
        yield f"http://{address}/live.mjpg"
        stop.set()


def test_ctrl_c_prints_summary_and_exits_130(
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
    summary = events_of(stdout)[-1]
    assert summary["ended"] == "Ctrl-C"
    assert summary["frames"] > 0
    assert summary["frame_age"]["n"] == summary["frames"]


def test_ctrl_c_reports_an_incomplete_recording(
    run_demo: RunDemo, onnx_artifact: Artifact, write_video: WriteVideo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_until_ctrl_c(*arguments: Any, max_frames: int | None, duration_s: float | None) -> str:
        run(*arguments, max_frames=3)
        signal.raise_signal(signal.SIGINT)
        return run(*arguments)

    run = webcam.run
    monkeypatch.setattr(webcam, "run", run_until_ctrl_c)
    flags = ("--source", write_video("clip.avi", shades(9)), "--display", "none", "--artifact", onnx_artifact.folder)
    assert run_demo("webcam", *flags, "--record", tmp_path / "good.mp4").returncode == 130
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    result = run_demo("webcam", *flags, "--record", tmp_path / "lost.mp4")
    assert (result.returncode, "ended by Ctrl-C" in result.stdout) == (1, True)
    assert "error: the recording is incomplete: cannot continue" in result.stderr.splitlines()[-1]
    assert result.stderr.count("lost.mp4") == 1


@pytest.mark.parametrize(("width", "height"), [(4000, 16), (16, 3400)])
def test_a_video_without_a_usable_frame_is_an_error(
    run_demo: RunDemo, onnx_artifact: Artifact, write_video: WriteVideo, width: int, height: int
) -> None:
    flags = ("--display", "none", "--artifact", onnx_artifact.folder, "--json")
    thin = write_video("thin.avi", shades(5, width, height))
    result = run_demo("webcam", "--source", thin, *flags)
    assert result.returncode == 1
    rejection, error = result.stderr.splitlines()
    assert rejection.startswith(f"{thin}: ")
    assert error == "error: no source gave a frame that can be classified; name another --source"
    result = run_demo("webcam", "--source", thin, "--source", write_video("clip.avi", shades(3)), *flags)
    assert (result.returncode, result.stderr) == (0, f"{rejection}\n")


def test_closed_terminal_does_not_lose_events(onnx_artifact: Artifact, environment: dict[str, str]) -> None:
    terminal, theirs = os.openpty()
    command = [
        sys.executable,
        str(ROOT / "demos" / "webcam.py"),
        "--source",
        "synthetic:160x120@60",
        "--display",
        "none",
    ]
    command += ["--artifact", str(onnx_artifact.folder), "--duration", "2", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment) as process:
        os.close(theirs)
        text = b""
        while b": frame" not in text:
            text += os.read(terminal, 4096)
        os.close(terminal)
        stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    summary = events_of(stdout)[-1]
    assert summary["ended"] == "--duration"
    assert summary["frames"] > 10


@pytest.mark.parametrize(("sent", "code", "ended"), [
    ("TERM", 0, "SIGTERM"), ("HUP", 0, "SIGHUP"), ("INT INT", 130, "Ctrl-C"), ("TERM INT", 0, "SIGTERM"),
])  # fmt: skip
def test_signals_finish_recording_and_print_summary(
    onnx_artifact: Artifact, environment: dict[str, str], tmp_path: Path, sent: str, code: int, ended: str
) -> None:
    film = tmp_path / "film.mp4"
    command = [sys.executable, str(ROOT / "demos" / "webcam.py"), "--source", "synthetic:160x120@60", "--json"]
    command += ["--display", "none", "--record", str(film), "--artifact", str(onnx_artifact.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(20)]
        for name in sent.split():
            process.send_signal(signal.Signals[f"SIG{name}"])
            time.sleep(0.05)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == code
    summary = events_of("".join(lines) + rest)[-1]
    assert summary["ended"] == ended
    assert read(film)[0]


def _drain(terminal: int, into: queue.Queue[bytes]) -> None:
    try:
        while block := os.read(terminal, 4096):
            into.put(block)
    except OSError:  # the other end is closed
        return
