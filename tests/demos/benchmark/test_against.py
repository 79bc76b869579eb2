"""The same artifact under another interpreter, in the same rounds."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from demos.benchmark.workers import Worker, check_python
from simplenet.errors import BackendError, UsageError
from tests.conftest import MakeArtifact
from tests.demos.conftest import RunDemo

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs socketpair and pass_fds")
OPTIONS = {"backend": "onnxruntime", "precision": "fp32", "threads": 1}


@pytest.fixture
def other_python(tmp_path: Path) -> str:
    """An interpreter at another path: a script that runs this one."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.slow
def test_rows_of_another_interpreter_are_measured(
    run_demo: RunDemo, make_artifact: MakeArtifact, other_python: str
) -> None:
    root = make_artifact("onnx", "fp32").folder.parents[1]
    flags = ["--backend", "onnxruntime", "--precision", "fp32", "--artifacts", root, "--limit", "20", "--samples", "24"]
    result = run_demo("compare", *flags, "--rounds", "6", "--threads", "1", "--against", other_python)
    assert result.returncode == 0, result.stderr
    rows = [line.split()[:3] for line in result.stdout.splitlines() if line.startswith(" onnxruntime")]
    assert [row[:2] for row in rows] == [["onnxruntime", "fp32"]] * 2
    assert rows[1][2] == "(against)"
    assert "onnxruntime fp32 (against): onnxruntime 1." in result.stdout.replace("\n", " ")


def test_other_interpreter_gives_the_same_logits(make_artifact: MakeArtifact, other_python: str) -> None:
    artifact = make_artifact("onnx", "fp32")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    logits = []
    for python in (None, other_python):
        with Worker("onnxruntime fp32", artifact.folder, OPTIONS, python=python) as worker:
            worker.call("load")
            logits.append(worker.call("logits", images))
    np.testing.assert_array_equal(*logits)


def test_other_interpreter_that_dies_is_named(make_artifact: MakeArtifact, other_python: str) -> None:
    with Worker("onnxruntime fp32", make_artifact("onnx", "fp32").folder, OPTIONS, python=other_python) as worker:
        worker.call("load")
        assert worker._process.pid is not None
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(BackendError, match=r"onnxruntime fp32 died during warm_up \(exit code -9\)"):
            worker.call("warm_up")
    assert not worker._process.is_alive()


def test_refuses_what_is_no_interpreter(tmp_path: Path, run_demo: RunDemo) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')  # without installed packages
    bare.chmod(0o755)
    for python, reason in (
        ("/nowhere/python", "No such file"),
        (str(tmp_path), "Permission denied"),
        ("/bin/false", "cannot run this project: no message"),
        (str(bare), "No module named 'numpy'"),
    ):
        with pytest.raises(UsageError, match=reason) as error:
            check_python(python)
        assert "\n" not in str(error.value)
    result = run_demo("compare", "--against", "/nowhere/python")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)


def test_environment_of_this_interpreter_is_not_passed_on(
    make_artifact: MakeArtifact, other_python: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('wrong numpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check_python(other_python)
    artifact = make_artifact("onnx", "fp32")
    with Worker("onnxruntime fp32", artifact.folder, OPTIONS, python=other_python) as worker:
        load_ms, described = worker.call("load")
    assert load_ms > 0
    assert json.dumps(described.versions).startswith('{"onnxruntime": ')
