"""PyTorch (`pip install torch`) runs the exported program (.pt2): the reference for other backends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy.typing as npt

from runtimes import pt2_archive
from runtimes.base import Description, Float32Array, Runtime
from simplenet import hardware
from simplenet.errors import BackendUnavailable
from simplenet.vendors import vendor_import

_WAIT_POLICY = "OMP_WAIT_POLICY"
_SPINNING_NOTE = "idle threads spin: PyTorch was imported before, or OMP_WAIT_POLICY is set"


class Backend(Runtime):
    """One ExportedProgram, run eagerly. It neither uses nor changes the caller's settings of PyTorch."""

    FORMATS = ("torch",)
    DEVICES = ("cpu", "cuda")
    PRECISIONS = {"fp32": ("bf16",)}

    def _open(self) -> None:
        if not self.options.allow_spinning:
            self.disable_spinning()
        is_passive = os.environ.get(_WAIT_POLICY, "").lower() == "passive"
        self._spins_anyway = not self.options.allow_spinning and not is_passive
        # The OpenMP library of Linux hangs in a thread that used it before a fork; a new thread works.
        self._thread = ThreadPoolExecutor(1) if "torch" in sys.modules and hardware.is_forked() else None
        torch = self._torch = vendor_import("torch", "torch")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BackendUnavailable("PyTorch finds no NVIDIA GPU; check the driver, or use device='cpu'")
        self._call(self._load)

    def _load(self) -> None:
        from simplenet.model import torch_defaults

        torch = self._torch
        with self._settings(), torch_defaults():
            program = torch.export.load(pt2_archive.checked(self.artifact.model_file, self.artifact.read()))
        if self.device == "cuda":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, f"cuda:{torch.cuda.current_device()}")
        self._module = program.module()
        if self.precision == "bf16":
            for parameter in self._module.parameters():
                if parameter.ndim > 1:  # otherwise autocast converts the weights in every inference
                    parameter.data = parameter.data.bfloat16()

    def _run(self, batch: npt.NDArray[Any]) -> Float32Array:
        logits: Float32Array = self._call(self._infer, batch)
        return logits

    def _infer(self, batch: npt.NDArray[Any]) -> Float32Array:
        torch = self._torch
        with self._settings(), torch.inference_mode():
            logits: Float32Array = self._module(torch.from_numpy(batch).to(self.device)).float().cpu().numpy()
        return logits

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._thread.submit(function, *arguments).result() if self._thread else function(*arguments)

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        """Replace the caller's settings of PyTorch during the block."""
        torch, is_bf16 = self._torch, self.precision == "bf16"
        with contextlib.ExitStack() as callers:
            if self.device == "cuda":
                for operation in (torch.backends.cudnn.conv, torch.backends.cuda.matmul):
                    callers.callback(setattr, operation, "fp32_precision", operation.fp32_precision)
                    operation.fp32_precision = "ieee"  # TF32, the default of convolutions, has a mantissa of 10 bits
            elif (threads := torch.get_num_threads()) != self.threads:
                callers.callback(torch.set_num_threads, threads)
                torch.set_num_threads(self.threads)
            if is_bf16 or torch.is_autocast_enabled(self.device):  # entering it takes 9 microseconds
                callers.enter_context(torch.autocast(self.device, torch.bfloat16, enabled=is_bf16))
            yield

    def _close(self) -> None:
        del self._module
        if self._thread:
            self._thread.shutdown()

    def _describe(self) -> Description:
        on_cpu = self.device == "cpu"
        return Description(
            backend=self.name,
            device="CPU" if on_cpu else self._torch.cuda.get_device_name(),
            precision=self.precision,
            threads=self.threads if on_cpu else None,
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
