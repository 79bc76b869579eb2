"""Name the kind of a file that is no checkpoint, image or dataset, and what to type instead."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from simplenet.errors import one_line

_MAGIC = {
    b"\x1f\x8b": "compressed with gzip; unpack it: gunzip {path}",
    b"BZh": "compressed with bzip2; unpack it: bunzip2 {path}",
    b"\xfd7zXZ\0": "compressed with xz; unpack it: unxz {path}",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it: unzstd {path}",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it: 7z x {path}",
    b"Rar!": "a rar archive; unpack it: unrar x {path}",
    b"version https://git-lfs": "a git-lfs pointer, not the file itself; type: git lfs pull",
}
"""What a file is, by its first bytes, and what to type."""
_OTHER_WEIGHTS = {
    b"PK\x03\x04": "an incomplete download; download it again",  # a zip without its end
    b"\x89HDF": "an HDF5 file, as Keras writes; name a checkpoint of PyTorch",
    b"GGUF": "a GGUF file; name a checkpoint of PyTorch",
    b"\x93NUMPY": "a NumPy array; for weights, save all arrays in one file: numpy.savez('weights.npz', **arrays)",
}


def is_safetensors(data: bytes) -> bool:
    """Whether a file starts like .safetensors: the header's length, then JSON."""
    return data[8:9] == b"{" and 2 <= int.from_bytes(data[:8], "little") <= len(data) - 8


def describe(data: bytes, path: Path) -> str:
    """Say what a file is that is no checkpoint, and what to type; "" if it may be a pickle.

    Args:
        data: the content of a file that is neither a zip nor .safetensors.
    """
    start = data[:512]
    if what := describe_other(data, path, {**_MAGIC, **_OTHER_WEIGHTS}):
        return what
    if not re.search(rb"[^\t\n\r\x20-\x7e]", start) and not data.rstrip().endswith(b"."):
        return "a text file, not a checkpoint; download the file itself"
    if not start.startswith((b"\x80", b"L")):  # how pickles of torch.save start; L: protocol 0 or 1
        return (
            "neither a file of torch.save nor .safetensors; name a checkpoint, or type --artifact for an exported model"
        )
    return ""


def describe_other(data: bytes, path: Path, magic_numbers: Mapping[bytes, str] = _MAGIC) -> str:
    """Say what a file is that people get in place of any other, and what to type; "" if it is none of these.

    Args:
        data: the content, or its first 512 bytes.
    """
    start, quoted = data[:512], shlex.quote(str(path))
    if not data:
        return "empty; copy or download it again"
    for magic, what in magic_numbers.items():
        if data.startswith(magic):
            return what.format(path=quoted)
    if data[257:262] == b"ustar":
        return f"a tar archive; unpack it: tar xf {quoted}"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page, not the file itself; open it in a browser to see why, then download the file itself"
    return ""


def torch_folder(names: Sequence[str]) -> str | None:
    """Return the folder of data.pkl in a zip of torch.save, with a slash; None for any other zip."""
    folders = [name[:-8] for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    return next((folder for folder in folders if f"{folder}constants.pkl" not in names), None)


def describe_zip(names: Sequence[str], path: Path) -> str:
    """Say what a zip is that torch.save did not write, and what to type."""
    if any(name.endswith("/constants.pkl") for name in names):
        code = f'import torch; torch.save(torch.jit.load({json.dumps(str(path))}).state_dict(), "weights.pth")'
        return f"a TorchScript program, which is never run; save only its weights: python -c {shlex.quote(code)}"
    if any(re.search(r"(^|/)(archive_format|serialized_exported_program\.json)$", name) for name in names):
        return "an exported program of PyTorch (.pt2), not weights; name the checkpoint that it was made from"
    if names and all(re.search(r"/(version|byteorder|\.data/serialization_id)$", name) for name in names):
        return "what torch.save leaves when it is interrupted; save the checkpoint again"
    content = one_line(repr(names[0]), 80) if names else "nothing"
    return f"a zip archive of {content}; unpack it: unzip {shlex.quote(str(path))}"


def describe_folder(path: Path) -> str:
    """Say what a folder is, and what to type."""
    name = shlex.quote(str(path))
    if (path / ".metadata").is_file():
        command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {name} weights.pth"
        return f"a folder of torch.distributed.checkpoint; convert it: {command}"
    files = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".pth", ".pt", ".bin", ".ckpt"))
    advice = f"type --weights {shlex.quote(str(files[0]))}" if files else "name a checkpoint: --weights PATH"
    return f"a folder, not a checkpoint; {advice}"
