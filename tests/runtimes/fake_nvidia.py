"""A fake GPU: replaces `tensorrt` and `cuda.bindings.runtime`, and checks the order of their calls.

It tests the order of calls, what is freed and which errors are raised, but nothing about real engines. Work on a stream
runs when the stream is synchronized; during a capture it is recorded and does not run; copying freed memory is an
error; every call can be made to fail.
"""

from __future__ import annotations

import ctypes
import enum
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

CLASSES, SIDE = 3, 4

Work = Callable[[], None]


class MemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1  # noqa: N815
    cudaMemcpyDeviceToHost = 2  # noqa: N815


class CaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1  # noqa: N815


class FakeNvidia:
    """`calls`: names of all calls, in order. `alive`: allocated resources that are not freed yet."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.alive: dict[int, Any] = {}
        self.fail: dict[str, int] = {}
        """CUDA calls that fail, and the error number that they return."""
        self.fail_at: int | None = None
        """Index, from 0, of the CUDA call that fails."""
        self.queue: list[Work] = []
        self.recording: list[Work] | None = None
        self.capturable = True
        self.refuse_while_recording = False
        self.refuse: set[str] = set()
        """TensorRT calls that return False or None."""
        self.batch = 1
        self.profile = (1, 2, 4)
        self.classes = CLASSES
        self.device_count = 1
        self.driver = 13000

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", self.cuda())
        monkeypatch.setitem(sys.modules, "tensorrt", self.tensorrt())
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", self.tensorrt(allocates_memory=False))

    def count(self, call: str) -> int:
        return self.calls.count(call)

    # CUDA

    def result(self, name: str, *values: Any) -> tuple[Any, ...]:
        """Status and values of a call; after a failure one None for each value, as in cuda-python."""
        number = self.fail.get(name, 0)
        if self.fail_at is not None and self.fail_at == len(self.calls):
            number = 700
        self.calls.append(name)
        return (number, *(None for _ in values)) if number else (0, *values)

    def allocate(self, name: str, resource: Any) -> tuple[Any, ...]:
        address = ctypes.addressof(resource) if isinstance(resource, ctypes.Array) else id(resource)
        status, value = self.result(name, address)
        if not status:
            self.alive[address] = resource
        return status, value

    def free(self, name: str, address: Any) -> tuple[Any, ...]:
        assert int(address) in self.alive, f"{name} of a resource that is not alive"
        self.calls.append(name)
        del self.alive[int(address)]
        return (0,)

    def enqueue(self, work: Work) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def copy(self, target: int, source: int, size: int, _kind: Any, _stream: Any) -> tuple[Any, ...]:
        self.enqueue(lambda: self._copy_now(int(target), int(source), size))
        return self.result("cudaMemcpyAsync")

    def _copy_now(self, target: int, source: int, size: int) -> None:
        for address in (target, source):
            assert any(start <= address <= start + ctypes.sizeof(array) - size for start, array in self.arrays()), (
                "copy outside of allocated memory"
            )
        ctypes.memmove(target, source, size)

    def arrays(self) -> list[tuple[int, Any]]:
        return [(start, array) for start, array in self.alive.items() if isinstance(array, ctypes.Array)]

    def synchronize(self, _stream: Any) -> tuple[Any, ...]:
        assert self.recording is None, "synchronized a stream during a capture"
        for work in self.queue:
            work()
        self.queue.clear()
        return self.result("cudaStreamSynchronize")

    def begin_capture(self, _stream: Any, _mode: Any) -> tuple[Any, ...]:
        (status,) = self.result("cudaStreamBeginCapture")
        if not status:
            self.recording = []
        return (status,)

    def end_capture(self, _stream: Any) -> tuple[Any, ...]:
        assert self.recording is not None
        recorded, self.recording = self.recording, None
        return self.allocate("cudaStreamEndCapture", recorded)

    def instantiate(self, graph: int, _flags: int) -> tuple[Any, ...]:
        return self.allocate("cudaGraphInstantiate", list(self.alive[graph]))

    def launch(self, graph: int, _stream: Any) -> tuple[Any, ...]:
        self.queue.extend(self.alive[graph])
        return self.result("cudaGraphLaunch")

    def cuda(self) -> ModuleType:
        module: Any = ModuleType("cuda.bindings.runtime")
        properties = type("Properties", (), {"name": b"Fake GPU", "major": 8, "minor": 6})()
        module.cudaStreamNonBlocking = 1
        module.cudaMemcpyKind = MemcpyKind
        module.cudaStreamCaptureMode = CaptureMode
        module.cudaGetErrorString = lambda error: (0, {2: b"out of memory"}.get(int(error), b"something went wrong"))
        module.cudaGetDeviceCount = lambda: (0, self.device_count) if self.device_count else (100, None)
        module.cudaDriverGetVersion = lambda: (0, self.driver)
        module.cudaRuntimeGetVersion = lambda: (0, 13000)
        module.cudaGetLastError = lambda: (0,)
        module.cudaGetDeviceProperties = lambda _device: self.result("cudaGetDeviceProperties", properties)
        module.cudaSetDevice = lambda _device: self.result("cudaSetDevice")
        module.cudaStreamCreateWithFlags = lambda _flags: self.allocate("cudaStreamCreateWithFlags", object())
        module.cudaMallocHost = lambda size: self.allocate("cudaMallocHost", (ctypes.c_uint8 * size)())
        module.cudaMalloc = lambda size: self.allocate("cudaMalloc", (ctypes.c_uint8 * size)())
        module.cudaMemcpyAsync = self.copy
        module.cudaStreamSynchronize = self.synchronize
        module.cudaStreamBeginCapture = self.begin_capture
        module.cudaStreamEndCapture = self.end_capture
        module.cudaGraphInstantiate = self.instantiate
        module.cudaGraphLaunch = self.launch
        for name in ("cudaStreamDestroy", "cudaFreeHost", "cudaFree", "cudaGraphDestroy", "cudaGraphExecDestroy"):
            setattr(module, name, lambda address, name=name: self.free(name, address))
        return module  # type: ignore[no-any-return]

    # TensorRT

    def tensorrt(self, allocates_memory: bool = True) -> ModuleType:
        """`allocates_memory`: contexts allocate their own memory, unlike those of our TensorRT-RTX engines."""
        module: Any = ModuleType("tensorrt")
        fake = self

        class Strategy(enum.Enum):
            STATIC = 0
            USER_MANAGED = 2

        class ILogger:
            Severity = enum.IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING")

            def log(self, severity: Any, message: str) -> None:
                raise NotImplementedError

        class Runtime:
            def __init__(self, log: Any) -> None:
                self.log = log

            def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
                if "deserialize_cuda_engine" in fake.refuse:
                    self.log.log(ILogger.Severity.WARNING, "a warning that is not the reason")
                    self.log.log(ILogger.Severity.ERROR, "the plan is of\nanother version")
                    return None
                return Engine()

        class Engine:
            num_io_tensors = 2

            def get_tensor_name(self, index: int) -> str:
                return ("image", "logits")[index]

            def get_tensor_dtype(self, name: str) -> str:
                return {"image": "uint8", "logits": "float32"}[name]

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                batch = fake.batch
                return (batch, SIDE, SIDE, 3) if name == "image" else (batch, fake.classes)

            def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
                assert (name, profile) == ("image", 0)
                return [(size, SIDE, SIDE, 3) for size in fake.profile]

            device_memory_size_v2 = 512

            def create_execution_context(self, strategy: Strategy = Strategy.STATIC) -> Context | None:
                if "create_execution_context" in fake.refuse or allocates_memory != (strategy == Strategy.STATIC):
                    return None
                return Context()

        class Context:
            def __init__(self) -> None:
                self.addresses: dict[str, int] = {}
                self.memory: int | None = None
                self.shape: tuple[int, ...] | None = None

            def set_tensor_address(self, name: str, address: int) -> bool:
                self.addresses[name] = address
                return "set_tensor_address" not in fake.refuse

            def set_device_memory(self, memory: int, size: int) -> None:
                assert size == Engine.device_memory_size_v2 <= ctypes.sizeof(fake.alive[memory])
                self.memory = memory

            def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
                fake.calls.append("set_input_shape")
                self.shape = shape
                return "set_input_shape" not in fake.refuse and shape[0] in range(1, fake.profile[2] + 1)

            def is_stream_capturable(self, stream: int) -> bool:
                return fake.capturable

            def execute_async_v3(self, stream: int) -> bool:
                assert isinstance(stream, int)
                assert self.shape is not None, "ran without a shape"
                assert set(self.addresses) == {"image", "logits"}
                assert allocates_memory or self.memory in fake.alive
                fake.calls.append("execute_async_v3")
                if "execute_async_v3" in fake.refuse or (fake.refuse_while_recording and fake.recording is not None):
                    return False
                shape = self.shape
                fake.enqueue(lambda: self._infer(shape))
                return True

            def _infer(self, shape: tuple[int, ...]) -> None:
                count = int(np.prod(shape))
                pixels = np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(self.addresses["image"]))
                buffer = (ctypes.c_float * (shape[0] * CLASSES)).from_address(self.addresses["logits"])
                np.ctypeslib.as_array(buffer)[:] = expected_logits(pixels.reshape(shape)).ravel()

        module.__version__, module.ExecutionContextAllocationStrategy = "10.99", Strategy
        module.ILogger, module.Runtime, module.nptype = ILogger, Runtime, np.dtype
        return module  # type: ignore[no-any-return]


def expected_logits(batch: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The fake engine's logits: the mean of each channel."""
    means: np.ndarray[Any, np.dtype[np.float32]] = batch.astype(np.float32).mean(axis=(1, 2))
    return means
