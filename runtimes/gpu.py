"""What the TensorRT exporter and backend share: import TensorRT, find the GPU, check CUDA calls."""

from __future__ import annotations

import importlib
import platform
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from simplenet.errors import BackendError, BackendUnavailable, one_line
from simplenet.vendors import vendor_import

# TensorRT-RTX: the metapackage's module, or that of the bindings if only they are installed.
_MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
TENSORRTS = tuple(_MODULES)

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation


@dataclass(frozen=True)
class Gpu:
    """A GPU's name and compute capability, such as 'sm86'."""

    name: str
    compute_capability: str


def tensorrt(builder: str) -> ModuleType:
    """Import 'tensorrt' (10 or 11) or 'tensorrt-rtx'.

    Raises:
        BackendUnavailable: not installed, or its libraries cannot be loaded.
    """
    reasons = []
    for name in _MODULES[builder]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: a shared library is missing
            reasons.append(one_line(error, 120))
    raise BackendUnavailable(f"{builder} cannot be imported ({'; '.join(reasons)}); {_install(builder)}")


def first_gpu(purpose: str) -> Gpu:
    """Return the first GPU that CUDA lists, on which engines run; CUDA_VISIBLE_DEVICES selects another.

    Args:
        purpose: what needs the GPU, for the error message: 'this TensorRT engine'.

    Raises:
        BackendUnavailable: no driver, no GPU, or no cuda-python.
    """
    cuda = cuda_runtime()
    error, count = cuda.cudaGetDeviceCount()
    if int(error) or not count:
        _, driver = cuda.cudaDriverGetVersion()
        _, needed = cuda.cudaRuntimeGetVersion()
        found = "no NVIDIA driver is loaded" if not driver else f"CUDA reports: {_text(cuda, error)}"
        if 0 < driver < needed:
            found = f"the driver supports CUDA {_version(driver)}, cuda-bindings needs {_version(needed)}"
        raise BackendUnavailable(f"{purpose} needs an NVIDIA GPU and driver to run; {found} (see: nvidia-smi)")
    properties = checked(cuda.cudaGetDeviceProperties(0))
    return Gpu(properties.name.decode(errors="replace"), f"sm{properties.major}{properties.minor}")


def cuda_runtime() -> ModuleType:
    """cuda-python's `cuda.bindings.runtime`, which includes libcudart.

    Raises:
        BackendUnavailable: not installed.
    """
    return vendor_import("cuda.bindings.runtime", "tensorrt")


def checked(result: tuple[Any, ...]) -> Any:
    """Return the value of a CUDA call, which returns (status,) or (status, value).

    Raises:
        BackendError: the status is an error.
    """
    error, *values = result
    if int(error):
        advice = "; free GPU memory, or export with a smaller --batch" if int(error) == _OUT_OF_MEMORY else ""
        raise BackendError(f"CUDA failed: {_text(cuda_runtime(), error)}{advice}")
    return values[0] if values else None


def error_log(trt: ModuleType) -> Any:
    """A TensorRT logger that prints nothing and keeps the first error; `.reason()` returns and clears it."""
    levels = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

    class ErrorLog(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.first = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in levels:
                self.first = self.first or message  # the first error causes the later ones

        def reason(self) -> str:
            """The first error since the last call, as one line."""
            first, self.first = self.first, ""
            return one_line(first or "TensorRT gave no reason")

    return ErrorLog()


def _install(builder: str) -> str:
    if builder == "tensorrt":
        return (
            "on a Jetson it is part of JetPack (create the environment with --system-site-packages), "
            "elsewhere type: pip install tensorrt"
        )
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"it has no wheel for {platform.machine()}; use the full TensorRT on the target device"
    return "install it with: pip install '.[tensorrt]'"


def _text(cuda: ModuleType, error: Any) -> str:
    _, text = cuda.cudaGetErrorString(error)
    return f"{text.decode(errors='replace')} (error {int(error)})"


def _version(number: int) -> str:
    """13050 -> '13.5'."""
    return f"{number // 1000}.{number % 1000 // 10}"
