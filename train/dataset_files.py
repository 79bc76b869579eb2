"""Readers for dataset files: IDX, CIFAR's binary archives, SVHN's MATLAB files.

Files are untrusted: sizes are bounded before memory is allocated, nothing is unpacked to disk, no pickle is loaded.
"""

from __future__ import annotations

import gzip
import importlib
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simplenet import strict_json
from simplenet.errors import DataError, one_line

UInt8Array = npt.NDArray[np.uint8]
MAX_BYTES = 1 << 30  # of one decompressed file; the largest of the MNIST family, EMNIST, has 0.55e9
_CIFAR_PIXELS = 3 * 32 * 32
_LARGEST_MEMBER = 200 << 20


def read_idx(path: Path, dimensions: int) -> UInt8Array:
    """Read a gzipped IDX file of unsigned bytes with `dimensions` axes and at least one sample.

    Raises:
        DataError: the file is missing, damaged, or has another type or shape.
    """
    try:
        with gzip.open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) != 4 + 4 * dimensions or header[:4] != bytes((0, 0, 8, dimensions)):
                raise DataError(f"{path} is not an IDX file of bytes with {dimensions} dimensions; download it again")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = int(np.prod(shape, dtype=object))
            if not 0 < size <= MAX_BYTES:
                raise DataError(f"{path} has an impossible shape, {list(shape)}; download it again")
            content = file.read(size)
            if len(content) != size or file.read(1):
                raise DataError(f"{path} is shorter or longer than its shape {list(shape)} says; download it again")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} ({one_line(error)}); download it again") from error
    return np.frombuffer(content, np.uint8).reshape(shape)


class CifarArchive:
    """The binary version of CIFAR-10 or CIFAR-100; `path` is the .tar.gz or the unpacked folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def images(self, names: tuple[str, ...], label_bytes: int) -> tuple[UInt8Array, npt.NDArray[np.int64]]:
        """Read images and labels of files, in the given order.

        Returns:
            RGB uint8 [N, 32, 32, 3], and the last label byte of each record, int64 [N].

        Raises:
            DataError: a file is missing, damaged or has another form.
        """
        record = label_bytes + _CIFAR_PIXELS
        parts = self._read(names)
        for name in names:
            if not parts[name] or len(parts[name]) % record:
                raise DataError(f"{self.path}: {name} is not a file of {record}-byte records; download it again")
        records = np.frombuffer(b"".join(parts[name] for name in names), np.uint8).reshape(-1, record)
        planes = records[:, label_bytes:].reshape(-1, 3, 32, 32)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, label_bytes - 1].astype(np.int64)

    def lines(self, name: str) -> tuple[str, ...]:
        """Read the class names in a text file; raises DataError."""
        try:
            lines = tuple(self._read((name,))[name][:100_000].decode("ascii").split())
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: {name} is not a list of names; download it again") from error
        if not lines or not all(map(strict_json.is_plain_string, lines)):
            raise DataError(f"{self.path}: {name} is not a list of names; download it again")
        return lines

    def _read(self, names: tuple[str, ...]) -> dict[str, bytes]:
        try:
            read = self._from_folder if self.path.is_dir() else self._from_tar
            found = read(names)
        except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError, RecursionError) as error:
            raise DataError(f"cannot read {self.path} ({one_line(error)}); download it again") from error
        if missing := [name for name in names if name not in found]:
            raise DataError(f"{self.path} has no {missing[0]}; it is not the binary version of this dataset")
        return found

    def _from_folder(self, names: tuple[str, ...]) -> dict[str, bytes]:
        paths = {name: self.path / name for name in names if (self.path / name).is_file()}
        self._check_size(sum(path.stat().st_size for path in paths.values()))
        return {name: path.read_bytes() for name, path in paths.items()}

    def _from_tar(self, names: tuple[str, ...]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with tarfile.open(self.path, "r:gz") as archive:
            for member in archive:
                name = Path(member.name).name
                if name in names and member.isreg():
                    self._check_size(member.size)
                    content = archive.extractfile(member)
                    found[name] = content.read() if content else b""
        return found

    def _check_size(self, size: int) -> None:
        if size > _LARGEST_MEMBER:
            raise DataError(f"{self.path} has a file of {size} bytes, more than 200 MiB; download it again")


def read_svhn(path: Path) -> tuple[UInt8Array, npt.NDArray[np.int64]]:
    """Read SVHN's cropped digits.

    The .mat file has `X` uint8 [32, 32, 3, N] and `y` [N, 1], in which 10 is the digit 0.

    Returns:
        RGB uint8 [N, 32, 32, 3] and the digits, int64 [N].

    Raises:
        DataError: the file is missing, damaged or has another form, or SciPy is not installed.
    """
    try:
        matlab: Any = importlib.import_module("scipy.io")
    except ImportError as error:
        raise DataError(f"reading {path.name} needs SciPy; pip install scipy") from error
    try:
        shapes = {name: (shape, kind) for name, shape, kind in matlab.whosmat(path)}
        (*image, count), kind = shapes["X"]
        if image != [32, 32, 3] or kind != "uint8" or not 0 < count <= 600_000 or shapes["y"][0] != (count, 1):
            raise ValueError(f"its arrays are {shapes}")
        arrays = matlab.loadmat(path, variable_names=["X", "y"])
        images, labels = arrays["X"], arrays["y"].reshape(-1)
        if images.dtype != np.uint8 or labels.dtype.kind not in "uif" or not np.isin(labels, np.arange(1, 11)).all():
            raise ValueError("a label is not 1 to 10")
    except Exception as error:  # SciPy raises many types
        raise DataError(
            f"{path} is not a file of SVHN's cropped digits ({one_line(error, 120)}); download it again"
        ) from error
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int64) % 10
