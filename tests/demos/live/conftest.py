"""What the live demo's tests share: flags as typed, with artifacts that are there already, and sessions."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demos import model_flags, webcam
from demos.live.model_config import ModelConfig
from demos.live.result import FrameResult
from demos.live.session import Session
from demos.live.sources import capture
from demos.live.sources.factory import open_source
from demos.live.sources.scheduler import SourceScheduler
from demos.live.window.display import NoDisplay
from demos.live.window.view import Screen
from simplenet.artifacts import Artifact
from tests.conftest import MakeArtifact
from tests.demos.live.page.chromium import CHROMIUM, FLAGS

ParseFlags = Callable[..., argparse.Namespace]
MakeSession = Callable[..., "Recorded"]
_DEADLINE_S = 300.0


@pytest.fixture
def parse_flags(make_artifact: MakeArtifact) -> ParseFlags:
    """`parse_flags("--precision", "int8")`: the model flags of the live demo, for the shipped model, on one thread."""

    def parse(*typed: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        parser.add_argument("--top", type=int, default=5)
        model_flags.add_model(parser, several_backends=True)
        root = make_artifact("onnx", "fp32").folder.parents[1]
        shipped = ("--variant", "cifar-310k", "--weights", "fashion-mnist", "--artifacts", str(root), "--threads", "1")
        return parser.parse_args([*shipped, *typed])

    return parse


class Recorded(Session):
    """Keeps its updates, events and what was said, and can be run to its end."""

    def __init__(self, *arguments: Any) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.said: list[str] = []
        super().__init__(*arguments, log=self.said.append, event=lambda name, **facts: self.told.append((name, facts)))
        self.updates: list[FrameResult] = []
        self.subscribe(self.updates.append)

    def run(self, **limits: Any) -> str:
        return webcam.run(self, Screen(self, NoDisplay(), Path("/nonexistent")), **limits)

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Goes on until it is so; a frame after it at the latest."""
        deadline_s = time.perf_counter() + _DEADLINE_S

        def look(update: FrameResult) -> None:
            assert time.perf_counter() < deadline_s
            if condition():
                self.quit = "test"

        stop = self.subscribe(look)
        assert self.run() == "test"
        stop()
        self.quit = ""


@pytest.fixture
def make_session(parse_flags: ParseFlags) -> Iterator[MakeSession]:
    """`make_session("synthetic", "--backend", "openvino")`: sources by name, then model flags."""
    opened: list[Session] = []

    def make(source: str, *typed: str, **how: Any) -> Recorded:
        selection, model_group = ModelConfig.from_arguments(parse_flags(*typed)).load(lambda line: None)
        session = Recorded(SourceScheduler([open_source(source, **how)]), selection, model_group)
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
