"""OpenVINO (`pip install openvino`) on x86 and Arm CPUs, Intel GPUs (device='gpu') and NPUs ('npu')."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy.typing as npt

from runtimes.base import Description, Float32Array, Runtime
from simplenet.errors import BackendError, BackendUnavailable
from simplenet.manifest import METADATA_KEY
from simplenet.vendors import vendor_import

# INFERENCE_PRECISION_HINT of each precision. The quantized layers of an int8 model compute in int8 whatever the hint.
_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


class Backend(Runtime):
    """One compiled model with one infer request. Opens OpenVINO and ONNX artifacts."""

    FORMATS = ("openvino", "onnx")
    DEVICES = ("cpu", "gpu", "npu")
    PRECISIONS = {"fp32": ("bf16",)}
    _process_id: ClassVar[int | None] = None
    """The process that compiled the first model."""

    def _open(self) -> None:
        # OpenVINO compiles with threads that a fork does not copy: 4 of 14 loads in forked processes hung.
        if Backend._process_id not in (None, os.getpid()):
            raise BackendError(
                "OpenVINO was used before this process was forked, and cannot load models here; start the process with "
                "multiprocessing's 'spawn' or 'forkserver', or load the first model after the fork"
            )
        self._openvino = vendor_import("openvino", "openvino")
        core, device = self._openvino.Core(), self.device.upper()
        if device not in {name.split(".")[0] for name in core.available_devices}:  # a second GPU is 'GPU.1'
            raise BackendUnavailable(
                f"OpenVINO finds no {device}, only {', '.join(core.available_devices)}; check the driver"
            )
        if self.precision == "bf16" and "BF16" not in core.get_property(device, "OPTIMIZATION_CAPABILITIES"):
            raise BackendUnavailable(f"this {device} does not support bf16; load the artifact with precision='fp32'")
        # Without a hint, OpenVINO runs fp32 models in bf16 on CPUs that support it. fp16 artifacts have fp16 weights,
        # but compute in float32 on CPUs.
        hint = "f32" if device == "CPU" and self.precision == "fp16" else _HINTS[self.precision]
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device != "NPU":  # NPUs always compute in fp16
            settings["INFERENCE_PRECISION_HINT"] = hint
        if device == "CPU":
            settings |= {"INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1}
        Backend._process_id = os.getpid()
        weights = self.artifact.read("model.bin") if self.manifest.format == "openvino" else b""
        self._compiled = core.compile_model(core.read_model(self.artifact.read(), weights), device, settings)
        self._request = self._compiled.create_infer_request()

    def _run(self, batch: npt.NDArray[Any]) -> Float32Array:
        self._request.set_input_tensor(self._openvino.Tensor(batch, shared_memory=True))
        self._request.infer()
        logits: Float32Array = self._request.get_output_tensor().data.copy()  # the next inference reuses this buffer
        return logits

    def _close(self) -> None:
        del self._request, self._compiled

    def _describe(self) -> Description:
        on_cpu = self.device == "cpu"
        notes = {("cpu", "fp16"): "fp16 weights, computed in fp32", ("npu", "fp32"): "computed in fp16"}
        note = notes.get((self.device, self.precision))
        return Description(
            backend=self.name,
            device=str(self._compiled.get_property("EXECUTION_DEVICES")[0]),
            precision=self.precision,
            threads=int(self._compiled.get_property("INFERENCE_NUM_THREADS")) if on_cpu else None,
            versions={"openvino": self._openvino.__version__},
            notes=(note,) if note else (),
        )

    @classmethod
    def embedded_manifest(cls, model_file: str) -> str | None:
        core = vendor_import("openvino", "openvino").Core()
        core.set_property({"ENABLE_MMAP": False})  # another program may truncate a mapped file: SIGBUS
        model = core.read_model(model_file)
        for path in ([METADATA_KEY], ["framework", METADATA_KEY]):  # the second path: ONNX files
            if model.has_rt_info(path):
                return str(model.get_rt_info(path).astype(str))
        return None
