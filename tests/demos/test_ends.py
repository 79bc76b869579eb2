"""Real scripts whose output is closed, full or piped."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simplenet.artifacts import Artifact

ROOT = Path(__file__).parents[2]
COMPARE = ("demos/compare.py", "--samples", "20", "--rounds", "2", "--limit", "50", "--backend", "onnxruntime")
SCRIPTS = {
    "classify": ("demos/classify.py", "IMAGE", "--artifact", "ARTIFACT"),
    "classify --json": ("demos/classify.py", "IMAGE", "--json", "--artifact", "ARTIFACT"),
    "evaluate": ("demos/evaluate.py", "fashion-mnist", "--limit", "20", "--artifact", "ARTIFACT"),
    "webcam": (
        "demos/webcam.py", "--source", "synthetic", "--display", "none", "--duration", "0.2", "--artifact", "ARTIFACT",
    ),
    "average --help": ("train/average.py", "--help"),
    "compare": (*COMPARE, "--precision", "fp32", "--artifacts", "ROOT"),
    "compare --json": (*COMPARE, "--precision", "fp32", "--artifacts", "ROOT", "--json"),
    "to_onnx": ("export/to_onnx.py", "--variant", "cifar-310k", "--weights", "fashion-mnist", "--artifacts", "NEW"),
}  # fmt: skip
SLOW = ("average --help", "compare", "compare --json", "to_onnx")
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in SCRIPTS]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((28, 28, 3), 90, np.uint8)).save(path)
    return path


def command(name: str, image: Path, artifact: Artifact) -> list[str]:
    places = {"IMAGE": image, "ARTIFACT": artifact.folder, "ROOT": artifact.folder.parents[1], "NEW": image.parent}
    script, *flags = (str(places.get(part, part)) for part in SCRIPTS[name])
    return [sys.executable, str(ROOT / script), *flags]


@pytest.mark.skipif(os.name == "nt", reason="Windows reports another error")
@pytest.mark.parametrize("name", NAMES)
def test_a_closed_pipe_is_141_without_an_error(
    name: str, image: Path, onnx_artifact: Artifact, environment: dict[str, str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command(name, image, onnx_artifact), stdout=writing, stderr=subprocess.PIPE, text=True, env=environment
    )
    os.close(writing)
    assert done.returncode == 141, done.stderr
    assert "rror" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["classify --json", "evaluate", "webcam"])
def test_a_full_output_is_one_error(
    name: str, image: Path, onnx_artifact: Artifact, environment: dict[str, str]
) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(name, image, onnx_artifact), stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == ["error: cannot write the output: No space left on device; free some space or write it elsewhere"]
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("name", ["classify --json", "webcam"])
def test_closed_streams_are_no_error(
    closed: str, name: str, image: Path, onnx_artifact: Artifact, environment: dict[str, str]
) -> None:
    words = ["bash", "-c", f'exec "$@" {closed}', "bash", *command(name, image, onnx_artifact)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert (done.stdout == "") == (closed != "2>&-")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
@pytest.mark.parametrize("closes", [False, True], ids=["open", "closes"])
def test_lines_for_a_pipe_do_not_go_to_the_terminal(
    closes: bool, image: Path, onnx_artifact: Artifact, environment: dict[str, str]
) -> None:
    terminal, theirs = os.openpty()
    words = command("classify", image, onnx_artifact)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment) as process:
        os.close(theirs)
        if closes:
            os.close(terminal)
        else:
            threading.Thread(target=_drain, args=(terminal,), daemon=True).start()
        stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [line.split("\t")[1] for line in stdout.splitlines()] == ["rank", "1", "2", "3", "4", "5"]


def _drain(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass
