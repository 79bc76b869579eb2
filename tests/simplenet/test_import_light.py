"""The base package can be imported with numpy alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIGHT = [
    "errors", "variants", "preprocessing", "fast_resize", "model_card", "manifest", "strict_json", "files", "artifacts",
    "cli", "labels", "images", "image_folders", "image_sets", "datasets", "download", "hardware", "formats", "metrics",
    "file_kinds", "vendors", "tiff", "tiff_pages", "image_kinds", "signals",
]  # fmt: skip
HEAVY = [
    "torch", "torchvision", "safetensors", "PIL", "cykooz_resizer", "cv2", "rich", "onnx", "onnxruntime", "onnxscript",
    "onnxslim", "openvino", "nncf", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "cuda", "psutil", "matplotlib",
    "starlette", "uvicorn", "filelock",
]  # fmt: skip
CODE = """
import importlib, sys
for name in {heavy}:
    sys.modules[name] = None
for name in {modules}:
    importlib.import_module("simplenet." + name)
"""


@pytest.mark.parametrize("modules", [LIGHT, *([name] for name in LIGHT[:3])], ids=["all", *LIGHT[:3]])
def test_imports_without_torch_or_a_vendor_package(modules: list[str]) -> None:
    code = CODE.format(heavy=HEAVY, modules=modules)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_all_modules_without_torch_are_tested() -> None:
    """A new file in simplenet/ belongs on the list above, or here."""
    files = {path.stem for path in (ROOT / "simplenet").glob("*.py")} - {"__init__"}
    assert files - set(LIGHT) <= {"model", "weights", "checkpoints", "state_dicts", "torch_files"}
