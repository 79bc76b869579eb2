"""Other measurements than latency in rounds: stream, throughput, cold and soak. Each is a function of a runtime."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from demos import console as demo_console
from demos.benchmark import statistics
from demos.benchmark.comparison import Row
from demos.benchmark.workers import Worker
from runtimes import Runtime
from runtimes.timing import summarize
from simplenet import hardware
from simplenet.errors import SimpleNetError, one_line

if TYPE_CHECKING:
    from rich.console import Console

NAMES = ("stream", "throughput", "cold", "soak")
_DEFAULT_SECONDS = {"stream": 10.0, "throughput": 5.0, "soak": 120.0}
_COLD_STARTS = 5
_CALLERS = (1, 2, 4, 8, 16)
_SATURATION = 1.05
"""Throughput is saturated if twice as many callers gain less than 5 %."""
_WINDOWS = 12
_HEADINGS = {
    "stream": ("p50 ms", "p99 ms", "age p50\nms", "age p99\nms", "dropped\n%", "CPU %"),
    "throughput": ("images/s", "callers", "curve: images/s by callers"),
    "cold": ("start\nms", "load\nms", "first inference\nms", "together\nms", "memory\nMB"),
    "soak": ("p50 ms", "last / first", "memory\nMB", "growth\nMB", "clock\nMHz", "temperature\n°C"),
}
_NOTES = {
    "stream": "Frames arrive at {fps} per second, and the processor rests in between. p50, p99: from the frame to its "
    "top-5. age: from the arrival of the frame to its top-5. dropped: frames that a newer one replaced. CPU: of one "
    "core.",
    "throughput": "Callers are threads that classify without a pause, each with one inference at a time. The number "
    "grows until it gains less than 5 %.",
    "cold": "Medians of {starts} new processes: start of Python and imports of this project; import of the runtime and "
    "load of the model; first inference. Files are in the system's cache. No backend uses a cache of compiled models.",
    "soak": "Inferences without a pause, in {windows} windows. last / first: latency of the last quarter over that of "
    "the first. growth: of memory after the first window.",
}


@dataclass(frozen=True)
class Settings:
    """How to measure; `seconds` per row, None: the mode's default."""

    frame: npt.NDArray[np.uint8]
    fps: int = 30
    seconds: float | None = None
    threads: int | None = None
    device: str | None = None


def measure(mode: str, rows: Sequence[Row], settings: Settings, log: Callable[[str], None]) -> dict[str, Any]:
    """Measure every row that has an artifact, one after the other; return plain values."""
    measured = []
    for row in rows:
        values: dict[str, Any] = {"backend": row.backend, "precision": row.precision, "reason": row.reason}
        if row.artifact is not None:
            log(f"{mode}: {row.name}")
            try:
                values |= _cold(row, settings) if mode == "cold" else _in_worker(mode, row, settings)
            except SimpleNetError as error:
                values["reason"] = one_line(error)
        measured.append(values)
    if all(row["reason"] for row in measured):
        raise SimpleNetError(f"nothing could be measured: {'; '.join(dict.fromkeys(r['reason'] for r in measured))}")
    note = _NOTES[mode].format(fps=settings.fps, starts=_COLD_STARTS, windows=_WINDOWS)
    return {"schema_version": 1, "mode": mode, "note": note, "rows": measured}


def show(result: dict[str, Any], console: Console) -> None:
    """Print the table of a mode and its note."""
    table = demo_console.table("backend", "precision", *_HEADINGS[result["mode"]])
    for row in result["rows"]:
        cells = [row["reason"], *[""] * (len(table.columns) - 3)] if row["reason"] else row["cells"]
        table.add_row(row["backend"], row["precision"], *cells)
    console.print(table)
    console.print(result["note"], markup=False, highlight=False)


def _in_worker(mode: str, row: Row, settings: Settings) -> dict[str, Any]:
    function = {"stream": stream, "throughput": throughput, "soak": soak}[mode]
    seconds = settings.seconds or _DEFAULT_SECONDS[mode]
    with _worker(row, settings) as worker:
        worker.call("set_inputs", _image(row), settings.frame)
        worker.call("warm_up")
        arguments = (settings.fps,) if mode == "stream" else ()
        timeout_s = 600 + 10 * seconds
        values: dict[str, Any] = worker.call("run", function, settings.frame, seconds, *arguments, timeout_s=timeout_s)
    return values


def _worker(row: Row, settings: Settings) -> Worker:
    assert row.artifact is not None
    options = {"backend": row.backend, "precision": row.precision, "threads": settings.threads}
    return Worker(row.name, row.artifact.folder, {**options, "device": settings.device})


def _image(row: Row) -> npt.NDArray[np.uint8]:
    assert row.artifact is not None
    size = row.artifact.manifest.preprocessing.input_size
    return np.zeros((1, size, size, 3), np.uint8)


def stream(runtime: Runtime, frame: npt.NDArray[np.uint8], seconds: float, fps: int) -> dict[str, Any]:
    """Classify the newest of the frames that arrive at a fixed rate, as the live demo does."""
    latencies_ms, ages_ms = [], []
    number = dropped = 0
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    while (arrival_s := start_s + number / fps) < start_s + seconds:
        time.sleep(max(0.0, arrival_s - time.perf_counter()))
        begin_s = time.perf_counter()
        runtime.classify([frame])
        end_s = time.perf_counter()
        latencies_ms.append((end_s - begin_s) * 1e3)
        ages_ms.append((end_s - arrival_s) * 1e3)
        newest = max(number + 1, int((end_s - start_s) * fps))
        dropped += newest - number - 1
        number = newest
    cpu_percent = 100 * (time.process_time() - start_cpu_s) / (time.perf_counter() - start_s)
    latency, age = summarize(latencies_ms), summarize(ages_ms)
    dropped_percent = 100 * dropped / max(1, number)
    numbers = (latency.p50_ms, latency.p99_ms, age.p50_ms, age.p99_ms)
    cells = [f"{number:.2f}" if number is not None else "-" for number in numbers]
    return {
        "latencies_ms": latencies_ms,
        "ages_ms": ages_ms,
        "dropped": dropped,
        "cpu_percent": cpu_percent,
        "cells": [*cells, f"{dropped_percent:.1f}", f"{cpu_percent:.0f}"],
    }


def throughput(runtime: Runtime, frame: npt.NDArray[np.uint8], seconds: float) -> dict[str, Any]:
    """Count the inferences per second of 1, 2, 4, ... callers until it is saturated."""
    batch = runtime.preprocess([frame] * (runtime.manifest.input.batch or 1))
    curve: dict[int, float] = {}
    for callers in _CALLERS:
        curve[callers] = _images_per_second(runtime, batch, callers, seconds)
        if callers > 1 and curve[callers] < _SATURATION * curve[callers // 2]:
            break
    best = max(curve, key=lambda callers: curve[callers])
    text = ", ".join(f"{callers}: {rate:.0f}" for callers, rate in curve.items())
    return {"images_per_second": curve, "cells": [f"{curve[best]:.0f}", str(best), text]}


def _images_per_second(runtime: Runtime, batch: npt.NDArray[Any], callers: int, seconds: float) -> float:
    counts = [0] * callers
    start_s = time.perf_counter()

    def call(place: int) -> None:
        while time.perf_counter() < start_s + seconds:
            runtime.infer(batch)
            counts[place] += len(batch)

    threads = [threading.Thread(target=call, args=[place]) for place in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start_s)


def soak(runtime: Runtime, frame: npt.NDArray[np.uint8], seconds: float) -> dict[str, Any]:
    """Run for a long time; look for a drift of the latency and a growth of memory."""
    import psutil

    process, batch = psutil.Process(), runtime.preprocess([frame] * (runtime.manifest.input.batch or 1))
    windows_ms: list[list[float]] = []
    memory_mb: list[float] = []
    clocks: list[float] = []
    temperatures: list[float] = []
    for _ in range(_WINDOWS):
        end_s = time.perf_counter() + seconds / _WINDOWS
        samples_ms: list[float] = []
        while not samples_ms or time.perf_counter() < end_s:
            begin_s = time.perf_counter()
            runtime.infer(batch)
            samples_ms.append((time.perf_counter() - begin_s) * 1e3)
        windows_ms.append(samples_ms[:: max(1, len(samples_ms) // 1000)])
        memory_mb.append(process.memory_info().rss / 1e6)
        clock, temperature = hardware.clock_mhz(), hardware.temperature_c()
        clocks += [clock] if clock else []
        temperatures += [temperature] if temperature else []
    quarter = _WINDOWS // 4
    first, last = (np.concatenate(part) for part in (windows_ms[:quarter], windows_ms[-quarter:]))
    drift = float(np.median(last) / np.median(first))
    growth_mb = memory_mb[-1] - memory_mb[0]
    p50_ms = statistics.percentiles(windows_ms, [50])[0].value
    return {
        "windows_ms": windows_ms,
        "memory_mb": memory_mb,
        "clock_mhz": clocks,
        "temperature_c": temperatures,
        "cells": [
            f"{p50_ms:.3f}", f"{drift:.2f}", f"{memory_mb[-1]:.0f}", f"{growth_mb:+.1f}", _range(clocks),
            _range(temperatures),
        ],
    }  # fmt: skip


def _range(values: list[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}" if values else "unknown"


def _cold(row: Row, settings: Settings) -> dict[str, Any]:
    """Start new processes, and time each until its first result."""
    starts: list[dict[str, float]] = []
    for _ in range(_COLD_STARTS):
        begin_s = time.perf_counter()
        with _worker(row, settings) as worker:
            load_ms, _description = worker.call("load")
            start_ms = (time.perf_counter() - begin_s) * 1e3 - load_ms
            worker.call("set_inputs", _image(row), settings.frame)
            first_ms = worker.call("first_inference")
            memory_mb = worker.call("peak_memory_mb")
        starts.append(
            {"start_ms": start_ms, "load_ms": load_ms, "first_inference_ms": first_ms, "memory_mb": memory_mb}
        )
    start_ms, load_ms, first_ms, memory_mb = (float(np.median([one[name] for one in starts])) for name in starts[0])
    together_ms = start_ms + load_ms + first_ms
    cells = [f"{start_ms:.0f}", f"{load_ms:.0f}", f"{first_ms:.1f}", f"{together_ms:.0f}", f"{memory_mb:.0f}"]
    return {"starts": starts, "cells": cells}
