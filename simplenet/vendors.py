"""Import vendors' packages without their telemetry and without writing to the user's home folder.

Importing OpenVINO or NNCF reports to Google Analytics, writes ~/intel, and fails without a home folder. Importing ONNX
Runtime 1.29 or later writes a device id to ~/.cache/Microsoft, and half a minute later it reports to Microsoft.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from simplenet.errors import BackendUnavailable, one_line, raise_if_from_signal_handler

_ONNXRUNTIME_SWITCH = "ORT_DISABLE_TELEMETRY"  # read during the import; disable_telemetry_events() comes too late
_OPENVINO_TELEMETRY = "openvino_telemetry"  # without this package, OpenVINO and NNCF report nothing

_lock = threading.Lock()
_open_blocks = 0
_saved: tuple[str | None, Any] = (None, None)
"""The caller's value of the switch and the caller's telemetry module, to restore them."""


def vendor_import(module: str, extra: str) -> ModuleType:
    """Import a package of an extra of pyproject.toml; raise BackendUnavailable with the pip command."""
    has_home = os.path.expanduser("~") != "~"  # noqa: PTH111 - Path.home raises
    home = contextlib.nullcontext() if has_home else _environment("HOME", tempfile.gettempdir())  # NNCF needs one
    try:
        with telemetry_off(), home:
            return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library is missing
        raise_if_from_signal_handler(error)
        is_missing = isinstance(error, ModuleNotFoundError)  # else a shared library is missing, or versions do not fit
        advice = (
            "install it with: pip install"
            if is_missing
            else "install what is missing, or versions that fit: pip install"
        )
        raise BackendUnavailable(f"{module} cannot be imported ({one_line(error)}); {advice} '.[{extra}]'") from error


@contextlib.contextmanager
def telemetry_off() -> Iterator[None]:
    """Turn off the telemetry of packages that the block imports, and of those imported before it.

    Also a decorator. Blocks of several threads may overlap; the last to end restores the caller's environment.
    """
    global _open_blocks, _saved
    with _lock:
        if _open_blocks == 0:
            _stop_reports()
            _saved = (os.environ.get(_ONNXRUNTIME_SWITCH), sys.modules.get(_OPENVINO_TELEMETRY))
            os.environ[_ONNXRUNTIME_SWITCH] = "1"
            sys.modules[_OPENVINO_TELEMETRY] = None  # type: ignore[assignment]  # an import of it raises ImportError
        _open_blocks += 1
    try:
        yield
    finally:
        with _lock:
            _open_blocks -= 1
            if _open_blocks == 0:
                _restore(os.environ, _ONNXRUNTIME_SWITCH, _saved[0])
                _restore(sys.modules, _OPENVINO_TELEMETRY, _saved[1])
                _stop_reports()


def _restore(table: Any, key: str, value: Any) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _stop_reports() -> None:
    """Turn telemetry off in packages that the caller imported before, and in Windows builds."""
    with contextlib.suppress(Exception):
        sys.modules["onnxruntime"].disable_telemetry_events()
    with contextlib.suppress(Exception):  # no module, or nothing has started its telemetry
        sys.modules[_OPENVINO_TELEMETRY].Telemetry().consent = False


@contextlib.contextmanager
def matplotlib_cache() -> Iterator[None]:
    """Let matplotlib, imported in the block, write its font list to a temporary folder."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _environment("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR") or folder),
    ):
        yield


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    own = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        _restore(os.environ, name, own)
