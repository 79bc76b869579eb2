"""ONNX Runtime: `pip install onnxruntime` for CPUs, `onnxruntime-gpu` for NVIDIA GPUs (device='cuda')."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy.typing as npt

from runtimes.base import Description, Float32Array, Runtime
from simplenet.errors import BackendUnavailable
from simplenet.manifest import METADATA_KEY
from simplenet.vendors import vendor_import

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Backend(Runtime):
    """One InferenceSession with one execution provider."""

    FORMATS = ("onnx",)
    DEVICES = ("cpu", "cuda")
    THREAD_SAFE = True  # InferenceSession.run is thread-safe

    def _open(self) -> None:
        ort = vendor_import("onnxruntime", "onnxruntime")
        provider = _PROVIDERS[self.device]
        if provider not in ort.get_available_providers():
            raise BackendUnavailable(
                f"onnxruntime has no {provider}; type: pip uninstall onnxruntime && pip install onnxruntime-gpu"
            )
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.inter_op_num_threads = 1
        settings.add_session_config_entry(
            "session.intra_op.allow_spinning", "1" if self.options.allow_spinning else "0"
        )
        settings.log_severity_level = 3  # errors only
        providers: list[Any] = [provider]
        if self.device == "cuda":
            if hasattr(ort, "preload_dlls"):  # since 1.21: loads CUDA libraries from pip packages
                with contextlib.redirect_stdout(sys.stderr):
                    ort.preload_dlls()
            settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")  # single nodes too
            providers = [(provider, {"use_tf32": "0"})]  # TF32 is the default, and its mantissa has 10 bits
        self._session = ort.InferenceSession(self.artifact.read(), settings, providers=providers, enable_fallback=0)
        if self._session.get_providers()[0] != provider:  # without a CUDA library it falls back silently
            raise BackendUnavailable(f"onnxruntime cannot start {provider}; install its CUDA and cuDNN libraries")
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
            ("cpu", "fp16"): "operators without an fp16 CPU kernel compute in fp32",
            ("cuda", "int8"): "operators without an int8 CUDA kernel compute in floating point",
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
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # only the metadata is read
        settings.log_severity_level = 3
        session = ort.InferenceSession(model_file, settings, providers=["CPUExecutionProvider"])
        metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        return metadata.get(METADATA_KEY)
