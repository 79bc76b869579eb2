"""Each backend measured in a fresh process of its own, all of them in turns, so that none disturbs another.

A worker process loads one artifact and then waits on a pipe, without using the processor, until it is asked for
something. The parent asks one worker at a time: so every backend runs alone, with its threads free to spin, and yet
all of them see the same drift of the machine's clock and temperature.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

import runtimes
from runtimes import timing
from simplenet import hardware
from simplenet.errors import BackendError, SimpleNetError, UntrainedWarning
from simplenet.preprocessing import model_batch

ANSWER_TIMEOUT_S = 600
_SETTLE_S = 0.1
"""Between turns: ONNX Runtime's threads were seen to spin for 42 ms after its last inference, PyTorch's for 10 ms."""
_UNCOUNTED_CALLS, _UNCOUNTED_S = 5, 0.05
"""At the start of each turn, at least: another backend has just used the caches, and a processor's clock that fell in
the pause takes some ten milliseconds to rise."""


@dataclass(frozen=True)
class BackendSpec:
    """What a worker loads: an artifact's folder, and how to run it. `device` None is the backend's first."""

    backend: str
    precision: str
    folder: str
    threads: int | None
    device: str | None = None

    @property
    def name(self) -> str:
        return f"{self.backend} {self.precision}"


@dataclass
class Timings:
    """Raw samples in milliseconds, one list a round."""

    load_ms: float
    first_inference_ms: float
    warm_up_calls: int
    rounds_ms: list[list[float]] = field(default_factory=list)
    end_to_end_rounds_ms: list[list[float]] = field(default_factory=list)
    peak_memory_mb: float | None = None

    @property
    def samples_ms(self) -> list[float]:
        return [sample for samples in self.rounds_ms for sample in samples]

    @property
    def end_to_end_ms(self) -> list[float]:
        return [sample for samples in self.end_to_end_rounds_ms for sample in samples]


class Session:
    """Inside the worker: the loaded runtime and what can be asked of it."""

    def __init__(self, spec: BackendSpec) -> None:
        start = time.perf_counter()
        self._runtime = runtimes.load(
            spec.folder,
            spec.backend,
            device=spec.device,
            threads=spec.threads,
            precision=spec.precision,
        )
        self.load_ms = (time.perf_counter() - start) * 1e3
        self._batches: list[npt.NDArray[Any]] = []
        self._turn = 0

    def opened(self) -> tuple[float, runtimes.Description]:
        return self.load_ms, self._runtime.describe()

    def use(self, pictures: npt.NDArray[np.uint8]) -> None:
        """Takes model-sized uint8 [N, S, S, 3] pictures as what `time` runs on, one batch after another."""
        prepared = self._model_inputs(pictures)
        size = self._runtime.manifest.input.batch or 1
        count = max(1, len(prepared) // size)
        self._batches = [
            np.resize(prepared[i * size : (i + 1) * size], (size, *prepared.shape[1:])) for i in range(count)
        ]

    def first_inference(self) -> float:
        return timing.samples_ms(self._next, 1)[0]

    def warm_up(self) -> int:
        return len(timing.warm_up(self._next))

    def time(self, count: int) -> list[float]:
        _get_going(self._next)
        return timing.samples_ms(self._next, count)

    def time_end_to_end(self, frame: npt.NDArray[np.uint8], count: int) -> list[float]:
        """From an RGB frame of any size to its top-5."""

        def classify() -> None:
            self._runtime.classify([frame], k=5)

        _get_going(classify)
        return timing.samples_ms(classify, count)

    def logits(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Model-sized uint8 [N, S, S, 3] pictures -> float32 [N, classes], in batches the model takes."""
        return self._runtime.infer_any(self._model_inputs(pictures))

    def peak_memory_mb(self) -> float:
        """Peak resident memory of this process, everything imported included, in 1e6 bytes."""
        return hardware.peak_resident_bytes() / 1e6

    def _model_inputs(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Model-sized uint8 pictures as this artifact takes them."""
        manifest = self._runtime.manifest
        return model_batch(pictures, manifest.input.dtype, manifest.preprocessing)

    def _next(self) -> None:
        self._turn += 1
        self._runtime.infer(self._batches[self._turn % len(self._batches)])


def _get_going(call: Callable[[], object]) -> None:
    end_s = time.perf_counter() + _UNCOUNTED_S
    timing.samples_ms(call, _UNCOUNTED_CALLS)
    while time.perf_counter() < end_s:
        call()


def _serve(connection: Connection, spec: BackendSpec) -> None:
    """A worker's main loop: one request, one answer; an exception is an answer too."""
    warnings.simplefilter("ignore", UntrainedWarning)  # the parent says it once
    session: Session | None = None
    while True:
        try:
            method, arguments = connection.recv()
        except (EOFError, OSError):  # the parent has gone
            return
        answer: Any
        try:
            if session is None:
                session = Session(spec)
            answer = getattr(session, method)(*arguments)
        except SimpleNetError as error:
            answer = error
        except Exception:  # noqa: BLE001 - it is not swallowed: the parent raises it
            answer = RuntimeError(f"{spec.name} failed:\n{traceback.format_exc()}")
        try:
            connection.send(answer)
        except OSError:
            return


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """What a process started in here inherits: Ctrl-C is for the parent, which ends its workers."""
    if threading.current_thread() is not threading.main_thread():  # only there Python lets handlers be set
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


class Worker:
    """In the parent: one spec's process. Use it as a context manager; the process never outlives it."""

    def __init__(self, spec: BackendSpec) -> None:
        context = multiprocessing.get_context("spawn")
        self.spec = spec
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec), daemon=True)
        with _ctrl_c_ignored():
            self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: object, timeout_s: float | None = None) -> Any:
        """Calls a method of the worker's `Session`, which has ANSWER_TIMEOUT_S unless it is given more.

        Raises:
            SimpleNetError: what the method raised. BackendError: the process died, or did not answer in time.
        """
        name, timeout_s = self.spec.name, timeout_s or ANSWER_TIMEOUT_S
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(timeout_s):
                raise BackendError(f"{name} gave no answer to {method} in {timeout_s:g} s")
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise BackendError(f"{name} died during {method} (exit code {self._process.exitcode})") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        self._connection.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(5)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_rounds(
    workers: Sequence[Worker],
    timings: dict[str, Timings],
    frame: npt.NDArray[np.uint8],
    *,
    samples: int,
    rounds: int,
    on_turn: Callable[[], None] = lambda: None,
) -> dict[str, SimpleNetError]:
    """Times every worker `rounds` times and adds the samples to `timings` by name.

    Every second round has the order of the one before in reverse, so that a steady drift falls on all alike, and those
    pairs rotate, so that nobody always follows the same one. Who fails is ended at once and disturbs nobody.

    Returns:
        By name, what ended a spec early; it keeps the rounds it had.
    """
    failures: dict[str, SimpleNetError] = {}
    count = -(-samples // rounds)
    patience_s = ANSWER_TIMEOUT_S + count  # a second for each inference
    for turn in range(rounds):
        first = turn // 2 % max(1, len(workers))
        order = [*workers[first:], *workers[:first]]
        for worker in order if turn % 2 == 0 else reversed(order):
            name = worker.spec.name
            if name not in failures:
                time.sleep(_SETTLE_S)
                try:
                    timings[name].rounds_ms.append(worker.ask("time", count, timeout_s=patience_s))
                    timings[name].end_to_end_rounds_ms.append(
                        worker.ask("time_end_to_end", frame, max(8, count // 5), timeout_s=patience_s)
                    )
                except SimpleNetError as error:
                    failures[name] = error
                    worker.close()
            on_turn()
    return failures
