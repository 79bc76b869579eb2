"""PyTorch (`pip install torch`): runs the exported program (.pt2), the reference for all other backends."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import numpy.typing as npt

from runtimes import pt2_archive
from runtimes.base import Description, Float32Array, Runtime
from simplenet.errors import BackendUnavailable
from simplenet.vendors import vendor_import

_WAIT_POLICY = "OMP_WAIT_POLICY"
_SPINNING_NOTE = "idle threads spin: PyTorch was imported before, or OMP_WAIT_POLICY is set"


class Backend(Runtime):
    """One ExportedProgram, run eagerly. PyTorch's thread count applies to the whole process."""

    FORMATS = ("torch",)
    DEVICES = ("cpu", "cuda")
    PRECISIONS = {"fp32": ("bf16",)}

    def _open(self) -> None:
        if not self.options.allow_spinning:
            self.disable_spinning()
        is_passive = os.environ.get(_WAIT_POLICY, "").lower() == "passive"
        self._spins_anyway = not self.options.allow_spinning and not is_passive
        torch = vendor_import("torch", "torch")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BackendUnavailable("PyTorch finds no NVIDIA GPU; check the driver, or use device='cpu'")
        if self.device == "cpu":
            torch.set_num_threads(self.threads)
        program = torch.export.load(pt2_archive.checked(self.artifact.model_file, self.artifact.read()))
        if self.device == "cuda":
            from torch.export.passes import move_to_device_pass

            torch.backends.cudnn.allow_tf32 = False  # TF32 is the default, and its mantissa has 10 bits
            program = move_to_device_pass(program, f"cuda:{torch.cuda.current_device()}")
        self._torch, self._module = torch, program.module()
        self._autocast: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self.precision == "bf16":
            self._autocast = torch.autocast(self.device, torch.bfloat16)
            for parameter in self._module.parameters():
                if parameter.ndim > 1:  # otherwise autocast converts the weights in every inference
                    parameter.data = parameter.data.bfloat16()

    def _run(self, batch: npt.NDArray[Any]) -> Float32Array:
        with self._torch.inference_mode(), self._autocast:
            logits: Float32Array = self._module(self._torch.from_numpy(batch).to(self.device)).float().cpu().numpy()
        return logits

    def _close(self) -> None:
        del self._module

    def _describe(self) -> Description:
        on_cpu = self.device == "cpu"
        return Description(
            backend=self.name,
            device="CPU" if on_cpu else self._torch.cuda.get_device_name(),
            precision=self.precision,
            threads=self._torch.get_num_threads() if on_cpu else None,
            versions={"torch": self._torch.__version__},
            notes=(_SPINNING_NOTE,) if on_cpu and self._spins_anyway else (),
        )

    @classmethod
    def disable_spinning(cls) -> None:
        # PyTorch's OpenMP reads the variable once, when PyTorch is imported (OpenMP 5.2, 21.2.5).
        if "torch" not in sys.modules:
            os.environ.setdefault(_WAIT_POLICY, "passive")

    @classmethod
    def embedded_manifest(cls, model_file: str) -> str | None:
        return pt2_archive.embedded_manifest(model_file)
