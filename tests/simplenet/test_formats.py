"""The table of formats: consistent in itself, and with the backends and exporters that read it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from runtimes import loader
from simplenet.formats import FORMATS, PRECISIONS, Format


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
def test_a_format_has_a_backend_an_exporter_and_known_precisions(format: Format) -> None:
    assert FORMATS[format.name] is format
    assert format.name in loader.backend_class(format.default_backend).FORMATS
    assert importlib.util.find_spec(f"export.to_{format.name}")
    assert format.precisions[0] == "fp32"
    assert set(format.precisions) <= set(PRECISIONS) - {"bf16"}


def test_model_files_tell_the_format() -> None:
    names = [name for format in FORMATS.values() for name in format.files]
    assert len({Path(name).suffix for name in names}) == len(names)
    assert all(format.model_file == format.files[0] for format in FORMATS.values())
