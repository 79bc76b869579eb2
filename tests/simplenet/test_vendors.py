"""Loading and exporting in a new process report to nobody, leave no file, and need no home folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simplenet.errors import BackendUnavailable
from simplenet.vendors import vendor_import
from tests.conftest import MakeArtifact

ROOT = Path(__file__).parents[2]
SWITCHES = (
    "CI",
    "TF_BUILD",
    "JENKINS_URL",
    "DO_NOT_TRACK",
    "ORT_DISABLE_TELEMETRY",
    "MPLCONFIGDIR",
    "XDG_CACHE_HOME",
    "TORCHINDUCTOR_CACHE_DIR",
)
# Strace sees the name lookups of C++ code too; where it is missing, Python's own calls are seen.
STRACE = ["strace", "-f", "-qq", "-e", "trace=connect", "-o"]
WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        os.write(2, f"{event} {arguments}".encode())
        os._exit(99)
sys.addaudithook(watch)
"""
# Users in a container: no HOME, and no line in /etc/passwd.
NO_PASSWD = """
import pwd
def getpwuid(uid):
    raise KeyError(uid)
pwd.getpwuid = getpwuid
"""
LOAD = """
import os, sys
import numpy as np
import runtimes
before = dict(os.environ)
with runtimes.load({folder!r}, {backend!r}, threads=1) as model:
    model.infer(np.zeros((1, *model.manifest.input.shape[1:]), np.uint8))
os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)  # PyTorch sets it, to a temporary folder
assert dict(os.environ) == before
assert "openvino_telemetry" not in sys.modules
"""
EXPORT = """
import export
export.make({format!r}, variant="cifar-310k", weights="fashion-mnist", precision={precision!r}, artifacts={root!r})
"""
PLOT = """
from pathlib import Path
from train import results
log = [{{"epoch": 1, "train_loss": 1, "test_loss": 1, "test_top1": 9}}]
results.write_curve(Path({root!r}) / "curve.png", "a run", log, 9)
"""
LOADS = [("torch", "torch"), ("onnx", "onnxruntime"), ("openvino", "openvino"), ("onnx", "openvino")]
SLOW = pytest.mark.slow
EXPORTS = [(f, p) for f, p in (("torch", "fp32"), ("onnx", "int8"), ("openvino", "int8"), ("tensorrt", "fp32"))]


def run(code: str, home: Path | None, trace: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in (*SWITCHES, "HOME")}
    if home is not None:
        environment["HOME"] = str(home)
    command = [sys.executable, "-c", WATCH + ("" if home else NO_PASSWD) + code]
    if trace is not None:
        command = [*STRACE, str(trace), *command]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def check_leaves_nothing(code: str, folder: Path) -> None:
    home, trace = folder / "home", folder / "trace"
    home.mkdir()
    can_trace = shutil.which("strace") and subprocess.run([*STRACE, trace, "true"], check=False).returncode == 0
    done = run(code, home, trace if can_trace else None)
    if "BackendUnavailable" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
    if can_trace:
        assert "AF_INET" not in trace.read_text()


@pytest.mark.parametrize(("format", "backend"), LOADS)
def test_load_reports_nothing(make_artifact: MakeArtifact, tmp_path: Path, format: str, backend: str) -> None:
    folder = str(make_artifact(format, "fp32").folder)
    check_leaves_nothing(LOAD.format(folder=folder, backend=backend), tmp_path)


@SLOW
@pytest.mark.parametrize(("format", "precision"), EXPORTS)
def test_export_reports_nothing(tmp_path: Path, format: str, precision: str) -> None:
    check_leaves_nothing(EXPORT.format(format=format, precision=precision, root=str(tmp_path)), tmp_path)


def test_plot_reports_nothing(tmp_path: Path) -> None:
    check_leaves_nothing(PLOT.format(root=str(tmp_path)), tmp_path)


@pytest.mark.parametrize("home", [None, "removed", "file"])
def test_load_needs_no_home(make_artifact: MakeArtifact, tmp_path: Path, home: str | None) -> None:
    (tmp_path / "file").touch()
    loads = [LOAD.format(folder=str(make_artifact(format, "fp32").folder), backend=name) for format, name in LOADS]
    done = run("".join(loads), tmp_path / home if home else None)
    assert done.returncode == 0, done.stderr


@SLOW
def test_int8_export_needs_no_home(tmp_path: Path) -> None:
    done = run(EXPORT.format(format="openvino", precision="int8", root=str(tmp_path)), None)
    assert done.returncode == 0, done.stderr


def test_silences_telemetry_that_the_caller_started(tmp_path: Path) -> None:
    code = """
import os, sys
import openvino_telemetry
started = openvino_telemetry.Telemetry("app", "1", "id", "ga4", enable_opt_in_dialog=False)
assert started.consent
os.environ["ORT_DISABLE_TELEMETRY"] = "0"
from simplenet.vendors import vendor_import
vendor_import("nncf", "openvino-export")
from nncf.telemetry import telemetry, wrapper
assert isinstance(telemetry, wrapper.NNCFTelemetryStub)
started.send_event("category", "action", "label")  # WATCH ends the process if this reports
started.sender.executor.shutdown()
assert not started.consent
assert sys.modules["openvino_telemetry"] is openvino_telemetry
assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_missing_shared_library_is_reported_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vendor_of_nothing.py").write_text("import ctypes; ctypes.CDLL('libnothing.so.9')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendUnavailable, match=r"libnothing.so.9.*pip install '.\[nothing\]'"):
        vendor_import("vendor_of_nothing", "nothing")


@pytest.mark.parametrize(("raised", "advice"), [
    ("OSError('libcudart.so.12: cannot open shared object file')", "install what is missing, or versions that fit"),
    ("ImportError('numpy._core.multiarray failed to import')", "install what is missing, or versions that fit"),
    ("ModuleNotFoundError('No module named x', name='x')", "install it with: pip install '.[onnxruntime]'"),
])  # fmt: skip
def test_a_broken_package_is_not_called_missing(
    raised: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_vendor.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendUnavailable) as caught:
        vendor_import("broken_vendor", "onnxruntime")
    assert advice in str(caught.value)
