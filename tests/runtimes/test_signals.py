"""Signal handlers that raise, infer or close while a model is loaded or runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
from runtimes import base
from simplenet import images, vendors
from simplenet.errors import BackendError, ImageError
from tests.conftest import MakeArtifact
from tests.runtimes.test_base import Stub

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no such signals")

BATCH = np.zeros((1, 32, 32, 3), np.uint8)
LOGITS = np.zeros((1, 10), np.float32)


class TimeLimit(Exception):
    pass


class Worker:
    def raise_from_method(self, number: int, frame: object) -> None:
        raise RuntimeError("time limit")


def raise_time_limit(*arguments: object) -> None:
    raise TimeLimit("time limit")


def raise_timeout(number: int, frame: object) -> None:
    (_ for _ in ()).throw(TimeoutError("time limit"))  # an OSError


HANDLERS: list[Callable[[int, Any], object]] = [
    raise_time_limit,
    raise_timeout,
    Worker().raise_from_method,
    lambda *_: raise_time_limit(),
]


@pytest.fixture
def handle() -> Iterator[Callable[[Callable[[int, Any], object]], None]]:
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler) and None
    signal.signal(signal.SIGUSR1, before)


def interrupted(*_: object, **__: object) -> Any:
    """Stand for a vendor's function during which the signal arrives."""
    os.kill(os.getpid(), signal.SIGUSR1)
    return LOGITS


@pytest.mark.parametrize("handler", HANDLERS)
def test_errors_of_handlers_reach_the_caller(
    make_artifact: MakeArtifact, handler: Any, handle: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    artifact = make_artifact("onnx", "fp32")
    handle(handler)
    kinds = (TimeLimit, TimeoutError, RuntimeError)
    runtime = Stub(artifact, base.Options())
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "_run", interrupted)
        with pytest.raises(kinds, match=r"^time limit$"):
            runtime.infer(BATCH)
    for target in ("runtimes.backend_onnxruntime.Backend._open", "simplenet.files.sha256", "pathlib.Path.read_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(target, interrupted)
            with pytest.raises(kinds, match=r"^time limit$"):
                runtimes.load(artifact.folder)
    with monkeypatch.context() as patch:
        patch.setattr("importlib.import_module", interrupted)
        with pytest.raises(kinds, match=r"^time limit$"):
            vendors.vendor_import("torch", "torch")
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", interrupted)
        with pytest.raises(kinds, match=r"^time limit$"):
            images.decode_rgb(b"")


def test_other_errors_are_still_the_backends(make_artifact: MakeArtifact) -> None:
    runtime = Stub(make_artifact("onnx", "fp32"), base.Options())

    def fail(batch: object, depth: int = 2) -> None:
        if depth == 0:
            raise_time_limit(None)
        fail(batch, depth - 1)

    runtime._run = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(BackendError, match=r"failed to run .*time limit"):
        runtime.infer(BATCH)
    with pytest.raises(ImageError, match="not an image"):
        images.decode_rgb(b"no image")


@pytest.mark.parametrize("action", [lambda model: model.infer(BATCH), lambda model: model.close()])
def test_rejects_calls_during_an_inference_of_the_same_thread(
    make_artifact: MakeArtifact, action: Any, handle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stub, "THREAD_SAFE", False)
    runtime = Stub(make_artifact("onnx", "fp32"), base.Options())
    runtime._run = interrupted  # type: ignore[method-assign]
    handle(lambda *_: action(runtime))
    with pytest.raises(BackendError, match="a signal handler called this runtime during an inference"):
        runtime.infer(BATCH)
    handle(signal.SIG_IGN)
    np.testing.assert_array_equal(runtime.infer(BATCH), LOGITS)
    runtime.close()
