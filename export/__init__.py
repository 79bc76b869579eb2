"""Exporters: one script, export/to_<format>.py, for each format; `make` calls it by the format's name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simplenet import signals  # noqa: F401 - first, so that Ctrl-C during the other imports is one line
from simplenet.errors import check_choice

if TYPE_CHECKING:
    from simplenet.artifacts import Artifact

_PREFIX = "to_"


def formats() -> tuple[str, ...]:
    """The formats that have an exporter: `<format>` of each file export/to_<format>.py."""
    return tuple(sorted(file.stem[len(_PREFIX) :] for file in Path(__file__).parent.glob(f"{_PREFIX}*.py")))


def make(format: str, **options: Any) -> Artifact:
    """Export one artifact, by calling `export_<format>` of export/to_<format>.py.

    Example: `export.make("onnx", variant="1.5m", precision="int8")`.

    Args:
        format: one of `formats()`.
        options: fields of `export.request.ExportRequest`, and for TensorRT also `builder` and `targets`.

    Raises:
        UsageError: unknown format, or an option's value is invalid.
        WeightsError, DataError: the weights or the calibration images cannot be loaded.
        ExportError, AgreementError: the model cannot be converted, or its logits differ too much from PyTorch's.
        ArtifactError: the artifact cannot be written. BackendUnavailable: a package is missing.
    """
    check_choice("format", format, formats())
    module = importlib.import_module(f"export.{_PREFIX}{format}")
    artifact: Artifact = getattr(module, f"export_{format}")(**options)
    return artifact
