"""Shared by all tests: artifacts of the shipped model, each exported once per run."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

import filelock
import hypothesis
import pytest

import export
import runtimes
from simplenet import artifacts
from simplenet.artifacts import Artifact
from simplenet.vendors import telemetry_off

MakeArtifact = Callable[[str, str], Artifact]


def pytest_configure(config: pytest.Config) -> None:
    block = contextlib.ExitStack()
    block.enter_context(telemetry_off())  # test modules import vendors' packages themselves
    config.add_cleanup(block.close)
    # Background jobs of a shell script ignore Ctrl-C, and their child processes inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # On a busy machine with 2 cores, spinning threads of PyTorch slow the check of an int8 export from 5 to 24 seconds.
    if not config.getoption("benchmark_only", False):
        runtimes.disable_spinning()
    hypothesis.settings.register_profile("any machine", deadline=None)  # slow machines must pass too
    hypothesis.settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: a mistake shows within seconds."""
    items.sort(key=lambda item: "slow" in item.keywords or "benchmark" in getattr(item, "fixturenames", ()))


def slow_if_int8(precision: str) -> list[pytest.MarkDecorator]:
    """Marks of a test of this precision: an int8 export takes about 10 s."""
    return [pytest.mark.slow] if precision == "int8" else []


@pytest.fixture(scope="session")
def make_artifact(tmp_path_factory: pytest.TempPathFactory) -> MakeArtifact:
    """`make_artifact(format, precision)`: the shipped cifar-310k in that form, for reading only.

    All workers of pytest-xdist share one folder, and the first that needs an artifact exports it.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-artifacts"
    root.mkdir(exist_ok=True)
    made: dict[tuple[str, str], Artifact] = {}

    def make(format: str, precision: str) -> Artifact:
        if (format, precision) in made:
            return made[format, precision]
        choice = {"variant": "cifar-310k", "weights": "fashion-mnist", "precision": precision}
        folder = artifacts.folder_for(root, choice["variant"], choice["weights"], format, precision)
        with filelock.FileLock(root / f"{format}-{precision}.lock"):
            if folder.is_dir():
                made[format, precision] = artifacts.read(folder)
            else:
                made[format, precision] = export.make(format, **choice, artifacts=root)
        return made[format, precision]

    return make
