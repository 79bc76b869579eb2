"""TensorRT 10, 11 and TensorRT-RTX on an NVIDIA GPU.

Install it with `pip install '.[tensorrt]'`, or use the TensorRT of JetPack. The backend uses pinned host buffers,
one stream, and for a fixed batch one CUDA graph of the copies and the inference.
An engine contains GPU code: load only engines from people you trust.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from runtimes import gpu
from runtimes.base import Description, Float32Array, Runtime
from simplenet.errors import ArtifactError, BackendError, BackendUnavailable, one_line


class Backend(Runtime):
    """One engine with one execution context. Batches above the engine's largest are split."""

    FORMATS = ("tensorrt",)
    DEVICES = ("cuda",)

    def _open(self) -> None:
        builder = (self.manifest.target or {}).get("builder")
        if builder not in gpu.TENSORRTS:
            raise ArtifactError(
                f"the manifest of {self.artifact.model_file} names an unknown builder ({builder!r}); export it again"
            )
        self._builder = str(builder)
        self._gpu = gpu.first_gpu("this TensorRT engine")
        self._cuda = gpu.cuda_runtime()
        self._trt = gpu.tensorrt(self._builder)
        gpu.checked(self._cuda.cudaSetDevice(0))
        with contextlib.ExitStack() as resources:  # if a call below fails, everything is freed
            self._load_engine()
            self._allocate(resources)
            self._graph, self._graph_note = self._capture_graph(resources)
            self._resources = resources.pop_all()

    def _load_engine(self) -> None:
        self._log = gpu.error_log(self._trt)  # must live as long as the runtime, engine and context
        self._runtime = self._trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(self.artifact.read())
        if self._engine is None:
            is_supported_gpu = self._gpu.compute_capability in (
                (self.manifest.target or {}).get("compute_capabilities") or ()
            )
            raise (BackendError if is_supported_gpu else BackendUnavailable)(
                f"{self._mismatch()}; export it again for this machine ({self._log.reason()})"
            )
        strategy = [self._trt.ExecutionContextAllocationStrategy.USER_MANAGED] if self._needs_memory else []
        self._context = self._engine.create_execution_context(*strategy)
        if self._context is None:
            raise BackendError(f"{self._builder} cannot start {self.artifact.model_file}: {self._log.reason()}")

    @property
    def _needs_memory(self) -> bool:
        """TensorRT-RTX engines are built for CUDA graphs; their context uses memory that the caller allocates."""
        return self._builder == "tensorrt-rtx"

    def _allocate(self, resources: contextlib.ExitStack) -> None:
        """Allocate the stream, and input and logits of the largest batch in pinned host memory and on the GPU."""
        cuda, spec, output, classes = self._cuda, self.manifest.input, self.manifest.output, self.manifest.num_classes
        self._check_tensor(spec.name, self._dtype, spec.shape)
        self._check_tensor(output, np.dtype(np.float32), (spec.batch, classes))
        # The profile of a dynamic engine: smallest, preferred and largest shape.
        self._largest_batch = spec.batch or int(self._engine.get_tensor_profile_shape(spec.name, 0)[2][0])
        self._shaped_for = 0
        if self._needs_memory:
            size_bytes = max(1, int(self._engine.device_memory_size_v2))
            memory = gpu.checked(cuda.cudaMalloc(size_bytes))
            resources.callback(self._free, cuda.cudaFree, memory)
            self._context.set_device_memory(int(memory), size_bytes)
        self._stream = gpu.checked(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        resources.callback(self._free, cuda.cudaStreamDestroy, self._stream)
        self._host_input, self._device_input = self._buffers(resources, spec.name, self._shape_tail, self._dtype)
        self._host_logits, self._device_logits = self._buffers(resources, output, (classes,), np.dtype(np.float32))
        self._host_input[:] = 0

    def _buffers(
        self, resources: contextlib.ExitStack, tensor: str, shape_tail: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[npt.NDArray[Any], Any]:
        """Allocate a pinned array for the largest batch, and a GPU buffer of its size that the context uses."""
        shape = (self._largest_batch, *shape_tail)
        size_bytes = math.prod(shape) * dtype.itemsize
        pinned = gpu.checked(self._cuda.cudaMallocHost(size_bytes))
        resources.callback(self._free, self._cuda.cudaFreeHost, pinned)
        device = gpu.checked(self._cuda.cudaMalloc(size_bytes))
        resources.callback(self._free, self._cuda.cudaFree, device)
        self._accepted(self._context.set_tensor_address(tensor, int(device)), f"the address of {tensor}")
        pinned_bytes = (ctypes.c_uint8 * size_bytes).from_address(int(pinned))
        return np.ctypeslib.as_array(pinned_bytes).view(dtype).reshape(shape), device

    def _capture_graph(self, resources: contextlib.ExitStack) -> tuple[Any, str]:
        """Return a CUDA graph of one inference and a note, or None and a note with the reason."""
        if self.manifest.input.batch is None:
            return None, "no CUDA graph: the batch is dynamic"
        cuda, stream = self._cuda, self._stream
        self._enqueue(self._largest_batch)  # TensorRT's first run finishes its setup, which cannot be captured
        gpu.checked(cuda.cudaStreamSynchronize(stream))
        if hasattr(self._context, "is_stream_capturable") and not self._context.is_stream_capturable(int(stream)):
            return None, "no CUDA graph: TensorRT-RTX cannot record this engine"
        try:
            executable = self._record()
        except BackendError as error:
            cuda.cudaGetLastError()  # clear the error, or a later call returns it
            return None, f"no CUDA graph: {one_line(error)}"
        resources.callback(self._free, cuda.cudaGraphExecDestroy, executable)
        return executable, "CUDA graph"

    def _record(self) -> Any:
        """Capture one inference as an executable CUDA graph."""
        cuda, stream = self._cuda, self._stream
        # Thread-local: CUDA calls of other threads must not break the capture.
        gpu.checked(cuda.cudaStreamBeginCapture(stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        try:
            self._enqueue(self._largest_batch)
        except BaseException:
            _, unfinished = cuda.cudaStreamEndCapture(stream)  # otherwise the stream stays in capture mode
            if unfinished is not None:
                gpu.checked(cuda.cudaGraphDestroy(unfinished))
            raise
        graph = gpu.checked(cuda.cudaStreamEndCapture(stream))
        try:
            return gpu.checked(cuda.cudaGraphInstantiate(graph, 0))
        finally:
            gpu.checked(cuda.cudaGraphDestroy(graph))  # no longer needed once instantiated

    def _enqueue(self, batch_size: int) -> None:
        """Enqueue the input copy, the inference and the output copy on the stream, without waiting for them."""
        cuda, stream = self._cuda, self._stream
        if batch_size != self._shaped_for:
            shape = (batch_size, *self._shape_tail)
            self._accepted(
                self._context.set_input_shape(self.manifest.input.name, shape), f"an input of shape {list(shape)}"
            )
            self._shaped_for = batch_size
        source, target = self._host_input[:batch_size], self._host_logits[:batch_size]
        to_gpu, to_host = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        gpu.checked(cuda.cudaMemcpyAsync(self._device_input, source.ctypes.data, source.nbytes, to_gpu, stream))
        self._accepted(self._context.execute_async_v3(int(stream)), "the inference")
        gpu.checked(cuda.cudaMemcpyAsync(target.ctypes.data, self._device_logits, target.nbytes, to_host, stream))

    def _run(self, batch: npt.NDArray[Any]) -> Float32Array:
        size, largest = len(batch), self._largest_batch
        if size > largest:
            return np.concatenate([self._run(batch[start : start + largest]) for start in range(0, size, largest)])
        self._host_input[:size] = batch
        if self._graph is None:
            self._enqueue(size)
        else:
            gpu.checked(self._cuda.cudaGraphLaunch(self._graph, self._stream))
        gpu.checked(self._cuda.cudaStreamSynchronize(self._stream))
        logits: Float32Array = self._host_logits[:size].copy()  # the next inference reuses this buffer
        return logits

    def _close(self) -> None:
        del self._host_input, self._host_logits  # views of memory that is freed next
        try:
            self._resources.close()
        finally:
            del self._context, self._engine, self._runtime

    def _describe(self) -> Description:
        return Description(
            backend=self.name,
            device=f"{self._gpu.name} ({self._gpu.compute_capability})",
            precision=self.precision,
            threads=None,
            versions={self._builder: self._trt.__version__},
            notes=(self._graph_note,),
        )

    def _check_tensor(self, name: str, dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> None:
        """Raise ArtifactError unless the engine's tensor has the manifest's size, which the copies rely on."""
        tensors = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        expected = tuple(-1 if size is None else size for size in shape)
        if name in tensors and len(tensors) == 2:
            found = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
            if found == dtype and tuple(self._engine.get_tensor_shape(name)) == expected:
                return
        raise ArtifactError(
            f"{self.artifact.model_file} has no tensor {name} of {dtype} {list(expected)}, as its manifest states; "
            "export it again"
        )

    def _accepted(self, succeeded: bool, what: str) -> None:
        if not succeeded:
            raise BackendError(f"{self._builder} refused {what}: {self._log.reason()}")

    def _mismatch(self) -> str:
        target = self.manifest.target or {}
        built_for = "/".join(map(str, target.get("compute_capabilities") or ("?",)))
        return (
            f"{self.artifact.model_file} was built by {self._builder} {target.get('version')} for {built_for} on "
            f"{target.get('os')}; this machine has {self._builder} {self._trt.__version__}, {self._gpu.name} "
            f"({self._gpu.compute_capability}) and {platform.system()}"
        )

    @staticmethod
    def _free(release: Callable[[Any], tuple[Any, ...]], resource: Any) -> None:
        gpu.checked(release(resource))
