"""`export.make` finds exporters by file name."""

from __future__ import annotations

from pathlib import Path

import pytest

import export
from simplenet.errors import UsageError
from simplenet.formats import FORMATS


def test_every_format_has_an_exporter() -> None:
    assert set(export.formats()) == set(FORMATS)


def test_unknown_format_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown format 'onx', did you mean 'onnx'\?; choose from: "):
        export.make("onx", artifacts=tmp_path)


def test_options_reach_the_exporter(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown onnx precision 'int7'"):
        export.make("onnx", precision="int7", artifacts=tmp_path)
