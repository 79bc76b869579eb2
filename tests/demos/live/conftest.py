"""Shared by the live demo's tests: model configs of shared artifacts, and sessions."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demos import models, webcam
from demos.live.model_config import ModelConfig
from demos.live.result import FrameResult
from demos.live.session import Session
from demos.live.sources import capture
from demos.live.sources.factory import open_source
from demos.live.sources.scheduler import SourceScheduler
from demos.live.window.display import Display
from demos.live.window.view import Screen
from demos.models import ModelRequest
from simplenet.artifacts import Artifact
from tests.conftest import MakeArtifact
from tests.demos.live.page.chromium import CHROMIUM, FLAGS

MakeConfig = Callable[..., ModelConfig]
MakeSession = Callable[..., "Recorded"]
_DEADLINE_S = 300.0


@pytest.fixture
def make_config(make_artifact: MakeArtifact) -> MakeConfig:
    """`make_config("--precision", "int8")`: model flags of the live demo, for the shipped model, on one thread."""

    def make(*typed: str) -> ModelConfig:
        parser = argparse.ArgumentParser()
        models.add_flags(parser, multiple_backends=True)
        root = make_artifact("onnx", "fp32").folder.parents[1]
        shipped = ("--variant", "cifar-310k", "--weights", "fashion-mnist", "--artifacts", str(root), "--threads", "1")
        flags = parser.parse_args([*shipped, *typed])
        return ModelConfig(ModelRequest.from_flags(flags), flags.backend or ())

    return make


class Recorded(Session):
    """Keeps its results, events and log, and can be run to its end."""

    def __init__(self, *arguments: Any) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.logged: list[str] = []
        super().__init__(
            *arguments, log=self.logged.append, event=lambda name, **values: self.events.append((name, values))
        )
        self.results: list[FrameResult] = []
        self.subscribe(self.results.append)

    def run(self, **limits: Any) -> str:
        return webcam.run(self, Screen(self, Display(), Path("/nonexistent")), **limits)

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Run until the condition holds after a frame."""
        deadline_s = time.perf_counter() + _DEADLINE_S

        def check(result: FrameResult) -> None:
            assert time.perf_counter() < deadline_s
            if condition():
                self.quit = "test"

        self.subscribe(check)
        assert self.run() == "test"
        self._subscribers.remove(check)
        self.quit = ""


@pytest.fixture
def make_session(make_config: MakeConfig) -> Iterator[MakeSession]:
    """`make_session("synthetic", "--backend", "openvino")`: sources by name, then model flags."""
    opened: list[Session] = []

    def make(source: str, *typed: str, **options: Any) -> Recorded:
        config, model_group = make_config(*typed).load(lambda line: None)
        session = Recorded(SourceScheduler([open_source(source, **options)]), config, model_group)
        opened.append(session)
        return session

    yield make
    for session in opened:
        session.close()


@pytest.fixture
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Between two tries to open a source again; and in the end no reader is left."""
    monkeypatch.setattr(capture, "FIRST_BACKOFF_S", 0.02)
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("reader of")]


@pytest.fixture(scope="session")
def browser() -> Iterator[Callable[..., Any]]:
    """`browser(*flags)`: Chromium with these flags, started once for all tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install '.[dev]'")
    with sync_api.sync_playwright() as driver:
        started: dict[tuple[str, ...], Any] = {}

        def start(*flags: str) -> Any:
            if flags not in started:
                started[flags] = driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
            return started[flags]

        yield start
        for each in started.values():
            each.close()


@pytest.fixture(scope="session")
def artifact(make_artifact: MakeArtifact) -> Artifact:
    """The shipped model as ONNX fp32."""
    return make_artifact("onnx", "fp32")
