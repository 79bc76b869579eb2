"""The comparison: real processes, real artifacts, and numbers only where they can be given."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from rich.console import Console

import runtimes
from demos.benchmark import comparison, table, workers
from demos.benchmark.comparison import Comparison, Row, compare
from demos.benchmark.workers import BackendSpec, Timings, Worker, run_rounds
from simplenet import image_sets
from simplenet.artifacts import Artifact
from simplenet.errors import ArtifactError, BackendError
from simplenet.preprocessing import to_model_input
from tests.conftest import MakeArtifact

ROOT = Path(__file__).resolve().parents[2]
FRAME = np.zeros((48, 64, 3), np.uint8)


def run_compare(*flags: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "demos" / "compare.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd="/")


@pytest.fixture(scope="module")
def shared_root(make_artifact: MakeArtifact) -> Path:
    """Artifacts of ONNX Runtime and PyTorch, so that the script has only to find them."""
    make_artifact("torch", "fp32")
    make_artifact("onnx", "int8")
    return make_artifact("onnx", "fp32").folder.parents[1]


@pytest.fixture(scope="module")
def shipped() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    from simplenet.preprocessing import Preprocessing

    config = Preprocessing(28, 28, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), padding=2)
    inputs, labels = image_sets.load("fashion-mnist", "evaluation", config, limit=300).all()
    assert labels is not None
    return inputs, labels


def test_the_script_measures_what_it_is_asked_for_and_writes_raw_samples(shared_root: Path) -> None:
    result = run_compare(
        "--backend", "torch,onnxruntime", "--precision", "fp32,int8", "--samples", "100", "--rounds", "4",
        "--limit", "200", "--threads", "1", "--artifacts", shared_root, "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [(row["backend"], row["precision"]) for row in report["rows"]] == [
        ("torch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8"),
    ]  # fmt: skip
    assert report["reference"] == "torch fp32"
    assert report["picture_count"] == 200
    assert report["machine"]["physical_cores"] >= 1
    for row in report["rows"]:
        assert row["reason"] is None
        rounds = row["timings"]["rounds_ms"]
        assert [len(samples) for samples in rounds] == [25] * 4
        samples = sorted(sample for one in rounds for sample in one)
        assert row["latency"]["p50_ms"] == samples[49]
        assert row["latency"]["p90_ms"] == samples[89]
        assert row["latency"]["p99_ms"] is None
        assert row["top1_percent"] > 90
        assert row["agreement_percent"] > 97
        assert row["description"]["threads"] == 1
        assert row["size_bytes"] > 100_000
    torch, onnxruntime, _ = [row["timings"]["peak_memory_mb"] for row in report["rows"]]
    assert 20 < onnxruntime < torch - 50  # of what either imports; not of the process that started them


def test_a_device_without_pytorch_can_ask_for_help() -> None:
    code = """
import sys
for name in ("torch", "safetensors", "onnx", "onnxruntime", "openvino", "rich", "psutil", "cv2"):
    sys.modules[name] = None
import demos.compare, demos.webcam
try:
    demos.compare.main(["--help"])
except SystemExit:
    demos.webcam.main(["--help"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--data DIR" in done.stdout
    assert "--patience SECONDS" in done.stdout


def test_the_table_is_for_people_and_says_what_is_missing(shared_root: Path) -> None:
    result = run_compare(
        "--backend", "onnxruntime", "--precision", "fp32,int8", "--samples", "10", "--rounds", "2", "--limit", "50",
        "--artifacts", shared_root,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    header, _, row = [line for line in result.stdout.splitlines() if line.strip()][:3]
    assert [name in header for name in ("top-1 %", "agrees %", "memory MB", "p50 ms", "p99 ms", "speed-up")] == [
        True
    ] * 6
    assert row.split()[:2] == ["onnxruntime", "fp32"]
    assert "a p90 needs 64 and a p99 662" in result.stdout
    assert "fashion-mnist evaluation" in result.stdout
    assert "cifar-310k with fashion-mnist weights." in result.stdout
    assert "onnxruntime int8: calibrated with 500 pictures (fashion-mnist calibration)." in result.stdout
    assert "Fastest within 0.5 points of the best top-1: onnxruntime " in result.stdout
    assert "\x1b" not in result.stdout
    told = [line for line in result.stderr.splitlines() if not line.startswith("making ")]
    assert told == [  # nobody sees a progress bar there
        "onnxruntime fp32: answered 50 pictures",
        "onnxruntime int8: answered 50 pictures",
        "timing 2 rows, 10 samples each, in 2 rounds",
    ]


def test_a_folders_name_is_printed_as_it_is(shared_root: Path, tmp_path: Path) -> None:
    # Rich would take [train] for a style, and [/b] for the end of one; the last letter is none.
    folder = tmp_path / "[train]a[" / os.fsdecode(b"b]c\xe9")
    folder.mkdir(parents=True)
    Image.new("RGB", (28, 28)).save(folder / "1.png")
    result = run_compare(
        "--backend", "onnxruntime", "--precision", "fp32", "--samples", "10", "--rounds", "2", "--image", folder,
        "--artifacts", shared_root,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"{str(folder)[:-1]}\N{REPLACEMENT CHARACTER}" in result.stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backend", "openvno"], "unknown backend 'openvno', did you mean 'openvino'?"),
        (["--precision", "int4"], "unknown precision 'int4'"),
        (["--variant", "2m"], "unknown variant '2m'"),
        (["--samples", "0"], "'0' is not an integer from 1"),
        (["--backend", "torch", "--precision", "int8"], "none of these backends has one of these precisions"),
        (["--backend", "openvino", "--device", "cuda"], "none of these backends runs on 'cuda'"),
    ],
)
def test_wrong_flags_are_one_line_and_exit_2(flags: list[str], message: str) -> None:
    result = run_compare(*flags)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_pictures_to_calibrate_with_can_be_named(tmp_path: Path) -> None:
    flags = ("--weights", "mnist", "--backend", "onnxruntime", "--precision", "int8", "--artifacts", tmp_path)
    (tmp_path / "test" / "7").mkdir(parents=True)
    Image.new("L", (28, 28)).save(tmp_path / "test" / "7" / "1.png")
    for data in ((), ("--data", tmp_path)):
        result = run_compare(*flags, *data, "--calibration", "/nowhere")
        assert result.stderr.splitlines()[-1].startswith("error: no artifact could be made; the first reason: ")
        assert "'/nowhere' is neither a folder of images nor" in result.stderr


def test_pictures_that_are_not_there_are_one_line(shared_root: Path) -> None:
    result = run_compare(
        "--backend", "onnxruntime", "--precision", "fp32", "--image", "/nowhere", "--artifacts", shared_root
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("error: '/nowhere' is neither a folder of images nor")
    assert "Traceback" not in result.stderr


def test_when_nothing_can_run_it_is_an_error_with_the_reason(shared_root: Path) -> None:
    result = run_compare("--backend", "tensorrt", "--precision", "fp32", "--artifacts", shared_root)
    if result.returncode == 0:
        pytest.skip("there is an NVIDIA GPU here")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("error: nothing could be measured: ")
    assert result.stdout == ""


def test_the_device_is_handed_on_to_every_backend(shared_root: Path) -> None:
    flags = ["--backend", "openvino,onnxruntime", "--precision", "fp32", "--device", "cuda", "--artifacts", shared_root]
    result = run_compare(*flags)
    if result.returncode == 0:
        pytest.skip("there is an NVIDIA GPU here, and onnxruntime-gpu")
    assert result.returncode == 1
    assert "onnxruntime has no CUDAExecutionProvider; type: pip uninstall" in result.stderr.splitlines()[-1]
    assert "openvino" not in result.stderr


@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "kill"])
def test_ctrl_c_is_one_line_and_leaves_no_process(shared_root: Path, whole_group: bool) -> None:
    command = [
        sys.executable,
        str(ROOT / "demos" / "compare.py"),
        "--backend",
        "onnxruntime",
        "--precision",
        "fp32,int8",
    ]
    with subprocess.Popen(
        [*command, "--samples", "1000000", "--artifacts", str(shared_root)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as running:  # fmt: skip
        deadline = time.monotonic() + 60
        while len(workers := psutil.Process(running.pid).children(recursive=True)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)  # two workers and multiprocessing's resource tracker
        time.sleep(1)
        if whole_group:
            os.killpg(running.pid, signal.SIGINT)
        else:
            running.send_signal(signal.SIGINT)
        out, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; no incomplete file was kept"
    assert "Traceback" not in errors
    assert out == ""
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


def spec(artifact: Artifact, backend: str = "onnxruntime", precision: str = "fp32") -> BackendSpec:
    return BackendSpec(backend, precision, str(artifact.folder), threads=1)


def test_a_worker_passes_on_what_its_runtime_raises(tmp_path: Path) -> None:
    with (
        Worker(BackendSpec("onnxruntime", "fp32", str(tmp_path / "nothing"), 1)) as worker,
        pytest.raises(ArtifactError, match="no artifact at"),
    ):
        worker.ask("opened")


def test_a_worker_that_dies_is_an_error_and_ends_nobody_else(
    make_artifact: MakeArtifact, shipped: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    artifact = make_artifact("onnx", "fp32")
    with Worker(spec(artifact)) as dying, Worker(spec(artifact, "openvino")) as living:
        timings = {}
        for worker in (dying, living):
            worker.ask("opened")
            worker.ask("use", shipped[0][:4])
            timings[worker.spec.name] = Timings(0, 0, 0)
        assert dying._process.pid is not None
        os.kill(dying._process.pid, signal.SIGKILL)
        failures = run_rounds([dying, living], timings, FRAME, samples=6, rounds=3)
    assert list(failures) == ["onnxruntime fp32"]
    assert isinstance(failures["onnxruntime fp32"], BackendError)
    assert "died during time" in str(failures["onnxruntime fp32"])
    assert [len(samples) for samples in timings["openvino fp32"].rounds_ms] == [2, 2, 2]


def test_a_row_that_takes_too_long_is_ended_so_that_it_disturbs_nobody(
    make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Worker(spec(make_artifact("onnx", "fp32"))) as worker:
        worker.ask("opened")
        assert worker._process.pid is not None
        os.kill(worker._process.pid, signal.SIGSTOP)
        monkeypatch.setattr(workers, "ANSWER_TIMEOUT_S", 0.5)
        failures = run_rounds([worker], {worker.spec.name: Timings(0, 0, 0)}, FRAME, samples=2, rounds=2)
        assert "gave no answer to time in 1.5 s" in str(failures[worker.spec.name])
        assert not worker._process.is_alive()


def test_a_worker_that_hangs_is_given_up(make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ANSWER_TIMEOUT_S", 0.5)
    with Worker(spec(make_artifact("onnx", "fp32"))) as worker:
        assert worker._process.pid is not None
        os.kill(worker._process.pid, signal.SIGSTOP)
        with pytest.raises(BackendError, match=r"gave no answer to opened in 0\.5 s"):
            worker.ask("opened")
    assert not worker._process.is_alive()


def test_the_order_turns_round_and_rotates_so_that_nobody_is_favored() -> None:
    asked: list[str] = []

    class Recorder:
        def __init__(self, backend: str) -> None:
            self.spec = BackendSpec(backend, "fp32", "", None)

        def ask(self, method: str, *_: object, timeout_s: float) -> list[float]:
            if method == "time":
                asked.append(self.spec.backend)
            return [1.0]

    names = ["a", "b", "c"]
    timings = {f"{name} fp32": Timings(0, 0, 0) for name in names}
    run_rounds([Recorder(name) for name in names], timings, FRAME, samples=3, rounds=6)  # type: ignore[misc]
    assert " ".join(asked) == "a b c  c b a  b c a  a c b  c a b  b a c".replace("  ", " ")


def test_accuracy_and_agreement_are_counted_over_every_picture(
    make_artifact: MakeArtifact, shipped: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    """Against a count made here with raw ONNX Runtime; and labels made wrong on purpose must cost accuracy."""
    import onnxruntime

    inputs, labels = shipped
    artifact = make_artifact("onnx", "fp32")
    session = onnxruntime.InferenceSession(artifact.model_file, providers=["CPUExecutionProvider"])
    answers = np.array([session.run(None, {"image": picture[None]})[0].argmax() for picture in inputs])
    labels = labels.copy()
    labels[:100] = (answers[:100] + 1) % 10
    settings: dict[str, Any] = {"pictures_name": "x", "frame": FRAME, "threads": 1, "samples": 2, "rounds": 1}
    result = compare([Row("onnxruntime", "fp32", artifact)], inputs, labels, **settings)
    (row,) = result.rows
    assert row.top1_percent == pytest.approx((answers == labels).mean() * 100)
    assert row.agreement_percent == 100
    assert result.reference is row
    assert row.speed_up_over(row) == (1, 1, 1)


def test_a_row_that_cannot_run_keeps_its_reason_and_has_no_numbers(
    make_artifact: MakeArtifact, shipped: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    rows = [
        Row("tensorrt", "fp32", reason="needs an NVIDIA GPU"),
        Row("onnxruntime", "fp32", make_artifact("onnx", "fp32")),
    ]
    settings: dict[str, Any] = {"pictures_name": "x", "frame": FRAME, "threads": 1, "samples": 2, "rounds": 1}
    result = compare(rows, shipped[0][:8], None, **settings)
    report = result.to_json()["rows"][0]
    assert report["reason"] == "needs an NVIDIA GPU"
    assert report["latency"] is None
    assert report["top1_percent"] is None
    assert result.reference is rows[1]


def test_pictures_made_by_hand_pass_the_models_preprocessing(shipped: tuple[np.ndarray[Any, Any], Any]) -> None:
    from simplenet.preprocessing import Preprocessing

    config = Preprocessing(28, 28, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), padding=2)
    synthetic = image_sets.load("synthetic", "evaluation", config, limit=3)
    inputs, labels = synthetic.all()
    assert labels is None
    np.testing.assert_array_equal(inputs[1], to_model_input(image_sets.synthetic(3, config)[1], config))
    assert len({picture.tobytes() for picture in inputs}) == 3


def test_speed_up_is_the_ratio_of_medians_round_by_round() -> None:
    slow, fast = Row("a", "fp32"), Row("b", "fp32")
    slow.timings = Timings(0, 0, 0, rounds_ms=[[4, 4, 9], [6, 6, 6]])
    fast.timings = Timings(0, 0, 0, rounds_ms=[[2, 2, 2], [1, 2, 9]])
    assert fast.speed_up_over(slow) == (2.5, 2.0, 3.0)
    assert (fast.rounds_faster_than(slow), slow.rounds_faster_than(fast)) == ((2, 2), (0, 2))
    assert comparison.steps([slow, fast], 5) == 2


def test_the_conclusion_names_who_was_faster_than_the_fastest_and_how_often(make_artifact: MakeArtifact) -> None:
    rows = [Row(name, "fp32", artifact=make_artifact("onnx", "fp32"), top1_percent=90.0) for name in ("a", "b", "c")]
    for row, rounds_ms in zip(rows, ([[2.0], [2.0], [2.0]], [[3.0], [1.0]], [[4.0], [4.0], [4.0]]), strict=True):
        row.timings = Timings(0, 0, 0, rounds_ms=[samples * 3 for samples in rounds_ms])
        row.description = runtimes.Description(row.backend, "a GPU" if row.backend == "c" else "CPU", "fp32", 1, {})
    rows[2].description = dataclasses.replace(rows[2].description, threads=None)
    found = Comparison(rows, rows[0], "some", 10, True, threads=1, rounds=3, frame="1x1 RGB")
    console = Console(width=160, file=io.StringIO())
    table.show(found, console)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "top-1: b fp32, p50 1.000 ms; faster than it in some rounds: a fp32 (1 of 2)." in told
    assert "c fp32: ran on a GPU." in told
