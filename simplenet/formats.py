"""The table of model formats: files, precisions, and the backend that opens each by default."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""All precisions that a model can run in. No artifact is bf16: fp32 artifacts can run in it."""


@dataclass(frozen=True)
class Format:
    """A row of the table.

    `files` are the model files of an artifact. A backend opens the first one; its suffix is different in every format.
    `precisions` are those that export/to_<name>.py makes, fp32 first.
    """

    name: str
    files: tuple[str, ...]
    precisions: tuple[str, ...]
    default_backend: str

    @property
    def model_file(self) -> str:
        return self.files[0]


FORMATS = {
    format.name: format
    for format in (
        Format("torch", ("model.pt2",), ("fp32",), default_backend="torch"),
        Format("onnx", ("model.onnx",), ("fp32", "fp16", "int8"), default_backend="onnxruntime"),
        Format("openvino", ("model.xml", "model.bin"), ("fp32", "fp16", "int8"), default_backend="openvino"),
        Format("tensorrt", ("model.engine",), ("fp32", "fp16", "int8"), default_backend="tensorrt"),
    )
}
"""Formats by name; PyTorch, the reference, comes first."""
