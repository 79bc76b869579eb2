"""The comparison, with real worker processes and artifacts where these are what is tested."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from demos.benchmark.comparison import Row, compare, measure_correctness
from demos.benchmark.statistics import Interval
from simplenet import image_sets
from simplenet.preprocessing import to_model_input
from tests.conftest import MakeArtifact
from tests.demos.conftest import ROOT, RunDemo
from train.data import DATASETS

FRAME = np.zeros((48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def shared_root(make_artifact: MakeArtifact) -> Path:
    """A folder with artifacts for ONNX Runtime and PyTorch, so that none is exported."""
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


@pytest.mark.slow
def test_json_has_raw_samples_of_every_row(run_demo: RunDemo, shared_root: Path, tmp_path: Path) -> None:
    result = run_demo(
        "compare", "--backend", "torch,onnxruntime", "--precision", "fp32,int8", "--samples", "100", "--rounds", "8",
        "--limit", "200", "--threads", "1", "--artifacts", shared_root, "--plot", tmp_path / "plot.png", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [(row["backend"], row["precision"]) for row in report["rows"]] == [
        ("torch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8"),
    ]  # fmt: skip
    assert report["reference"] == "torch fp32"
    assert report["image_count"] == 200
    assert report["machine"]["physical_cores"] >= 1
    for row in report["rows"]:
        assert row["reason"] is None
        samples_by_round = row["timings"]["stages_ms"]["inference"]
        assert [len(samples) for samples in samples_by_round] == [14] * 8
        samples = sorted(sample for one in samples_by_round for sample in one)
        latency = row["stages"]["inference"]
        assert latency["p50_ms"] == samples[55]
        assert latency["p90_ms"] == samples[100]
        assert latency["p99_ms"] is None
        for name in ("p50_ms", "p90_ms"):
            interval = latency["intervals"][name]
            assert interval["low"] <= interval["value"] == latency[name] <= interval["high"]
        whole, *parts = (row["timings"]["stages_ms"][stage] for stage in ("end_to_end", "preprocess", "postprocess"))
        for total, *others in zip(*(chain.from_iterable(stage) for stage in (whole, *parts)), strict=True):
            assert 0 < sum(others) < total
        assert row["speed_up"]["low"] <= row["speed_up"]["value"] <= row["speed_up"]["high"]
        assert row["top1_percent"] > 90
        assert row["agreement_percent"] > 97
        assert row["description"]["threads"] == 1
        assert row["size_bytes"] > 100_000
    twin = report["twin"]
    assert twin["is_twin"]
    assert [len(samples) for samples in twin["timings"]["stages_ms"]["inference"]] == [14] * 8
    assert report["noise"] == pytest.approx(max(0.01, report["twins"]["value"] - 1, 1 / report["twins"]["value"] - 1))
    torch, onnxruntime, _ = [row["timings"]["peak_memory_mb"] for row in report["rows"]]
    assert 20 < onnxruntime < torch - 50  # of each worker's own imports, not of this process
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width > 800


def test_help_needs_no_optional_package() -> None:
    code = """
import sys
for name in ("torch", "safetensors", "onnx", "onnxruntime", "openvino", "rich", "psutil", "cv2", "matplotlib"):
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
    assert "--reconnect-timeout SECONDS" in done.stdout


@pytest.mark.slow
def test_table_explains_columns_and_missing_numbers(run_demo: RunDemo, shared_root: Path) -> None:
    result = run_demo(
        "compare", "--backend", "onnxruntime", "--precision", "fp32,int8", "--samples", "10", "--rounds", "2",
        "--limit", "50", "--artifacts", shared_root,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    heading = result.stdout.partition("onnxruntime")[0]
    for name in ("top-1", "agrees", "memory", "p50", "p99", "end to", "speed-up [95 %]"):
        assert name in heading
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert ["onnxruntime", "fp32"] in [line.split()[:2] for line in result.stdout.splitlines()]
    assert "a p99 needs 662 (--samples)" in result.stdout
    assert "fashion-mnist evaluation" in result.stdout
    assert "cifar-310k with fashion-mnist weights." in result.stdout
    assert "onnxruntime int8: calibrated with 500 images (fashion-mnist calibration)." in result.stdout
    assert "Fastest within 0.5 points of the best top-1: onnxruntime " in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stderr.splitlines() == [  # in place of a progress bar
        "loading onnxruntime fp32",
        "loading onnxruntime int8",
        result.stderr.splitlines()[2],
        "timing 3 rows",
    ]
    assert result.stderr.splitlines()[2].endswith(" (twin)")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backend", "openvno"], "unknown backend 'openvno', did you mean 'openvino'?"),
        (["--precision", "int4"], "unknown precision 'int4'"),
        (["--variant", "2m"], "unknown variant '2m'"),
        (["--samples", "0"], "'0' is not an integer from 1"),
        (["--plot", "plot.pdf"], "'plot.pdf' must be a name that ends in .png or .svg"),
        (["--backend", "torch", "--precision", "int8"], "none of these backends has one of these precisions"),
        (["--backend", "openvino", "--device", "cuda"], "none of these backends runs on 'cuda'"),
    ],
)
def test_wrong_flags_are_one_line_and_exit_2(run_demo: RunDemo, flags: list[str], message: str) -> None:
    result = run_demo("compare", *flags)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_plot_without_matplotlib_names_the_package(run_demo: RunDemo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "demos" / "compare.py")])
    result = run_demo("compare", "--plot", "plot.png")
    assert result.returncode == 1
    assert result.stderr == "error: matplotlib is not installed; type: pip install '.[demos]'\n"


def test_calibration_images_can_be_named(run_demo: RunDemo, tmp_path: Path) -> None:
    flags = ("--weights", "mnist", "--backend", "onnxruntime", "--precision", "int8", "--artifacts", tmp_path)
    (tmp_path / "test" / "7").mkdir(parents=True)
    Image.new("L", (28, 28)).save(tmp_path / "test" / "7" / "1.png")
    for data in ((), ("--data", tmp_path)):
        result = run_demo("compare", *flags, *data, "--calibration", "/nowhere")
        assert result.stderr.splitlines()[-1].startswith("error: no artifact could be exported; the first reason: ")
        assert "'/nowhere' is neither a folder of " in result.stderr


def test_missing_image_folder_is_one_line(run_demo: RunDemo, shared_root: Path) -> None:
    flags = ("--backend", "onnxruntime", "--precision", "fp32", "--artifacts", shared_root)
    result = run_demo("compare", *flags, "--image", "/nowhere")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("error: '/nowhere' is neither a folder of ")
    assert "Traceback" not in result.stderr


def test_error_gives_the_reason_when_nothing_can_run(run_demo: RunDemo, shared_root: Path) -> None:
    result = run_demo("compare", "--backend", "tensorrt", "--precision", "fp32", "--artifacts", shared_root)
    if result.returncode == 0:
        pytest.skip("there is an NVIDIA GPU here")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("error: nothing could be measured: ")
    assert result.stdout == ""


def test_device_is_passed_to_every_backend(run_demo: RunDemo, shared_root: Path) -> None:
    flags = ["--backend", "openvino,onnxruntime", "--precision", "fp32", "--device", "cuda", "--artifacts", shared_root]
    result = run_demo("compare", *flags)
    if result.returncode == 0:
        pytest.skip("there is an NVIDIA GPU here, and onnxruntime-gpu")
    assert result.returncode == 1
    assert "onnxruntime has no CUDAExecutionProvider; type: pip uninstall" in result.stderr.splitlines()[-1]
    assert "openvino" not in result.stderr


@pytest.mark.slow
def test_data_set_folder_chooses_weights_and_images(run_demo: RunDemo, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for name in DATASETS["cifar10"].labels:
        folder = tmp_path / "data" / "test" / name
        folder.mkdir(parents=True)
        for number in range(20):  # smooth color gradients, which get different predictions
            pixels = Image.fromarray(noise.integers(0, 256, (4, 4, 3), np.uint8))
            pixels.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    flags = ["--backend", "onnxruntime", "--precision", "fp32", "--artifacts", tmp_path / "artifacts", "--json"]
    result = run_demo("compare", "--data", tmp_path / "data", "--samples", "8", "--rounds", "2", *flags)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["image_count"] == 200
    model = ("--variant", "cifar-310k", "--weights", "cifar10")
    evaluated = json.loads(run_demo("evaluate", tmp_path / "data" / "test", *model, *flags).stdout)
    accuracies = [(row["top1_percent"], row["top5_percent"]) for row in (report["rows"][0], evaluated)]
    assert accuracies[0] == accuracies[1] != (10, 50)  # of one prediction for all images


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "kill"])
def test_ctrl_c_is_one_line_and_leaves_no_process(shared_root: Path, whole_group: bool) -> None:
    command = [sys.executable, str(ROOT / "demos" / "compare.py"), "--backend", "onnxruntime", "--limit", "50"]
    with subprocess.Popen(
        [*command, "--precision", "fp32,int8", "--samples", "100000", "--artifacts", str(shared_root)],
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


def test_accuracy_and_agreement_count_every_image(
    make_artifact: MakeArtifact, shipped: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    """Compared with a count on raw ONNX Runtime; 100 labels are wrong on purpose."""
    import onnxruntime

    inputs, labels = shipped
    artifact = make_artifact("onnx", "fp32")
    session = onnxruntime.InferenceSession(artifact.model_file, providers=["CPUExecutionProvider"])
    predictions = np.array([session.run(None, {"image": image[None]})[0].argmax() for image in inputs])
    labels = labels.copy()
    labels[:100] = (predictions[:100] + 1) % 10
    settings: dict[str, Any] = {"images_name": "x", "frame": FRAME, "threads": 1, "samples": 2, "rounds": 1}
    result = compare([Row("onnxruntime", "fp32", artifact)], inputs, labels, **settings)
    (row,) = result.rows
    assert row.top1_percent == pytest.approx((predictions == labels).mean() * 100)
    assert row.agreement_percent == 100
    assert result.reference is row
    assert row.speed_up_over(row) == Interval(1)


def test_row_that_cannot_run_keeps_its_reason(
    make_artifact: MakeArtifact, shipped: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    rows = [
        Row("tensorrt", "fp32", reason="needs an NVIDIA GPU"),
        Row("onnxruntime", "fp32", make_artifact("onnx", "fp32")),
    ]
    settings: dict[str, Any] = {"images_name": "x", "frame": FRAME, "threads": 1, "samples": 2, "rounds": 1}
    result = compare(rows, shipped[0][:8], None, **settings)
    report = result.to_json()["rows"][0]
    assert report["reason"] == "needs an NVIDIA GPU"
    assert report["stages"] is None
    assert report["top1_percent"] is None
    assert result.reference is rows[1]


def test_synthetic_images_are_preprocessed(shipped: tuple[np.ndarray[Any, Any], Any]) -> None:
    from simplenet.preprocessing import Preprocessing

    config = Preprocessing(28, 28, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), padding=2)
    synthetic = image_sets.load("synthetic", "evaluation", config, limit=3)
    inputs, labels = synthetic.all()
    assert labels is None
    np.testing.assert_array_equal(inputs[1], to_model_input(image_sets.synthetic(3, config)[1], config))
    assert len({image.tobytes() for image in inputs}) == 3


def test_cosine_is_measured_in_float64() -> None:
    """In float32 these would overflow, divide by zero, and round to 1."""
    row = Row("a", "fp32")
    huge = np.array([[1e20, 1e20]], np.float32)
    measure_correctness(row, huge, huge, None)
    assert row.lowest_cosine == pytest.approx(1)
    zeros = np.zeros((1, 2), np.float32)
    measure_correctness(row, zeros, zeros, None)
    assert row.lowest_cosine == 0
    measure_correctness(row, np.array([[1, 1e-4]], np.float32), np.array([[1, 0]], np.float32), None)
    assert row.lowest_cosine is not None
    assert 1 - row.lowest_cosine == pytest.approx(5e-9, rel=1e-3)
