"""Worker processes: each loads one artifact on one backend, so that backends do not affect each other.

A worker waits on a pipe, without using the processor, until the parent calls a method of its `TimedModel`. The parent
calls one worker at a time, and a worker replies only when the runtime's idle threads have stopped spinning, so
backends do not compete for cores.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.process
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import runtimes
from runtimes import timing
from simplenet import hardware
from simplenet.errors import BackendError, SimpleNetError, UntrainedWarning, UsageError, one_line
from simplenet.preprocessing import model_batch

CALL_TIMEOUT_S = 600
_UNCOUNTED_CALLS, _UNCOUNTED_S = 3, 0.03
"""How many calls, and for how long, are discarded before each measurement: the caches hold another backend's data, and
the system first runs both threads on one core. After 10 ms OpenVINO took 0.48 ms, after 30 and 50 ms 0.35 ms."""
_UNCOUNTED_CLASSIFICATIONS = 10
"""With one, the end-to-end p50 was 20 % above that of a loop; preprocessing is not in the caches."""
_REST_TIMEOUT_S = 0.2
STAGES = ("inference", "end_to_end", "preprocess", "postprocess")
"""What is timed. End to end is from a frame to its top-5, and includes preprocess and postprocess (softmax, ranking).

Inference includes the copies to and from a GPU: a CUDA graph runs all three at once, so they cannot be separated.
"""
_NAP_S = max(0.002, 2 * time.get_clock_info("process_time").resolution)


class TimedModel:
    """In the worker process: the loaded runtime, and the methods that the parent may call."""

    def __init__(self, artifact: Path, options: dict[str, Any]) -> None:
        start = time.perf_counter()
        self._runtime = runtimes.load(artifact, **options)
        self._load_ms = (time.perf_counter() - start) * 1e3
        self._batches: list[npt.NDArray[Any]] = []
        self._frame = np.zeros((1, 1, 3), np.uint8)
        self._calls = 0

    def load(self) -> tuple[float, runtimes.Description]:
        """Return the load time in milliseconds, package import included, and what was loaded."""
        return self._load_ms, self._runtime.describe()

    def set_inputs(self, images: npt.NDArray[np.uint8], frame: npt.NDArray[np.uint8]) -> None:
        """Set what `time` runs on: model-sized uint8 [N, S, S, 3] images, in batches, and an RGB frame of any size."""
        self._frame = frame
        inputs = self._model_inputs(images)
        size = self._runtime.manifest.input.batch or 1
        starts = range(0, max(1, len(inputs) // size) * size, size)
        self._batches = [np.resize(inputs[start : start + size], (size, *inputs.shape[1:])) for start in starts]

    def first_inference(self) -> float:
        return timing.samples_ms(self._infer_next, 1)[0]

    def warm_up(self) -> list[float]:
        return timing.warm_up(self._infer_next)

    def time(self, count: int, end_to_end_count: int) -> dict[str, list[float]]:
        """Measure inferences, and classifications of the frame stage by stage, then rest.

        Returns:
            Milliseconds of each stage in `STAGES`.
        """
        start_s = time.perf_counter()
        timing.samples_ms(self._infer_next, _UNCOUNTED_CALLS)
        while time.perf_counter() - start_s < _UNCOUNTED_S:
            self._infer_next()
        latencies_ms = {"inference": timing.samples_ms(self._infer_next, count)}
        for _ in range(_UNCOUNTED_CLASSIFICATIONS):
            self._classify_ms()
        classifications = np.array([self._classify_ms() for _ in range(end_to_end_count)])
        latencies_ms |= zip(STAGES[1:], classifications.T.tolist(), strict=True)
        _rest()
        return latencies_ms

    def run(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Return `function(runtime, *arguments)`; the function is one of a module."""
        return function(self._runtime, *arguments)

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run model-sized uint8 [N, S, S, 3] images -> float32 [N, classes]."""
        return self._runtime.infer_any(self._model_inputs(images))

    def peak_memory_mb(self) -> float:
        """Peak resident memory of this process, Python and packages included, in 1e6 bytes."""
        return hardware.peak_resident_bytes() / 1e6

    def _model_inputs(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        manifest = self._runtime.manifest
        return model_batch(images, manifest.input.dtype, manifest.preprocessing)

    def _infer_next(self) -> None:
        self._calls += 1
        self._runtime.infer(self._batches[self._calls % len(self._batches)])

    def _classify_ms(self) -> tuple[float, float, float]:
        """Classify the frame as `Runtime.classify` does; return the times of all of it, of the first and last stage."""
        clock, start_ns = time.perf_counter_ns, time.perf_counter_ns()
        batch = self._runtime.preprocess([self._frame])
        preprocessed_ns = clock()
        logits = self._runtime.infer_any(batch)
        inferred_ns = clock()
        self._runtime.rank(logits, 5)
        end_ns = clock()
        return (end_ns - start_ns) / 1e6, (preprocessed_ns - start_ns) / 1e6, (end_ns - inferred_ns) / 1e6


def _rest() -> None:
    """Wait until the runtime's threads are idle: after a call, ONNX Runtime's spin for 42 ms and PyTorch's for 10."""
    end_s = time.perf_counter() + _REST_TIMEOUT_S
    while time.perf_counter() < end_s:
        used_s = time.process_time()
        time.sleep(_NAP_S)
        if time.process_time() - used_s < _NAP_S / 10:
            return


_ROOT = Path(__file__).resolve().parents[2]


def check_python(python: str) -> None:
    """Raise UsageError unless the interpreter `python` can run a worker."""
    try:
        command = [python, "-c", f"import {__name__}"]
        done = subprocess.run(command, cwd=_ROOT, env=_environment(), capture_output=True, text=True, timeout=120)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"cannot run {python}: {one_line(error)}; name a Python interpreter") from error
    if done.returncode:
        reason = one_line((done.stderr.strip().splitlines() or ["no message"])[-1])
        raise UsageError(f"{python} cannot run this project: {reason}; type: {python} -m pip install numpy pillow")


def _environment() -> dict[str, str]:
    """This process's environment without settings of this interpreter."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


class _OtherPython(subprocess.Popen[bytes]):
    """A process of another interpreter, with the methods of multiprocessing.Process that `Worker` uses."""

    def __init__(self, python: str, theirs: socket.socket) -> None:
        super().__init__(
            [python, "-m", __name__, str(theirs.fileno())],
            cwd=_ROOT,
            env=_environment(),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # without Ctrl-C
        )

    @property
    def exitcode(self) -> int | None:
        return self.poll()

    def is_alive(self) -> bool:
        return self.poll() is None

    def join(self, timeout_s: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout_s)


def _serve(
    connection: Connection, name: str, model_class: type[TimedModel], artifact: Path, options: dict[str, Any]
) -> None:
    """Run the worker's main loop: receive a method call, send back its result or its exception."""
    warnings.simplefilter("ignore", UntrainedWarning)  # the parent warns once
    model: TimedModel | None = None
    while True:
        try:
            method, arguments = connection.recv()
        except (EOFError, OSError):  # the parent has closed the pipe
            return
        result: Any
        try:
            if model is None:
                model = model_class(artifact, options)
            result = getattr(model, method)(*arguments)
        except SimpleNetError as error:
            result = error
        except Exception:  # noqa: BLE001 - the parent raises it
            result = RuntimeError(f"{name} failed:\n{traceback.format_exc()}")
        try:
            connection.send(result)
        except OSError:
            return


class Worker(contextlib.AbstractContextManager["Worker"]):
    """In the parent: a handle to one worker process. Use it as a context manager, which ends the process.

    Create it in the main thread, as Python sets signal handlers only there.
    """

    def __init__(
        self,
        name: str,
        artifact: Path,
        options: dict[str, Any],
        model_class: type[TimedModel] = TimedModel,
        python: str | None = None,
    ) -> None:
        """Start the process, which loads `artifact` at the first call.

        Args:
            name: for error messages, such as 'openvino int8'.
            options: keywords of `runtimes.load`.
            model_class: what the process makes of `artifact`; a subclass can simulate a slower backend.
            python: another interpreter that `check_python` accepts; it runs the code of this project with its own
                package versions. Not on Windows.
        """
        self.name = name
        self._process: multiprocessing.process.BaseProcess | _OtherPython
        if python is not None:
            ours, child = socket.socketpair()
            with child:
                self._process = _OtherPython(python, child)
            self._connection = Connection(ours.detach())
            self._connection.send((name, model_class, artifact, options))
            return
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, model_class, artifact, options), daemon=True)
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: on Ctrl-C the parent ends its workers
        try:
            self._process.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        theirs.close()

    def call(self, method: str, *arguments: object, timeout_s: float | None = None) -> Any:
        """Call a method of the worker's `TimedModel`; `timeout_s` is CALL_TIMEOUT_S by default.

        Raises:
            SimpleNetError: what the method raised. BackendError: the process died, or did not reply in time.
        """
        name, timeout_s = self.name, timeout_s or CALL_TIMEOUT_S
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(timeout_s):
                raise BackendError(f"{name} did not reply to {method} within {timeout_s:g} s")
            result = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise BackendError(f"{name} died during {method} (exit code {self._process.exitcode})") from error
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        self._connection.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(5)

    def __exit__(self, *_: object) -> None:
        self.close()


if __name__ == "__main__":  # in another interpreter
    parent = Connection(int(sys.argv[1]))
    _serve(parent, *parent.recv())
