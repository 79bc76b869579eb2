"""What making and running engines share: which TensorRT is installed, which GPU is here, what CUDA answered."""

from __future__ import annotations

import importlib
import platform
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from runtimes.base import vendor_import
from simplenet.errors import BackendError, BackendUnavailable, one_line

# TensorRT-RTX installs its bindings alone, or under its metapackage's name.
_MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
TENSORRTS = tuple(_MODULES)

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_MOST_ERRORS = 8


@dataclass(frozen=True)
class Gpu:
    """`compute_capability` as in 'sm86'."""

    name: str
    compute_capability: str


def tensorrt(builder: str) -> ModuleType:
    """The Python module of 'tensorrt' (10 or 11) or 'tensorrt-rtx'.

    Raises:
        BackendUnavailable: not installed, or its libraries cannot be loaded.
    """
    reasons = []
    for name in _MODULES[builder]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: a shared library of TensorRT's is missing
            reasons.append(one_line(error, 120))
    raise BackendUnavailable(f"{builder} cannot be imported ({'; '.join(reasons)}); {_install(builder)}")


def first_gpu(purpose: str) -> Gpu:
    """The GPU that everything here runs on: the first that CUDA shows (CUDA_VISIBLE_DEVICES chooses another).

    Args:
        purpose: the start of the error's sentence, as in 'this TensorRT engine'.

    Raises:
        BackendUnavailable: no driver, no GPU, or no cuda-python.
    """
    cuda = cuda_runtime()
    error, count = cuda.cudaGetDeviceCount()
    if int(error) or not count:
        _, driver = cuda.cudaDriverGetVersion()
        _, needed = cuda.cudaRuntimeGetVersion()
        found = "no NVIDIA driver is loaded here" if not driver else f"CUDA says: {_text(cuda, error)}"
        if 0 < driver < needed:
            found = f"the driver here serves CUDA {_version(driver)}, cuda-bindings wants {_version(needed)}"
        raise BackendUnavailable(f"{purpose} needs an NVIDIA GPU and driver to run; {found} (see: nvidia-smi)")
    properties = checked(cuda.cudaGetDeviceProperties(0))
    return Gpu(properties.name.decode(errors="replace"), f"sm{properties.major}{properties.minor}")


def cuda_runtime() -> ModuleType:
    """cuda-python's `cuda.bindings.runtime`, which carries its own libcudart.

    Raises:
        BackendUnavailable: not installed.
    """
    return vendor_import("cuda.bindings.runtime", "tensorrt")


def checked(answer: tuple[Any, ...]) -> Any:
    """What a CUDA call returned beside its status: nothing, or one value.

    Raises:
        BackendError: the status is not success.
    """
    error, *values = answer
    if int(error):
        advice = "; free GPU memory, or export with a smaller --batch" if int(error) == _OUT_OF_MEMORY else ""
        raise BackendError(f"CUDA failed: {_text(cuda_runtime(), error)}{advice}")
    return values[0] if values else None


def error_log(trt: ModuleType) -> Any:
    """A TensorRT logger that keeps the first errors since the last question in `.errors` and prints nothing."""
    serious = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

    class ErrorLog(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in serious and len(self.errors) < _MOST_ERRORS:
                self.errors.append(message)

        def reason(self) -> str:
            """The first error since the last question, which caused the others, as one line."""
            first = self.errors[0] if self.errors else "TensorRT gave no reason"
            self.errors.clear()
            return one_line(RuntimeError(first))

    return ErrorLog()


def _install(builder: str) -> str:
    if builder == "tensorrt":
        return (
            "on a Jetson it comes with JetPack (make the environment with --system-site-packages), "
            "elsewhere: pip install tensorrt"
        )
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"it has no wheel for {platform.machine()}; the full TensorRT builds engines on the device itself"
    return "install it with: pip install '.[tensorrt]'"


def _text(cuda: ModuleType, error: Any) -> str:
    _, text = cuda.cudaGetErrorString(error)
    return f"{text.decode(errors='replace')} (error {int(error)})"


def _version(number: int) -> str:
    """13050 -> '13.5'."""
    return f"{number // 1000}.{number % 1000 // 10}"
