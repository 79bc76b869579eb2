"""Validate a PyTorch program (.pt2) from an untrusted source.

`torch.export.load` trusts its file: it unpickles the sample inputs, and evaluates shape expressions and guards as
Python. So PyTorch opens a checked copy instead, which contains only what this project's exporter writes: raw weights,
and a graph of a few known operators in which every string is a plain word.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simplenet import files
from simplenet.errors import ArtifactError, one_line, raise_if_from_signal_handler
from simplenet.manifest import METADATA_KEY

_PROGRAM = "models/model.json"
_WEIGHTS, _CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
_SAMPLE_INPUTS, _EXTRA = "data/sample_inputs/model.pt", f"extra/{METADATA_KEY}"
_RECORDS = re.compile(
    r"data/weights/weight_\d+|archive_format|archive_version|\.data/version|byteorder|\.data/serialization_id|"
    + "|".join(map(re.escape, (_PROGRAM, _WEIGHTS, _CONSTANTS, _SAMPLE_INPUTS, _EXTRA)))
)
_OPERATORS = {
    f"torch.ops.aten.{name}"
    for name in (
        "_assert_tensor_metadata.default", "add.Tensor", "amax.default", "conv2d.default", "linear.default",
        "max_pool2d.default", "mul.Tensor", "permute.default", "relu_.default", "reshape.default", "to.dtype",
    )
}  # fmt: skip
# Harmless even if PyTorch evaluates or imports it: no call, no index, no attribute access.
_WORD = re.compile(r"[\w.+-]*")
_DYNAMIC_BATCH = re.compile(r"Symbol\('s\d+', positive=True, integer=True\)")
_LEAF = '{"type": null, "context": null, "children_spec": []}'
_SPECS = (
    f"[1, {_LEAF}]",
    '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple", "context": "null", '
    f'"children_spec": [{_LEAF}]}}, {{"type": "builtins.dict", "context": "[]", "children_spec": []}}]}}]',
)


def checked(path: str | Path, content: bytes | None = None) -> io.BytesIO:
    """Return a copy of the archive that is safe for `torch.export.load`.

    Args:
        content: the archive's bytes, if they have been read.

    Raises:
        ArtifactError: the file cannot be read, or contains something that this project's exporter does not write.
    """
    records = _read(path, content)
    try:
        program = json.loads(records[_PROGRAM])
        targets = {node["target"] for node in program["graph_module"]["graph"]["nodes"]}
        weights = json.loads(records[_WEIGHTS])["config"].values()
        if targets - _OPERATORS:
            raise ValueError(f"the operator {min(targets - _OPERATORS)}")
        if any(weight["use_pickle"] is not False for weight in weights) or records[_SAMPLE_INPUTS]:
            raise ValueError("a pickle")
        if json.loads(records[_CONSTANTS]) != {"config": {}}:
            raise ValueError("objects other than weights")
        if program.get("guards_code"):
            raise ValueError("guards in Python")
        for text in _strings(program):
            if not (_WORD.fullmatch(text) or _DYNAMIC_BATCH.fullmatch(text) or text in _SPECS):
                raise ValueError(f"the text {one_line(text, 60)!r}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{path} contains something that this project's exporter does not write ({one_line(error)}), and that "
            "may run code; export it again"
        ) from error
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)  # a ZIP has no dates before 1980
    copy.seek(0)
    return copy


def embedded_manifest(path: str | Path) -> str | None:
    """The manifest's JSON inside the archive, or None. Needs no PyTorch.

    Raises:
        ArtifactError: the file cannot be read.
    """
    content = _read(path).get(_EXTRA)
    return None if content is None else content.decode("utf-8", "replace")


def _read(path: str | Path, content: bytes | None = None) -> dict[str, bytes]:
    """The archive's records, by name without the root folder."""
    try:
        with zipfile.ZipFile(path if content is None else io.BytesIO(content)) as archive:
            entries = archive.infolist()
            root = entries[0].filename.partition("/")[0]
            names = [entry.filename.removeprefix(f"{root}/") for entry in entries]
            unknown = [name for name in names if not _RECORDS.fullmatch(name)]
            if unknown or len(set(names)) != len(names) or any(entry.compress_type for entry in entries):
                raise ArtifactError(
                    f"{path} is not a PyTorch program of this project ({one_line(repr(unknown[:1] or names[:1]))}); "
                    "export it again"
                )
            return {name: archive.read(entry) for name, entry in zip(names, entries, strict=True)}
    except (OSError, zipfile.BadZipFile, struct.error, LookupError, ValueError, RuntimeError, EOFError) as error:
        raise_if_from_signal_handler(error)
        raise ArtifactError(f"cannot read {path}: {one_line(files.error_message(error))}; export it again") from error


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
