"""Shared by the tests of the demos: small videos, shipped artifacts, and running a script."""

from __future__ import annotations

import importlib
import os
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from demos import default_models
from demos.live.sources.opencv import opencv
from simplenet import cli
from simplenet.artifacts import Artifact
from tests.conftest import MakeArtifact

ROOT = Path(__file__).resolve().parents[2]

RunDemo = Callable[..., "subprocess.CompletedProcess[str]"]
WriteVideo = Callable[..., Path]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For processes: no screen, no official weights in the cache or on the network, no colors."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    nowhere = {"SIMPLENET_WEIGHTS_URL": "http://127.0.0.1:9/", "SIMPLENET_CACHE": str(tmp_path_factory.mktemp("cache"))}
    return {**kept, **nowhere, "NO_COLOR": "1"}


@pytest.fixture
def no_network(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same environment in this process."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SIMPLENET_WEIGHTS_URL", "SIMPLENET_CACHE", "NO_COLOR"):
        monkeypatch.setenv(name, environment[name])
    default_models._why_not_official.cache_clear()


@pytest.fixture
def run_demo(no_network: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunDemo:
    """`run_demo("classify", *arguments)`: the script's main in this process, ended as on the command line."""

    def run(name: str, *arguments: object, cwd: str | Path = "/") -> subprocess.CompletedProcess[str]:
        module, argv = importlib.import_module(f"demos.{name}"), [str(argument) for argument in arguments]
        capsys.readouterr()
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("default")
            patch.setattr(warnings, "showwarning", warnings.showwarning)  # cli.run replaces it
            patch.chdir(cwd)
            with pytest.raises(SystemExit) as ended:
                cli.run(lambda: module.main(argv))
        return subprocess.CompletedProcess(argv, int(ended.value.code or 0), *capsys.readouterr())

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
    """Red frames; frame i has brightness 5 * i, so that frames can be distinguished after compression."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = (5 * np.arange(count) % 256)[:, None, None]
    return frames
