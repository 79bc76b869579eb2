"""ONNX Runtime: `pip install onnxruntime` (CPU) or `onnxruntime-gpu` (device='cuda')."""

from __future__ import annotations

import contextlib
import sys
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
                f"this onnxruntime has no {provider}; type: pip uninstall onnxruntime && pip install onnxruntime-gpu"
            )
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.inter_op_num_threads = 1
        settings.add_session_config_entry(
            "session.intra_op.allow_spinning", "1" if self.options.allow_spinning else "0"
        )
        settings.log_severity_level = 3  # errors; everything else is raised or described
        providers: list[Any] = [provider]
        if self.device == "cuda":
            if hasattr(ort, "preload_dlls"):  # since 1.21: CUDA's libraries, where they come from pip's packages
                with contextlib.redirect_stdout(sys.stderr):
                    ort.preload_dlls()
            settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")  # not even of single nodes
            providers = [(provider, {"use_tf32": "0"})]  # by default it computes "fp32" with 10 bits of mantissa
        self._session = ort.InferenceSession(self.artifact.model_file, settings, providers=providers, enable_fallback=0)
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

        on_cpu = self.device == "cpu"
        notes = {
            ("cpu", "fp16"): "fp16 is computed as fp32 where a CPU kernel is missing",
            ("cuda", "int8"): "int8 weights and activations, computed in floating point where a CUDA kernel is missing",
        }
        note = notes.get((self.device, self.precision))
        return Description(
            backend=self.name,
            device=_PROVIDERS[self.device],
            precision=self.precision,
            threads=self.threads if on_cpu else None,
            versions={"onnxruntime": onnxruntime.__version__},
            notes=(note,) if note else (),
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
