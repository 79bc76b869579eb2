"""ONNX Runtime: `pip install onnxruntime` (CPU) or `onnxruntime-gpu` (device='cuda')."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from runtimes.base import Description, Float32Array, Runtime, vendor_import
from simplenet.artifacts import METADATA_KEY
from simplenet.errors import BackendUnavailable

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Backend(Runtime):
    """One InferenceSession on exactly one execution provider."""

    FORMATS = ("onnx",)
    DEVICES = ("cpu", "cuda")
    THREAD_SAFE = True  # InferenceSession.run may be called by several threads

    def _open(self) -> None:
        ort = vendor_import("onnxruntime", "onnxruntime")
        provider = _PROVIDERS[self.device]
        if provider not in ort.get_available_providers():
            raise BackendUnavailable(
                f"this onnxruntime has no {provider}; replace it with: pip install onnxruntime-gpu"
            )
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.inter_op_num_threads = 1
        settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if self.options.spinning else "0")
        settings.log_severity_level = 3  # errors; everything else is raised or described
        self._session = ort.InferenceSession(self.artifact.model_file, settings, providers=[provider])
        if self._session.get_providers()[0] != provider:  # a missing CUDA library makes it fall back without a word
            raise BackendUnavailable(f"onnxruntime could not start {provider}; check its CUDA and cuDNN libraries")
        self._input = self.manifest.input.name
        self._outputs = [self.manifest.output]

    def _run(self, batch: npt.NDArray[Any]) -> Float32Array:
        logits: Float32Array = self._session.run(self._outputs, {self._input: batch})[0]
        return logits

    def _close(self) -> None:
        del self._session

    def _describe(self) -> Description:
        import onnxruntime

        notes = ("fp16 is computed as fp32 where a CPU kernel is missing",) if self.precision == "fp16" else ()
        return Description(
            backend=self.name,
            device=_PROVIDERS[self.device],
            precision=self.precision,
            threads=self.threads,
            versions={"onnxruntime": onnxruntime.__version__},
            notes=notes if self.device == "cpu" else (),
        )

    @classmethod
    def embedded_manifest(cls, model_file: str) -> str | None:
        ort = vendor_import("onnxruntime", "onnxruntime")
        settings = ort.SessionOptions()
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # only its metadata is wanted
        settings.log_severity_level = 3
        session = ort.InferenceSession(model_file, settings, providers=["CPUExecutionProvider"])
        metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        return metadata.get(METADATA_KEY)
