"""Texts of errors: the cause is never cut off, and the advice fits it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simplenet import files, images
from simplenet.errors import ImageError, one_line


@pytest.mark.parametrize("text", [
    "/very/long/path" * 100 + ": the disk is full",
    "Exception from src/inference/src/cpp/core.cpp:132:\n" * 40 + "the disk is full",
    "http://host/" + "a" * 400 + " cannot be opened: the disk is full",
])  # fmt: skip
@pytest.mark.parametrize("limit", [40, 120, 300])
def test_a_long_text_keeps_its_start_and_its_cause(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) == limit
    assert line.endswith("the disk is full")
    assert line.startswith(" ".join(text.split())[: limit // 3])


@pytest.mark.parametrize("limit", range(1, 8))
def test_tiny_limits_hold(limit: int) -> None:
    assert len(one_line("x" * 20, limit)) == limit
    assert one_line("x" * limit, limit) == "x" * limit


@pytest.mark.parametrize(("number", "advice"), [
    (errno.EACCES, "make it readable"), (errno.EPERM, "make it readable"), (errno.ENOENT, "check the name"),
    (errno.ENAMETOOLONG, "check the name"), (errno.EMFILE, "ulimit -n"), (errno.ENFILE, "ulimit -n"),
])  # fmt: skip
def test_the_advice_fits_the_cause(number: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(number, os.strerror(number))
    assert files.read_advice(error).startswith(advice) or advice in files.read_advice(error)
    assert files.read_advice(OSError(errno.EIO, "Input/output error")) == ""
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)

    def fails(*arguments: object) -> bytes:
        raise error

    monkeypatch.setattr(images, "_read", fails)
    with pytest.raises(ImageError, match=rf"a\.png: cannot be read \({os.strerror(number)}\); .*{advice}"):
        images.read_rgb(path)


def test_a_full_memory_is_not_blamed_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)

    def fails(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(ImageError, match="too large for the free memory"):
        images.read_rgb(path)
