"""What the demos' tests share: small videos, pictures with known answers, and running a script as its users do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from demos.live.sources.opencv import opencv
from simplenet.artifacts import Artifact
from tests.conftest import MakeArtifact

ROOT = Path(__file__).resolve().parents[2]

RunDemo = Callable[..., "subprocess.CompletedProcess[str]"]
WriteVideo = Callable[..., Path]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No screen, no network to look for weights and none in the cache, no colors."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    nowhere = {"SIMPLENET_WEIGHTS_URL": "http://127.0.0.1:9/", "SIMPLENET_CACHE": str(tmp_path_factory.mktemp("cache"))}
    return {**kept, **nowhere, "NO_COLOR": "1"}


@pytest.fixture(scope="session")
def run_demo(environment: dict[str, str]) -> RunDemo:
    """`run_demo("classify", *arguments)`: the script in a process of its own, started from another folder."""

    def run(name: str, *arguments: object, cwd: str | Path = "/") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "demos" / f"{name}.py"), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=cwd, env=environment, check=False
        )

    return run


@pytest.fixture(scope="session")
def onnx_artifact(make_artifact: MakeArtifact) -> Artifact:
    return make_artifact("onnx", "fp32")


@pytest.fixture
def write_video(tmp_path: Path) -> WriteVideo:
    """`write_video(name, frames)`: RGB uint8 [N, H, W, 3] as an MJPG .avi."""

    def write(name: str, frames: npt.NDArray[np.uint8]) -> Path:
        cv2 = opencv()
        height, width = frames.shape[1:3]
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (width, height))
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()
        return path

    return write


def shades(count: int, width: int = 64, height: int = 48) -> npt.NDArray[np.uint8]:
    """Frame i is all red, of brightness 5 * i: so frames can be told apart after compression."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = (5 * np.arange(count) % 256)[:, None, None]
    return frames
