"""TensorRT 10, 11 and TensorRT-RTX on an NVIDIA GPU: `pip install '.[tensorrt]'`, or JetPack's own TensorRT.

Pinned buffers on the host, one stream, and for a fixed batch one CUDA graph that copies in, infers and copies out.
An engine holds code for the GPU: load only engines from people you trust.
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
    """One engine, one execution context. A batch larger than the engine's largest goes through in parts."""

    FORMATS = ("tensorrt",)
    DEVICES = ("cuda",)

    def _open(self) -> None:
        builder = (self.manifest.target or {}).get("builder")
        if builder not in gpu.TENSORRTS:
            raise ArtifactError(
                f"the manifest of {self.artifact.model_file} names no builder this program knows ({builder!r}); "
                "export it again"
            )
        self._builder = str(builder)
        self._gpu = gpu.first_gpu("this TensorRT engine")
        self._cuda = gpu.cuda_runtime()
        self._trt = gpu.tensorrt(self._builder)
        gpu.checked(self._cuda.cudaSetDevice(0))
        with contextlib.ExitStack() as resources:  # frees everything, last first, should anything below fail
            self._load_engine()
            self._allocate(resources)
            self._graph, self._graph_note = self._capture_graph(resources)
            self._resources = resources.pop_all()

    def _load_engine(self) -> None:
        self._log = gpu.error_log(self._trt)  # must outlive the three below
        self._runtime = self._trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(self.artifact.model_file.read_bytes())
        if self._engine is None:
            its_gpu_is_here = self._gpu.compute_capability in (
                (self.manifest.target or {}).get("compute_capabilities") or ()
            )
            raise (BackendError if its_gpu_is_here else BackendUnavailable)(
                f"{self._mismatch()}; export it again for this machine ({self._log.reason()})"
            )
        strategy = [self._trt.ExecutionContextAllocationStrategy.USER_MANAGED] if self._needs_memory else []
        self._context = self._engine.create_execution_context(*strategy)
        if self._context is None:
            raise BackendError(f"{self._builder} cannot start {self.artifact.model_file}: {self._log.reason()}")

    @property
    def _needs_memory(self) -> bool:
        """TensorRT-RTX's engines are built so that CUDA graphs can record them; those take no memory by themselves."""
        return self._builder == "tensorrt-rtx"

    def _allocate(self, resources: contextlib.ExitStack) -> None:
        """The stream, and for the largest batch the input and logits, on the host (pinned) and on the GPU."""
        cuda, spec, output, classes = self._cuda, self.manifest.input, self.manifest.output, self.manifest.num_classes
        self._check_tensor(spec.name, self._dtype, spec.shape)
        self._check_tensor(output, np.dtype(np.float32), (spec.batch, classes))
        # A dynamic engine's profile is (smallest, preferred, largest) shape.
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
        """A pinned array for the largest batch and the address of its twin on the GPU, given to the context."""
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
        """A CUDA graph of one whole inference and a note of it, or None and the reason why there is none."""
        if self.manifest.input.batch is None:
            return None, "no CUDA graph: the batch is dynamic"
        cuda, stream = self._cuda, self._stream
        self._enqueue(self._largest_batch)  # TensorRT finishes its set-up in a first run, which no graph may record
        gpu.checked(cuda.cudaStreamSynchronize(stream))
        if hasattr(self._context, "is_stream_capturable") and not self._context.is_stream_capturable(int(stream)):
            return None, "no CUDA graph: TensorRT-RTX cannot record this engine"
        try:
            executable = self._record()
        except BackendError as error:
            cuda.cudaGetLastError()  # dealt with here; it must not come up again in a later call
            return None, f"no CUDA graph: {one_line(error)}"
        resources.callback(self._free, cuda.cudaGraphExecDestroy, executable)
        return executable, "CUDA graph"

    def _record(self) -> Any:
        """One inference as an executable CUDA graph."""
        cuda, stream = self._cuda, self._stream
        # Thread-local: what other threads ask of CUDA meanwhile must not spoil the recording.
        gpu.checked(cuda.cudaStreamBeginCapture(stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        try:
            self._enqueue(self._largest_batch)
        except BaseException:
            _, unfinished = cuda.cudaStreamEndCapture(stream)  # else the stream would go on recording
            if unfinished is not None:
                gpu.checked(cuda.cudaGraphDestroy(unfinished))
            raise
        graph = gpu.checked(cuda.cudaStreamEndCapture(stream))
        try:
            return gpu.checked(cuda.cudaGraphInstantiate(graph, 0))
        finally:
            gpu.checked(cuda.cudaGraphDestroy(graph))  # the executable one needs it no more

    def _enqueue(self, batch_size: int) -> None:
        """Copy in, infer, copy out: put on the stream, not waited for."""
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
        logits: Float32Array = self._host_logits[:size].copy()  # the next run writes there again
        return logits

    def _close(self) -> None:
        del self._host_input, self._host_logits  # views of the memory freed next
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
        """Copies trust these sizes, so an engine that was put beside another's manifest must not get this far."""
        tensors = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        wanted = tuple(-1 if size is None else size for size in shape)
        if name in tensors and len(tensors) == 2:
            found = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
            if found == dtype and tuple(self._engine.get_tensor_shape(name)) == wanted:
                return
        raise ArtifactError(
            f"{self.artifact.model_file} has no tensor {name} of {dtype} {list(wanted)}, which its manifest promises; "
            "export it again"
        )

    def _accepted(self, answer: bool, what: str) -> None:
        if not answer:
            raise BackendError(f"{self._builder} refused {what}: {self._log.reason()}")

    def _mismatch(self) -> str:
        target = self.manifest.target or {}
        built_for = "/".join(map(str, target.get("compute_capabilities") or ("?",)))
        return (
            f"{self.artifact.model_file} was built by {self._builder} {target.get('version')} for {built_for} on "
            f"{target.get('os')}; here are {self._builder} {self._trt.__version__}, {self._gpu.name} "
            f"({self._gpu.compute_capability}) and {platform.system()}"
        )

    @staticmethod
    def _free(release: Callable[[Any], tuple[Any, ...]], what: Any) -> None:
        gpu.checked(release(what))
