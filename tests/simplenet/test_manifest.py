"""Manifests on disk: what they say, and rejection of hostile ones."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simplenet import artifacts
from simplenet.errors import ArtifactError
from simplenet.manifest import InputSpec, Manifest, WeightsOrigin
from tests.simplenet.published import MANIFEST


def test_manifest_says_when_preprocessing_is_in_doubt(folder: Path) -> None:
    values = json.loads((folder / "manifest.json").read_text("utf-8"))
    del values["preprocessing_source"]  # written by an older version
    (folder / "manifest.json").write_text(json.dumps(values), "utf-8")
    old = artifacts.read(folder).manifest
    assert (old.preprocessing_source, old.preprocessing_doubt) == ("unknown", "")
    checkpoint = dataclasses.replace(old, weights=WeightsOrigin("checkpoint", "net-12345678", "00"))
    assert checkpoint.preprocessing_doubt == "preprocessing: unknown"
    for source, doubt in (
        ("assumed for 1.5m", "preprocessing: assumed for 1.5m"),
        ("flags --mean; labels assumed for 1.5m", "preprocessing: flags --mean; labels assumed for 1.5m"),
        ("flags --dataset svhn", ""),
        ("model card", ""),
        ("official checkpoint of 1.5m", ""),
    ):
        assert dataclasses.replace(checkpoint, preprocessing_source=source).preprocessing_doubt == doubt


def test_float32_input_has_shape_nchw() -> None:
    assert InputSpec("x", "float32", "NCHW", 224, 224, 4).shape == (4, 3, 224, 224)


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(MANIFEST.to_json()), "files": {"model.onnx": "00"}, **values})


def inner(table: str, /, **values: Any) -> str:
    return changed(**{table: {**json.loads(MANIFEST.to_json())[table], **values}})


HOSTILE = [
    ("", "Expecting value"),
    ("null", "not a JSON object"),
    ('"text"', "not a JSON object"),
    (MANIFEST.to_json()[: len(MANIFEST.to_json()) // 2], "not a valid manifest"),
    ("{" * 100, "not a valid manifest"),
    ("[" * 100_000, "nested too deeply"),
    ('{"a":' * 100_000, "nested too deeply"),
    (changed(measured={"deep": json.loads("[" * 500 + "]" * 500)}), "nested too deeply"),
    ("{}", "no 'schema_version'"),
    (changed(schema_version=99), "schema version 99, this program reads 1; update this program"),
    (changed(schema_version=0), "schema version 0, this program reads 1; export it again"),
    (changed(schema_version="1"), "schema version '1'"),
    (changed(schema_version=10**5000 if sys.version_info < (3, 10, 7) else 10**400), "63 bits"),
    (changed(surprise=1), "surprise"),
    (changed(format="pickle"), "format 'pickle'"),
    (changed(format=["onnx"]), "format"),
    (changed(precision="fp64"), "precision 'fp64'"),
    (changed(variant="../../etc"), "the name '../../etc'"),
    (changed(variant=""), "the name ''"),
    (inner("weights", name="a/b"), "the name 'a/b'"),
    (inner("weights", name=None), "the name None"),
    (inner("weights", source="found in the street"), "weights from"),
    (inner("weights", sha256=5), "weights from"),
    (changed(weights="pretrained"), "mapping"),
    (changed(num_classes=-1), "num_classes -1"),
    (changed(num_classes=1, labels=["shoe"], class_ids=[]), "num_classes 1"),
    (changed(num_classes=True), "num_classes True"),
    (changed(num_classes=10**9), "num_classes"),
    (changed(labels=["cat"]), "number of labels"),
    (changed(labels="ab"), "not plain strings"),
    (changed(labels=["a", "\x1b[2J"]), "not plain strings"),
    (changed(class_ids=["x"]), "number of labels"),
    (inner("input", height=31), "input 31x32"),
    (inner("input", height=32.0), "input 32.0x32"),
    (inner("input", batch=0), "batch 0"),
    (inner("input", batch=True), "batch True"),
    (inner("input", batch=65_536), "batch 65536"),
    (inner("input", dtype="float64"), "float64"),
    (inner("input", layout="NCHW"), "NCHW"),
    (inner("input", name=7), "input 7"),
    (inner("preprocessing", crop_size=10**6), "impossible sizes"),
    (inner("preprocessing", mean=[0, 0, float("nan")]), "not finite"),
    (MANIFEST.to_json().replace("0.99999", "NaN"), "not finite"),
    (MANIFEST.to_json().replace("0.99999", "-Infinity"), "not finite"),
    (MANIFEST.to_json().replace("0.99999", "1e999"), "not finite"),
    (changed(output=None), "output None"),
    (changed(preprocessing_source=None), "preprocessing_source"),
    (changed(preprocessing_source="\x1b[2J"), "preprocessing_source"),
    (changed(preprocessing_source="x" * 201), "preprocessing_source"),
    (changed(tools=[]), "instead of an object"),
    (changed(calibration=7), "instead of an object"),
    (changed(calibration=[]), "instead of an object"),
    (changed(files=["model.onnx"]), "instead of an object"),
    (changed(files={"model.onnx": 5}), "outside the artifact's folder"),
    (changed(files={}), "does not list model.onnx"),
    (changed(files={"model.xml": "00"}, format="openvino"), "does not list model.bin"),
    *((changed(files={"model.onnx": "00", name: "00"}), "outside the artifact's folder")
      for name in ("../secret", "/etc/passwd", "..", ".", "", "a/b", "..\\secret", "C:secret", "a\0b", "\x1b[2J")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), HOSTILE, ids=[str(number) for number in range(len(HOSTILE))])
def test_rejects_hostile_manifests_in_one_line(folder: Path, text: str, reason: str) -> None:
    (folder / "manifest.json").write_text(text, "utf-8")
    with pytest.raises(ArtifactError, match=reason) as caught:
        artifacts.read(folder)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe{}", "is not UTF-8 text; save it as UTF-8"),
        ('{"labels": ["café"]}'.encode("latin-1"), "is not UTF-8 text; save it as UTF-8"),
        ("{}".encode("utf-16-le"), "is not a valid manifest"),
        (b" " * (5 << 20), "more than 4194304 characters"),
    ],
)
def test_rejects_a_manifest_that_is_no_text(folder: Path, content: bytes, reason: str) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=reason):
        artifacts.read(folder)


def test_reads_a_manifest_with_a_byte_order_mark(folder: Path) -> None:
    expected = artifacts.read(folder)
    text = (folder / "manifest.json").read_text("utf-8")
    (folder / "manifest.json").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))  # as Windows Notepad
    assert artifacts.read(folder) == expected
    assert Manifest.from_json("\ufeff" + text, where="a model file") == expected.manifest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=120)
@given(data=st.data())
def test_any_json_is_a_manifest_or_an_artifact_error(data: st.DataObject) -> None:
    values = json.loads(MANIFEST.to_json())
    place = values
    if data.draw(st.booleans()):
        place = values[data.draw(st.sampled_from(["weights", "input", "preprocessing"]))]
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    try:
        manifest = Manifest.from_json(json.dumps(values), where="here")
    except ArtifactError:
        return
    assert Manifest.from_json(manifest.to_json(), where="here") == manifest
    hash(manifest.preprocessing)  # crop_geometry's cache needs a hash


def test_does_not_write_a_manifest_with_nan() -> None:
    with pytest.raises(ArtifactError, match="manifest cannot be written"):
        dataclasses.replace(MANIFEST, measured={"cosine": float("nan")}).to_json()
